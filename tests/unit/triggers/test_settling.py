"""No trigger of a task fires in its first seconds."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from airflow_mlops.triggers import settling
from airflow_mlops.triggers.settling import settled


@pytest.mark.parametrize(
    ("task", "ago", "least", "most"), [("a", 0.0, 1, 10), ("a", 5, 0, 0.9), (None, 0.0, 0, 0.9)]
)
def test_what_it_waits_for(task, ago, least, most, monkeypatch):
    monkeypatch.setattr(settling, "settling", lambda: 1.0)
    began = time.monotonic()
    asyncio.run(settled(SimpleNamespace(task_instance=task), began - ago))
    assert least <= time.monotonic() - began < most


def test_airflows_settings_decide(monkeypatch):
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "1")
    assert settling.settling() == 1 + settling.MARGIN
