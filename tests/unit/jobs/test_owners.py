"""What becomes of a job whose task was cleared, and of one whose task was ended while it was started."""

from __future__ import annotations

from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.operators.training.tune import TuneModelOperator
from airflow_mlops.runners import get_runner
from airflow_mlops.runners.process.runner import ProcessRunner
from tests.fixtures.jobs import eventually, tiny_job
from tests.fixtures.tasks import context
from tests.fixtures.tiny_operator import TinyOperator, end_jobs, jobs, lines_of, process_place, runner_of


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "in-process")
    place = process_place(tmp_path)
    yield place
    end_jobs(place)


@pytest.fixture
def container(tiny_image, place, no_leftovers):
    place |= {"code": {"image": tiny_image}, "runner": {"kind": "docker", "docker_conn_id": ""}}
    yield place
    get_runner("docker", docker_conn_id="").cleanup(TinyOperator(**place).job_name(context()))


def start(place, **attempt):
    with pytest.raises(TaskDeferred) as caught:
        TinyOperator(do="nap", **place).execute(context(**attempt))
    return caught.value.kwargs["job"]


class TestCleared:
    def test_the_job_from_before_a_clear_is_ended(self, place):
        """Its triggerer is late or away, and took the task that waits again for one that waits for this job."""
        first = start(place)
        another = start(place, run_id="manual__2")
        assert start(place, try_number=2) == first, "a retry adopts its job"
        eventually(lambda: runner_of(place).inspect(first).status == "running")

        second = start(place, try_number=2, max_tries=1)
        assert sorted(jobs(place)) == sorted([second, another])

    def test_jobs_of_others_are_left_alone(self, place, monkeypatch):
        first = start(place)
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://another.example.com")
        second = start(place, try_number=2, max_tries=1)
        assert sorted(jobs(place)) == sorted([first, second])

    def test_trials_of_a_tuning_from_before_a_clear_are_ended(self, place, monkeypatch):
        monkeypatch.setattr(TuneModelOperator, "_prepare", lambda *_: True)
        asked = {"dataset": {}, "description": {}, "tuning": {}, "experiment": "t", "application": "tuned"}
        task, again = TuneModelOperator(task_id="tune", **asked, **place), context(try_number=2, max_tries=1)
        for job, name in [("before", "before-t0"), (task.job_name(again), "now-t0")]:
            labels = task._owner(again, job)
            runner_of(place).submit(replace(tiny_job(name, do="sleep", seconds="600"), labels=labels))
        with pytest.raises(TaskDeferred):
            task.execute(again)
        assert jobs(place) == ["now-t0"]


class Ended(TinyOperator):
    """Somebody ends its task while its inputs are taken over."""

    def inputs(self, context, scratch):
        self.on_kill()
        return {}


class TestEndedWhileItStarts:
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_before_there_is_a_job(self, place, deferrable):
        with pytest.raises(AirflowFailException, match="somebody ended the task"):
            Ended(deferrable=deferrable, **place).execute(context())
        assert jobs(place) == []

    def test_in_the_middle_of_a_submit(self, place, monkeypatch):
        operator, submit = TinyOperator(do="nap", **place), ProcessRunner.submit

        def ended(runner, job):
            operator.on_kill()
            return submit(runner, job)

        monkeypatch.setattr(ProcessRunner, "submit", ended)
        with pytest.raises(AirflowFailException, match="somebody ended the task"):
            operator.execute(context())
        assert jobs(place) == []

    @pytest.mark.docker
    @pytest.mark.parametrize("moment", ["model_code_image", "create", "put"])
    def test_no_container_is_started_after_it(self, container, docker_engine, monkeypatch, moment):
        operator = TinyOperator(do="nap", **container)
        hook, started = operator._runner().hook, []
        real = getattr(hook, moment)

        def ended(*arguments):
            operator.on_kill()
            return real(*arguments)

        monkeypatch.setattr(hook, moment, ended)
        monkeypatch.setattr(hook, "start", started.append)
        with pytest.raises(AirflowException):
            operator.execute(context())
        assert started == []
        assert docker_engine.containers(operator.job_name(context())) == []

    @pytest.mark.docker
    def test_a_runner_starts_the_job_again_when_it_is_asked_anew(self, container):
        operator = TinyOperator(do="nap", **container)
        runner, job = operator._runner(), operator._job(context(), operator.job_name(context()), None)
        runner.cleanup(job.name)
        assert runner.submit(job).status == "running"
        runner.cleanup(job.name)
        assert runner.submit(job).status == "running"


