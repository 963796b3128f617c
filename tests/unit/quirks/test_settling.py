"""No trigger of a task fires in its first seconds."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from airflow_mlops.quirks import settling
from airflow_mlops.quirks.settling import settled


@pytest.mark.parametrize(("task", "ago", "waits"), [("a", 0.0, True), ("a", 2e6, False), (None, 0.0, False)])
def test_what_it_waits_for(task, ago, waits, monkeypatch):
    waited = [0.0]

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(settling, "settling", lambda: 1e6)
    monkeypatch.setattr(settling.asyncio, "sleep", sleep)
    asyncio.run(settled(SimpleNamespace(task_instance=task), time.monotonic() - ago))
    assert (waited[-1] > 9e5) == waits


def test_airflows_settings_decide(monkeypatch):
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "1")
    assert settling.settling() == 1 + settling.MARGIN
