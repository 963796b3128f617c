"""What a tuning leaves in MLflow, with a real server: where it comes from, and no open run."""

from __future__ import annotations

import time

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_mlops.hooks.mlflow.trials import MLflowTrialsHook
from airflow_mlops.hooks.store.base import json_bytes
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.training.runs import CloseRunsOperator
from airflow_mlops.operators.training.tune import TuneModelOperator
from airflow_mlops.primitives.training.search_space import Dimension
from airflow_mlops.primitives.training.tuning import Plan, Trial, Tuning
from tests.fixtures.tasks import context
from tests.fixtures.tiny_operator import Killed

OBJECTIVE = "validation.f1@10"
COMMIT, DIGEST = "0123456789abcdef", "sha256:" + "a" * 64


@pytest.fixture
def mlflow(mlflow_server, monkeypatch):
    for key, value in mlflow_server.environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/")
    return MLflowTrialsHook()


@pytest.fixture
def tuned(tmp_path, mlflow):
    """A task that wakes when its three trials are over; the last one was pruned."""

    def wake(run_id, **fixed):
        task = TuneModelOperator(
            task_id="tune",
            application="tuned",
            store=str(tmp_path),
            code={"image": f"tuned@{DIGEST}"},
            runner={"kind": "docker"},
            dataset={"dataset_id": "d" * 64},
            description={
                "description": {
                    "name": "tuned",
                    "version": "1.2",
                    "parameters": {"additionalProperties": True},
                },
                "image": "tuned:1",
                "image_digest": DIGEST,
            },
            tuning={},
            experiment="record",
        )
        name = task.job_name(context("tune", run_id=run_id))
        plan = Plan((OBJECTIVE,), ("maximize",), {"x": Dimension("float", 0.0, 1.0)}, fixed=fixed, seed=3)
        labels = {"org.opencontainers.image.revision": COMMIT}
        tuning = Tuning(
            name, plan, {}, {}, time.time(), image={"image_digest": DIGEST, "image_labels": labels}
        )
        for number, value in enumerate((0.5, 0.7, None)):
            trial = Trial(
                number, {"x": number / 10}, f"{name}-t{number}", time.time(), steps={0: 0.1, 1: 0.2}
            )
            tuning.trials.append(trial)
            trial.values, trial.figures = ([value], {OBJECTIVE: value}) if value else ([], {})
            tuning.end(trial, "complete" if value else "pruned", at=time.time())
        tuning.status, tuning.reason = "done", "all 3 trials are done"
        open_store(str(tmp_path)).put_if_absent(task._key(name), json_bytes(tuning.to_dict()))

        def complete(**tries):
            done = task.complete(context("tune", run_id=run_id, **tries), {}, name, {})
            return done["tuning"]["run_id"], task.run_url

        return complete, lambda: mlflow.find_run("record", name)

    return wake


def trials_of(mlflow, parent):
    return sorted(mlflow._trials_of(parent), key=lambda run: run.params.get("x", ""))


def test_runs_say_where_they_come_from(tuned, mlflow):
    complete, _ = tuned("whole")
    run_id, url = complete()
    parent = mlflow.run(run_id)
    trials = trials_of(mlflow, parent)
    assert url == mlflow.run_url(parent)
    assert parent.status == "FINISHED"
    assert [run.status for run in trials] == ["FINISHED", "FINISHED", "KILLED"]
    page = "https://airflow.example.org/dags/tiny__training/runs/whole/tasks/tune?try_number=1"
    for run in (parent, *trials):
        assert (
            run.tags.items()
            >= {
                "airflow_mlops.application": "tuned",
                "airflow_mlops.dataset_id": "d" * 64,
                "airflow_mlops.dag_id": "tiny__training",
                "airflow_mlops.run_id": "whole",
                "airflow_mlops.task_id": "tune",
                "airflow_mlops.airflow_url": page,
                "airflow_mlops.image": "tuned:1",
                "airflow_mlops.image_digest": DIGEST,
                "airflow_mlops.git_commit": COMMIT,
                "airflow_mlops.code": "tuned 1.2",
                "airflow_mlops.seed": "3",
                "mlflow.source.git.commit": COMMIT,
            }.items()
        )
    # MLflow takes no @ in a name.
    curve = mlflow.metric_history(trials[1].run_id, "validation.f1_10")
    assert [(point["step"], point["value"]) for point in curve] == [(0, 0.1), (1, 0.2), (2, 0.7)]
    assert [point["value"] for point in mlflow.metric_history(run_id, "validation.f1_10")] == [0.7]


def test_what_mlflow_refuses_leaves_no_open_run(tuned, mlflow, monkeypatch):
    monkeypatch.setattr(
        "airflow_mlops.hooks.mlflow.trials.to_parameters",
        lambda given: [{"key": name, "value": str(value)} for name, value in given.items()],
    )
    complete, find = tuned("refused", **{"no@name": 1})
    with pytest.raises(AirflowFailException, match="Logging trial"):
        complete(try_number=1, max_tries=5)
    parent = find()
    assert parent.status == "FAILED"
    assert "Logging trial" in parent.tags["airflow_mlops.reason"]
    found = trials_of(mlflow, parent)
    assert {run.status for run in found} == {"FAILED"}


@pytest.fixture
def killed(tuned, monkeypatch):
    """A tuning whose worker is killed while it logs the trials."""

    def begin(run_id):
        complete, find = tuned(run_id)

        def die(*_):
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(MLflowTrialsHook, "_metrics", die)
            with pytest.raises(Killed):
                complete()
        return complete, find

    return begin


def test_a_retry_finishes_what_a_killed_worker_left_open(killed, mlflow):
    complete, find = killed("killed")
    before = find()
    assert {run.status for run in (before, *trials_of(mlflow, before))} == {"RUNNING"}
    run_id, _ = complete(try_number=2, max_tries=2)
    assert run_id == before.run_id
    assert mlflow.run(run_id).status == "FINISHED"
    assert [run.status for run in trials_of(mlflow, before)] == ["FINISHED", "FINISHED", "KILLED"]


def test_an_error_that_may_pass_leaves_the_trials_to_the_retry(tuned, mlflow, monkeypatch):
    complete, find = tuned("passes")

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("airflow_mlops.operators.training.tuning_record._write_report", full)
        with pytest.raises((AirflowException, OSError), match="No space"):
            complete(try_number=1, max_tries=1)
    assert find().status == "FAILED"
    run_id, _ = complete(try_number=2, max_tries=1)
    parent = mlflow.run(run_id)
    assert parent.status == "FINISHED"
    assert "airflow_mlops.reason" not in parent.tags


def test_the_maintenance_closes_them_when_the_task_is_over(killed, mlflow):
    _, find = killed("over")
    given = context("close")
    given["ti"].get_task_states = lambda dag_id, task_ids, run_ids: {
        run: {"tune": "failed" if run == "over" else "running"} for run in run_ids
    }
    CloseRunsOperator(task_id="close", application="tuned", min_age=0).execute(given)
    parent = find()
    runs = [parent, *trials_of(mlflow, parent)]
    assert len(runs) > 1
    assert {run.status for run in runs} == {"FAILED"}
