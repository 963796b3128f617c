"""A job that ended before its time: what the next try goes on from, and where its log goes on."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
    TaskDeferred,
)

from airflow_mlops.runners import get_runner
from tests.fixtures.jobs import eventually
from tests.fixtures.tasks import context
from tests.fixtures.tiny_operator import (
    Killed,
    StateStore,
    TinyOperator,
    end_jobs,
    jobs,
    lines_of,
    process_place,
    runner_of,
)


@pytest.fixture
def place(tmp_path):
    place = process_place(tmp_path)
    yield place
    end_jobs(place)


def trainer(place, *, code=0, **arguments):
    """Ends with the code after a checkpoint, or hangs; a later try goes on."""
    arguments = {"deferrable": False, "retries": 2, **arguments}
    return TinyOperator(do="resume", parameters={"code": str(code)}, **arguments, **place)


def attempt(number, **arguments):
    return context(try_number=number, max_tries=2, **arguments)


def checkpoints(place):
    return [path.name for path in Path(place["store"]).rglob("*") if path.is_file()]


class TestCheckpoint:
    @pytest.mark.parametrize(("code", "words"), [(75, "tried again"), (143, "stopped"), (137, "killed")])
    def test_the_next_try_goes_on_from_it(self, place, monkeypatch, code, words):
        with pytest.raises(AirflowException, match=words):
            trainer(place, code=code).execute(attempt(1))
        assert jobs(place) == []
        assert sorted(checkpoints(place)) == ["00000", "00001.json"]

        operator = trainer(place, code=code)
        lines = lines_of(operator, monkeypatch)
        assert "metrics.json" in operator.execute(attempt(2))
        assert "tiny goes on from step 7" in lines
        assert checkpoints(place) == []

    def test_a_clear_begins_from_nothing(self, place, monkeypatch):
        with pytest.raises(AirflowException):
            trainer(place, code=75).execute(attempt(1))
        operator = trainer(place, code=75)
        lines = lines_of(operator, monkeypatch)
        with pytest.raises(AirflowException):
            operator.execute(context(try_number=2, max_tries=3))
        assert "tiny is at step 7" in lines

    def test_the_last_try_and_a_final_failure_leave_none(self, place):
        with pytest.raises(AirflowException):
            trainer(place, code=75).execute(attempt(1))
        operator = TinyOperator(do="exit", parameters={"code": "11"}, retries=2, deferrable=False, **place)
        with pytest.raises(AirflowFailException, match="cannot use its data"):
            operator.execute(attempt(2))
        assert checkpoints(place) == []
        with pytest.raises(AirflowException):
            trainer(place, code=75).execute(attempt(3))
        assert checkpoints(place) == []

    def test_another_failure_makes_none_and_keeps_the_older_one(self, place):
        with pytest.raises(AirflowException):
            trainer(place, code=1).execute(attempt(1))
        assert checkpoints(place) == []
        with pytest.raises(AirflowException):
            trainer(place, code=75).execute(attempt(2))
        kept = checkpoints(place)
        operator = TinyOperator(do="exit", parameters={"code": "1"}, retries=3, deferrable=False, **place)
        with pytest.raises(AirflowException, match="exit code 1"):
            operator.execute(context(try_number=3, max_tries=3))
        assert checkpoints(place) == kept

    def test_one_that_is_refused_is_lost_with_a_word(self, place, monkeypatch):
        place["code"] = {"entrypoint": ["sh", "-c", 'ln -s /etc/passwd "$MLOPS_ROOT/checkpoints/x"; exit 75']}
        operator = trainer(place)
        lines = lines_of(operator, monkeypatch)
        with pytest.raises(AirflowException, match="tried again"):
            operator.execute(attempt(1))
        assert [line for line in lines if "is lost" in line and "link" in line]
        assert checkpoints(place) == []
        assert jobs(place) == []


class TestStopped:
    def test_a_job_that_says_nothing_is_stopped_and_goes_on_later(self, place, monkeypatch):
        with pytest.raises(AirflowException, match=r"printed nothing for 1 s.*training\.stall_timeout"):
            trainer(place, stall_timeout=0.8).execute(attempt(1))
        operator = trainer(place, stall_timeout=60)
        lines = lines_of(operator, monkeypatch)
        operator.execute(attempt(2))
        assert "tiny goes on from step 7" in lines

    def test_a_job_that_speaks_is_not(self, place):
        arguments = {"do": "chatter", "parameters": {"lines": "6", "pause": "0.3"}, "deferrable": False}
        TinyOperator(stall_timeout=1, **arguments, **place).execute(attempt(1))

    def test_its_own_time_is_over(self, place):
        with pytest.raises(AirflowException, match=r"longer than 1 s.*training\.timeout"):
            trainer(place, job_timeout=0.8).execute(attempt(1))
        assert len(checkpoints(place)) == 2
        assert jobs(place) == []

    @pytest.mark.parametrize(
        "limit",
        [{"job_timeout": 1.5}, {"stall_timeout": 1.5}, {"execution_timeout": timedelta(seconds=1.5)}],
    )
    def test_its_last_words_are_heard(self, place, monkeypatch, limit):
        script = "trap 'echo last words; exit 143' TERM; echo first words; while :; do sleep 0.1; done"
        place["code"] = {"entrypoint": ["sh", "-c", script]}
        operator = trainer(place, **limit)
        lines = lines_of(operator, monkeypatch)
        rest = []
        log = SimpleNamespace(info=lambda line, *values, **_: rest.append(line % values))
        monkeypatch.setattr("airflow_mlops.jobs.log.trigger_log", lambda: log)
        with pytest.raises((AirflowException, AirflowTaskTimeout)):
            operator.execute(attempt(1))
        assert lines.count("first words") == 1
        assert rest[-1:] == ["last words"]
        assert "first words" not in rest
        assert jobs(place) == []

    def test_the_tasks_time_is_over(self, place):
        operator = trainer(place, deferrable=True)
        with pytest.raises(TaskDeferred):
            operator.execute(attempt(1))
        (name,) = jobs(place)
        eventually(lambda: "step 7" in str(runner_of(place).logs(name)))
        with pytest.raises(TaskDeferralTimeout):
            trainer(place).resume_execution("__fail__", {"error": "Trigger timeout"}, attempt(1))
        assert jobs(place) == []
        assert len(checkpoints(place)) == 2

    def test_a_lost_trigger_costs_a_try_and_not_the_job(self, place):
        with pytest.raises(TaskDeferred):
            trainer(place, deferrable=True).execute(attempt(1))
        (name,) = jobs(place)
        lost = ("__fail__", {"error": "Trigger failed to inflate"})
        with pytest.raises(TaskDeferralError):
            trainer(place).resume_execution(*lost, attempt(1))
        assert runner_of(place).inspect(name).status == "running"
        with pytest.raises(TaskDeferralError):
            trainer(place).resume_execution(*lost, attempt(3))
        assert jobs(place) == []

    def test_by_hand_it_leaves_nothing(self, place, monkeypatch):
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "in-process")
        operator = trainer(place, deferrable=True)
        with pytest.raises(TaskDeferred):
            operator.execute(attempt(1))
        operator.on_kill()
        assert jobs(place) == []
        assert checkpoints(place) == []


class TestLog:
    def test_a_retry_goes_on_where_the_killed_try_ended(self, place, monkeypatch):
        memory = StateStore()

        def chatter():
            parameters = {"lines": "12", "pause": "0.3"}
            return TinyOperator(do="chatter", parameters=parameters, deferrable=False, retries=2, **place)

        first = chatter()
        before = lines_of(first, monkeypatch, stop_at="line 8")
        with pytest.raises(Killed):
            first.execute({**attempt(1), "task_state_store": memory})
        second = chatter()
        after = lines_of(second, monkeypatch)
        second.execute({**attempt(2), "task_state_store": memory})

        numbers = [int(line.split()[1]) for line in before + after if line.startswith("line ")]
        assert sorted(set(numbers)) == list(range(1, 13))
        # Saved every second: what came since may come twice.
        assert len(numbers) <= 12 + 5
        assert json.loads(json.dumps(memory))

    def test_a_job_that_was_started_anew_has_a_log_of_its_own(self, place, monkeypatch):
        memory = StateStore()
        with pytest.raises(AirflowException):
            trainer(place, code=75).execute({**attempt(1), "task_state_store": memory})
        operator = trainer(place, code=75)
        lines = lines_of(operator, monkeypatch)
        operator.execute({**attempt(2), "task_state_store": memory})
        assert "tiny train begins" in lines

    def test_what_cannot_be_remembered_is_printed_again(self, place, monkeypatch):
        class Broken:
            def get(self, key):
                raise RuntimeError("no API")

            set = get

        operator = trainer(place, code=75)
        with pytest.raises(AirflowException, match="tried again"):
            operator.execute({**attempt(1), "task_state_store": Broken()})

    def test_an_end_that_was_reported_too_early_is_waited_for_again(self, place):
        operator = trainer(place, deferrable=True)
        with pytest.raises(TaskDeferred) as first:
            operator.execute(attempt(1))
        kwargs = {**first.value.kwargs, "event": {"status": "exited", "position": {"cursor": "5"}}}
        with pytest.raises(TaskDeferred) as second:
            operator.resume_execution(first.value.method_name, kwargs, attempt(1))
        assert second.value.trigger.serialize()[1]["position"] == {"cursor": "5"}
        assert runner_of(place).inspect(first.value.kwargs["job"]).status == "running"


@pytest.mark.docker
@pytest.mark.usefixtures("no_leftovers")
def test_a_container_that_somebody_stops(docker_engine, tiny_image, place, monkeypatch):
    place |= {"code": {"image": tiny_image}, "runner": {"kind": "docker", "docker_conn_id": ""}}
    first = trainer(place, deferrable=True)
    name = first.job_name(attempt(1))
    try:
        with pytest.raises(TaskDeferred) as deferred:
            first.execute(attempt(1))
        eventually(lambda: "step 7" in docker_engine("logs", name))
        docker_engine("stop", "--time", "4", name)
        kwargs = {**deferred.value.kwargs, "event": {"status": "exited"}}
        with pytest.raises(AirflowException, match="stopped from outside"):
            first.resume_execution(deferred.value.method_name, kwargs, attempt(1))
        assert docker_engine.containers(name) == []

        second = trainer(place)
        lines = lines_of(second, monkeypatch)
        assert "metrics.json" in second.execute(attempt(2))
        assert "tiny goes on from step 7" in lines
        assert checkpoints(place) == []
    finally:
        get_runner("docker", docker_conn_id="").cleanup(name)