class TestTakenOver:
    def test_an_engine_that_refuses_costs_a_try_and_not_the_training(self, place, monkeypatch):
        """As one that says 500 while a gigabyte is copied."""
        collect = ProcessRunner.collect

        def refuse_once(runner, *arguments):
            monkeypatch.setattr(ProcessRunner, "collect", collect)
            raise RunnerError("Docker Engine could not copy model: 500")

        monkeypatch.setattr(ProcessRunner, "collect", refuse_once)
        first = TinyOperator(deferrable=False, retries=1, **place)
        with pytest.raises(AirflowException, match="500") as caught:
            first.execute(context(max_tries=1))
        assert not isinstance(caught.value, AirflowFailException)
        assert jobs(place) == [first.job_name(context(max_tries=1))]
        second = TinyOperator(deferrable=False, retries=1, **place)
        assert "metrics.json" in second.execute(context(try_number=2, max_tries=1))
        assert jobs(place) == []

    def test_a_job_that_the_triggerer_cannot_watch_is_watched_by_the_worker(self, place, monkeypatch):
        parameters = {"lines": "3", "pause": "0.2"}
        with pytest.raises(TaskDeferred) as caught:
            TinyOperator(do="chatter", parameters=parameters, **place).execute(context())
        operator = TinyOperator(do="chatter", parameters=parameters, **place)
        lines = lines_of(operator, monkeypatch)
        event = {"status": "error", "message": "no such file: ca.pem", "position": {}, "rest": True}
        operator.resume_execution(
            caught.value.method_name, {**caught.value.kwargs, "event": event}, context()
        )
        assert [line for line in lines if "cannot watch" in line and "ca.pem" in line]
        assert lines[-3:] == ["line 1", "line 2", "line 3"]
        assert jobs(place) == []


class TestSecretsThatCannotBeRead:
    """Nobody knows what to hide in the output."""

    @pytest.fixture
    def deferred(self, place, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_READER", '{"conn_type": "http", "password": "hunter22"}')
        place |= {"secrets": {"warehouse": "reader"}, "retries": 1}
        with pytest.raises(TaskDeferred) as caught:
            TinyOperator(do="secret", parameters={"seconds": "0.4", "code": "1"}, **place).execute(
                context(max_tries=1)
            )
        monkeypatch.delenv("AIRFLOW_CONN_READER")
        eventually(lambda: runner_of(place).inspect(caught.value.kwargs["job"]).status == "exited")
        return caught.value

    def complete(self, place, deferred, monkeypatch, capsys, **attempt):
        operator = TinyOperator(**place)
        lines = lines_of(operator, monkeypatch)
        with pytest.raises(AirflowException) as failed:
            operator.complete(
                context(**attempt), {"status": "exited", "position": {}, "rest": True}, **deferred.kwargs
            )
        said = "\n".join([*lines, str(failed.value), capsys.readouterr().out])
        assert "hunter22" not in said
        return said

    def test_a_connection_that_is_no_more(self, place, deferred, monkeypatch, capsys):
        said = self.complete(place, deferred, monkeypatch, capsys, max_tries=1)
        assert "No more output of job" in said
        assert "exit code 1" in said
        assert "left out" in said
        assert jobs(place) == []

    def test_airflow_that_does_not_answer_is_asked_again_by_the_retry(
        self, place, deferred, monkeypatch, capsys
    ):
        monkeypatch.setattr("airflow_mlops.hooks.connections.find.is_missing", lambda _: False)
        said = self.complete(place, deferred, monkeypatch, capsys, max_tries=1)
        assert "Airflow does not say" in said
        assert jobs(place) == [deferred.kwargs["job"]]
        said = self.complete(place, deferred, monkeypatch, capsys, try_number=2, max_tries=1)
        assert "exit code 1" in said
        assert jobs(place) == []

    def test_a_worker_that_waits_prints_nothing(self, place, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_READER", '{"conn_type": "http", "password": "hunter22"}')
        place |= {"secrets": {"warehouse": "reader"}}
        operator = TinyOperator(
            do="secret", parameters={"seconds": "0", "code": "0"}, deferrable=False, **place
        )
        lines, submit = lines_of(operator, monkeypatch), ProcessRunner.submit

        def submitted(runner, job):
            state = submit(runner, job)
            monkeypatch.delenv("AIRFLOW_CONN_READER")
            return state

        monkeypatch.setattr(ProcessRunner, "submit", submitted)
        operator.execute(context())
        assert "hunter22" not in str(lines)
        assert "tiny train begins" not in lines
