"""Which cancelled trigger may stop its job."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_mlops.triggers.ownership import moved_elsewhere


def moved(states, monkeypatch, *, map_index=-1):
    def get_task_states(dag_id, *, map_index, task_ids, run_ids):
        asked.append((dag_id, map_index, task_ids, run_ids))
        return {"run": states}

    asked = []
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(get_task_states))
    task = SimpleNamespace(dag_id="dag", run_id="run", task_id="train", map_index=map_index)
    found = asyncio.run(moved_elsewhere(SimpleNamespace(task_instance=task)))
    assert asked == [("dag", None if map_index < 0 else map_index, ["train"], ["run"])]
    return found


def test_a_task_that_waits_was_not_ended(monkeypatch):
    assert moved({"train": "deferred"}, monkeypatch)
    assert moved({"train_3": "deferred"}, monkeypatch, map_index=3)


@pytest.mark.parametrize(
    "states", [{"train": "failed"}, {"train": None}, {"train": "running"}, {}, {"train_1": "deferred"}]
)
def test_whoever_is_in_another_state_was(states, monkeypatch):
    assert not moved(states, monkeypatch)


def test_a_trigger_without_a_task_is_its_own():
    assert not asyncio.run(moved_elsewhere(SimpleNamespace(task_instance=None)))
