"""Waiting for GPUs: what ends it, and what does not."""

from __future__ import annotations

import asyncio
import json

import pytest

from airflow_mlops.exceptions import EngineUnavailableError, GpusMissingError
from airflow_mlops.triggers import gpus
from airflow_mlops.triggers.gpus import FreeGpuTrigger


class Runner:
    """Answers one after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def gpus_free(self, name, gpus, image):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def fire(runner, monkeypatch):
    monkeypatch.setattr(gpus, "get_runner", lambda kind, **options: runner)
    monkeypatch.setattr(gpus, "LONGEST_PAUSE", 0.02)
    trigger = FreeGpuTrigger(
        runner="docker", options={}, name="job", gpus=["GPU-1"], image="tiny:1", poll=0.01
    )
    path, kwargs = json.loads(json.dumps(trigger.serialize()))
    assert path == "airflow_mlops.triggers.gpus.FreeGpuTrigger"
    return asyncio.run(anext(FreeGpuTrigger(**kwargs).run())).payload


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ([True], "free"),
        ([False, False, True], "free"),
        ([EngineUnavailableError("away"), OSError("broken"), True], "free"),
        ([False, GpusMissingError("none of that")], "missing"),
    ],
)
def test_it_looks_until_the_job_can_or_never_can_have_them(monkeypatch, answers, status):
    runner = Runner(*answers)

    event = fire(runner, monkeypatch)

    assert event["status"] == status
    assert runner.answers == []
    assert event["message"] == ("none of that" if status == "missing" else "")
