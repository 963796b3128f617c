"""The life of a job, whoever dies or edits the YAML in the middle of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    TaskDeferralTimeout,
    TaskDeferred,
)

from airflow_mlops.operators.evaluation.evaluate import EvaluateChampionOperator
from tests.fixtures.jobs import eventually
from tests.fixtures.tasks import context
from tests.fixtures.tiny_operator import TinyOperator, end_jobs, jobs, process_place, runner_of

SLOW = 'sleep 0.5; echo \'[{"name": "auc", "value": 0.7}]\' >"$MLOPS_ROOT/output/metrics.json"'


@pytest.fixture
def place(tmp_path):
    """Where the jobs are; what a test leaves running is ended."""
    place = process_place(tmp_path)
    yield place
    end_jobs(place)


def deferral(operator, ctx):
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(ctx)
    return caught.value


def resume(operator, deferred, ctx, event=None):
    """What a worker does when the trigger has fired."""
    event = event or {"status": "exited"}
    return operator.resume_execution(deferred.method_name, {**deferred.kwargs, "event": event}, ctx)


class TestName:
    def test_a_retry_has_the_same_a_clear_another_one(self, place):
        operator = TinyOperator(retries=2, **place)
        first = operator.job_name(context(max_tries=2))
        assert first.startswith("mlops-tiny-train-")
        assert operator.job_name(context(try_number=2, max_tries=2)) == first
        assert operator.job_name(context(try_number=2, max_tries=3)) != first

    def test_two_airflows_on_one_engine_do_not_take_each_others_job(self, place):
        """Scheduled runs have equal ids everywhere; the store tells staging from production."""
        staging = TinyOperator(**{**place, "store": "/staging"})
        assert staging.job_name(context()) != TinyOperator(**place).job_name(context())

    def test_it_fits_every_engine(self, place):
        operator = TinyOperator(**place)
        operator.application = "a" * 63
        name = operator.job_name(context("group." + "t" * 240))
        assert len(name) < 200
        assert runner_of(place).inspect(name).status == "gone"


class TestTakeOver:
    def test_a_finished_job_leaves_nothing_behind(self, place):
        assert "metrics.json" in TinyOperator(deferrable=False, **place).execute(context())
        assert jobs(place) == []

    def test_output_that_is_refused_leaves_nothing_behind(self, place):
        operator = TinyOperator(do="link", deferrable=False, **place)
        with pytest.raises(AirflowFailException, match="secrets"):
            operator.execute(context())
        assert jobs(place) == []

    def test_mlflow_away_keeps_the_job_for_the_retry_and_not_longer(self, place):
        operator = TinyOperator(away=1, deferrable=False, retries=1, **place)
        with pytest.raises(AirflowException, match="nobody is there"):
            operator.execute(context(max_tries=1))
        assert jobs(place) == [operator.job_name(context(max_tries=1))]
        assert operator.execute(context(try_number=2, max_tries=1))
        assert jobs(place) == []

        operator.away = 1
        with pytest.raises(AirflowException, match="nobody is there"):
            operator.execute(context(try_number=2, max_tries=1))
        assert jobs(place) == []


class TestDeferral:
    def test_another_process_completes_it_though_the_yaml_was_edited(self, place):
        deferred = deferral(TinyOperator(do="nap", retries=2, **place), context(max_tries=2))
        (name,) = jobs(place)
        runner_of(place).stop(name)
        # The worker parses the file anew, and training.retries is another number in it.
        with pytest.raises(AirflowException, match="stopped"):
            resume(TinyOperator(do="nap", retries=0, **place), deferred, context(max_tries=2))
        assert jobs(place) == []

    def test_what_the_trigger_gets_is_json_without_secrets(self, place):
        deferred = deferral(TinyOperator(do="nap", job_timeout=60, **place), context())
        _, arguments = deferred.trigger.serialize()
        assert not {"inputs", "config"} & set(arguments)
        assert json.loads(json.dumps(arguments)) == arguments
        assert deferred.kwargs == {"job": arguments["name"], "carried": {"node": ""}}

    def test_the_jobs_own_time_is_over(self, place):
        operator = TinyOperator(do="nap", job_timeout=60, **place)
        deferred = deferral(operator, context())
        with pytest.raises(AirflowException, match=r"longer than 60 s.*training\.timeout"):
            resume(operator, deferred, context(), {"status": "timeout"})
        assert jobs(place) == []

    def test_the_tasks_execution_timeout_stops_the_job_too(self, place):
        deferral(TinyOperator(do="nap", **place), context())
        assert jobs(place)
        another = TinyOperator(do="nap", **place)
        with pytest.raises(TaskDeferralTimeout):
            another.resume_execution("__fail__", {"error": "Trigger timeout"}, context())
        assert jobs(place) == []

    def test_a_task_ended_by_hand_takes_its_job_along(self, place, monkeypatch):
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "in-process")
        operator = TinyOperator(do="nap", **place)
        operator.on_kill()  # before there is a job
        deferral(operator, context())
        assert jobs(place)
        operator.on_kill()
        assert jobs(place) == []


def test_broken_assumptions_of_the_model_code_are_in_the_error_and_in_a_report(place):
    found = [
        {"column": "age", "expected": "≥ 0", "observed": f"-{n}", "examples": [{"id": n}]} for n in range(12)
    ]
    script = f"printf '%s' '{json.dumps(found)}' >\"$MLOPS_ROOT/output/assumptions.json\"; exit 12"
    place["code"] = {"entrypoint": ["sh", "-c", script]}
    with pytest.raises(AirflowFailException, match="assumption that it makes") as caught:
        TinyOperator(deferrable=False, **place).execute(context())
    said = str(caught.value)
    assert "age: expected ≥ 0, observed -0 e.g. {'id': 0}" in said
    assert said.count("age:") == 10
    assert "and 2 more" in said
    report = json.loads(Path(said.rpartition("Full report: ")[2]).read_text())
    assert (report["command"], len(report["findings"])) == ("train", 12)


class Champion(EvaluateChampionOperator):
    """Needs no dataset."""

    def inputs(self, context, scratch):
        return {}

    def config(self, context):
        return {}


@pytest.mark.parametrize(
    ("code", "last_try", "verdict"),
    [(11, False, True), (1, True, True), (1, False, False), (75, True, False)],
)
def test_a_champion_that_fails_of_itself_is_a_result(place, monkeypatch, code, last_try, verdict):
    """Its data are new to it, or it crashes each time; what may pass by itself stays a failure of the task."""
    hook = SimpleNamespace(champion=lambda _: SimpleNamespace(version="1", run_id="run1", tags={}))
    monkeypatch.setattr(Champion, "_mlflow", lambda _: hook)
    place["code"] = {
        "entrypoint": ["sh", "-c", f'sleep 0.5; echo new to me >"$MLOPS_ROOT/output/failure"; exit {code}']
    }

    def operator():
        return Champion(task_id="evaluate_champion", application="tiny", model="m", dataset={}, **place)

    run = context("evaluate_champion", try_number=2 if last_try else 1, max_tries=1)
    deferred = deferral(operator(), run)
    eventually(lambda: runner_of(place).inspect(deferred.kwargs["job"]).status == "exited")
    if verdict:
        result = resume(operator(), deferred, run)
        assert (result["version"], result["metrics"]) == ("1", [])
        assert "new to me" in result["failure"]
    else:
        with pytest.raises(AirflowException, match="new to me"):
            resume(operator(), deferred, run)
    assert jobs(place) == []


def test_the_metrics_belong_to_the_champion_that_was_evaluated(place, monkeypatch):
    """Somebody moves the alias while the old champion is evaluated."""
    registry = {"champion": SimpleNamespace(version="1", run_id="run1", tags={})}
    hook = SimpleNamespace(champion=lambda _: registry["champion"])
    monkeypatch.setattr(Champion, "_mlflow", lambda _: hook)
    place["code"] = {"entrypoint": ["sh", "-c", SLOW]}

    def operator():
        return Champion(task_id="evaluate_champion", application="tiny", model="m", dataset={}, **place)

    deferred = deferral(operator(), context("evaluate_champion"))
    eventually(lambda: runner_of(place).inspect(deferred.kwargs["job"]).status == "exited")
    registry["champion"] = None
    result = resume(operator(), deferred, context("evaluate_champion"))
    assert (result["run_id"], result["version"]) == ("run1", "1")
    assert result["metrics"] == [{"name": "auc", "value": 0.7}]
    assert jobs(place) == []
