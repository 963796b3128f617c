"""A tuning that cannot go on leaves nothing behind, and its best job is taken over once."""

from __future__ import annotations

import asyncio

import pytest
from airflow.sdk.exceptions import AirflowException

from airflow_mlops.operators.training.train import TrainModelOperator
from airflow_mlops.operators.training.tune import TuneModelOperator
from airflow_mlops.runners.process.runner import ProcessRunner
from airflow_mlops.runners.protocol import ContainerJob
from airflow_mlops.triggers.tuning import TuningTrigger
from tests.fixtures.jobs import TINY, eventually
from tests.fixtures.tasks import context
from tests.fixtures.tiny_operator import StateStore, end_jobs, jobs, process_place, runner_of
from tests.fixtures.tuning import KEY, Written


class TestEnd:
    """The triggerer gave up, with trials on their way."""

    @pytest.fixture
    def place(self, tmp_path):
        yield (place := process_place(tmp_path))
        end_jobs(place)

    @pytest.fixture
    def given_up(self, place, tmp_path, monkeypatch):
        """The task that is told of it."""
        written = Written(tmp_path, place["runner"], name="t", trials=4, fixed={"pause": 60.0})
        monkeypatch.setattr(TuneModelOperator, "_key", lambda self, name: KEY)

        async def begin():
            running = asyncio.create_task(anext(TuningTrigger(store=written.store, key=KEY).run()))
            await asyncio.to_thread(eventually, lambda: written.runner.inspect("t-t1").status == "running")
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        asyncio.run(begin())
        asked = {"dataset": {}, "description": {}, "tuning": {}, "experiment": "t", "application": "tuned"}
        task = TuneModelOperator(task_id="tune", **asked, **place)
        event = {"status": "error", "reason": "RuntimeError: nobody thought of this"}
        return lambda **tries: task.complete(context(**tries), event, "t", {})

    def test_the_last_try_stops_its_trials_and_says_why(self, given_up, place):
        with pytest.raises(AirflowException, match="nobody thought of this") as raised:
            given_up()
        assert "Cure" in str(raised.value)
        assert jobs(place) == []

    def test_a_retry_finds_them(self, given_up, place):
        with pytest.raises(AirflowException, match="nobody thought of this"):
            given_up(try_number=1, max_tries=1)
        assert {"t-t0", "t-t1"} <= set(jobs(place))
        assert runner_of(place).inspect("t-t0").status == "running"


class Trainer(TrainModelOperator):
    """Takes over what its job wrote, without an MLflow server."""

    def inputs(self, context, scratch):
        return {}

    def config(self, context):
        return {"parameters": {"do": "learn", "code": "0"}}

    def progress(self, context, state):
        return None

    def take_over(self, context, output, state):
        return self._job_name


class TestReuse:
    """The best trial's job, in the trainings after it."""

    @pytest.fixture
    def place(self, tmp_path):
        place = process_place(tmp_path)
        entrypoint = tuple(place["code"]["entrypoint"])
        config = {"parameters": {"do": "learn", "code": "0"}}
        job = ContainerJob("best", "train", entrypoint=entrypoint, directory=str(TINY), config=config)
        runner_of(place).submit(job)
        eventually(lambda: runner_of(place).inspect("best").status == "exited")
        yield place
        end_jobs(place)

    @pytest.fixture
    def begun(self, monkeypatch):
        """Jobs that were begun since."""
        begun, submit = [], ProcessRunner.submit

        def told(self, job):
            if self.inspect(job.name).status == "gone":
                begun.append(job.name)
            return submit(self, job)

        monkeypatch.setattr(ProcessRunner, "submit", told)
        return begun

    @pytest.fixture
    def train(self, place):
        """One try of the training; its state store outlives it."""
        memory, asked = StateStore(), {"dataset": {}, "description": {"job": "best"}, "experiment": "t"}

        def run(number, max_tries):
            task = Trainer(task_id="train", application="t", retries=1, deferrable=False, **asked, **place)
            return task.execute(
                {**context(try_number=number, max_tries=max_tries), "task_state_store": memory}
            )

        return run

    def test_clear_trains_again_and_a_retry_does_not(self, train, begun, place):
        assert train(1, 1) == "best"
        assert train(2, 1) == "best"  # the worker died on its way back
        assert (begun, jobs(place)) == ([], [])
        cleared = train(3, 3)
        assert begun == [cleared] != ["best"]
        assert train(4, 3) == cleared
        again = train(5, 5)
        assert begun == [cleared, again]
        assert len({"best", cleared, again}) == 3

    def test_a_cleared_run_takes_over_what_its_new_tuning_found(self, train, begun):
        assert train(2, 3) == "best"
        assert begun == []

    def test_where_it_is_gone_the_training_has_a_job_of_its_own(self, train, begun, place):
        runner_of(place).cleanup("best")
        assert begun == [train(1, 1)] != ["best"]
