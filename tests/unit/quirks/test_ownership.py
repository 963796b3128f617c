"""Which state of a task lets a cancelled trigger, or a worker that is ended, stop the job."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest
from airflow.sdk import TaskInstanceState
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_mlops.quirks.ownership import ended, ended_within
from airflow_mlops.runners import get_runner
from airflow_mlops.triggers.job import JobTrigger
from tests.fixtures.jobs import eventually, tiny_job

OVER = {"success", "failed", "skipped", "upstream_failed", "removed", "restarting", None}
HANDS_OFF = {str(state.value) for state in TaskInstanceState} - OVER


@pytest.fixture
def airflow(monkeypatch):
    """What Airflow says of the tasks of a run."""
    said = {}

    def get_task_states(dag_id, *, map_index, task_ids, run_ids):
        assert (dag_id, task_ids, run_ids) == ("dag", ["train"], ["run"])
        said["map_index"] = map_index
        if isinstance(said["states"], Exception):
            raise said["states"]
        return {"run": said["states"]} if said["states"] is not None else {}

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(get_task_states))
    return said


def task(map_index=-1):
    return SimpleNamespace(dag_id="dag", run_id="run", task_id="train", map_index=map_index)


def was_ended(map_index=-1):
    return asyncio.run(ended(SimpleNamespace(task_instance=task(map_index))))


@pytest.mark.parametrize("state", sorted(HANDS_OFF))
def test_a_task_that_somebody_has_or_will_have_was_not_ended(airflow, state):
    assert {"deferred", "scheduled", "queued", "running", "up_for_retry"} <= HANDS_OFF
    airflow["states"] = {"train": state, "train_3": "failed"}
    assert not was_ended()
    assert not ended_within(task())
    airflow["states"] = {"train": "failed", "train_3": state}
    assert not was_ended(3)
    assert airflow["map_index"] == 3


@pytest.mark.parametrize("state", sorted(OVER, key=str))
def test_one_that_is_over_or_cleared_was(airflow, state):
    airflow["states"] = {"train": state, "train_3": "deferred"}
    assert was_ended()
    assert ended_within(task())


def test_one_that_was_deleted_was(airflow):
    for states in (None, {}, {"train_1": "deferred"}):
        airflow["states"] = states
        assert was_ended()


def test_a_trigger_without_a_task_is_its_own():
    assert asyncio.run(ended(SimpleNamespace(task_instance=None)))


def test_where_airflow_does_not_say_a_trigger_leaves_the_job(airflow):
    airflow["states"] = RuntimeError("no connection")
    with pytest.raises(RuntimeError, match="no connection"):
        was_ended()


def test_where_airflow_does_not_say_in_time_a_worker_ends_it(airflow, monkeypatch):
    airflow["states"] = RuntimeError("no connection")
    assert ended_within(task())
    asked = threading.Event()
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda *_, **__: asked.wait(60))
    assert ended_within(task(), 0.05)
    asked.set()


class TestJob:
    """What becomes of the job itself."""

    @pytest.fixture
    def options(self, tmp_path):
        return {"root": str(tmp_path / "jobs")}

    def killed(self, options, state, airflow):
        trigger = JobTrigger(runner="process", options=options, name="job")
        trigger.task_instance = task()
        airflow["states"] = {"train": state}
        asyncio.run(trigger.on_kill())
        return get_runner("process", **options).inspect("job").status

    def test_a_running_one_is_stopped_only_when_its_task_is_over(self, options, airflow):
        runner = get_runner("process", **options)
        runner.submit(tiny_job("job", do="sleep", seconds="600"))
        try:
            for state in sorted(HANDS_OFF):
                assert self.killed(options, state, airflow) == "running", state
            assert self.killed(options, "failed", airflow) == "gone"
        finally:
            runner.stop("job")

    @pytest.mark.parametrize("state", ["running", "failed", "success", None])
    def test_the_result_of_one_that_has_ended_stays(self, options, airflow, tmp_path, state):
        runner = get_runner("process", **options)
        runner.submit(tiny_job("job", do="learn"))
        eventually(lambda: runner.inspect("job").status == "exited")
        assert self.killed(options, state, airflow) == "exited"
        runner.collect("job", ("model", "output"), tmp_path / "taken")
        assert any((tmp_path / "taken").rglob("*"))
