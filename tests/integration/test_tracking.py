"""The MLflow run of a training while it runs and after its end, on real processes and a real MLflow server."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from airflow_mlops.hooks.mlflow.hook import MLflowHook
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.training.runs import CloseRunsOperator
from airflow_mlops.operators.training.train import DescribeModelCodeOperator, TrainModelOperator
from airflow_mlops.triggers.job import JobTrigger
from tests.fixtures.jobs import TINY, eventually
from tests.fixtures.tasks import EXAMPLES, context, write_examples
from tests.fixtures.tiny_operator import lines_of

CODE = {"entrypoint": ["sh", "entry.sh"], "directory": str(TINY)}


@pytest.fixture
def mlflow(mlflow_server, monkeypatch):
    for key, value in mlflow_server.environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/")
    return MLflowHook()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A dataset version, and where its store is."""
    folder = tmp_path_factory.mktemp("tracking")
    write_examples(folder / "data" / "examples.parquet")
    dataset = ProvisionDatasetOperator(
        task_id="provision",
        application="tiny",
        store=str(folder / "store"),
        examples={**EXAMPLES, "parquet": "*.parquet", "folder": str(folder / "data")},
        split={"by": "time", "train": 0.6, "validation": 0.2, "test": 0.2, "gap": "0s"},
    ).execute(context("provision"))
    return folder, dataset


@pytest.fixture
def task(home, tmp_path, mlflow):
    """Make the training task of a run."""
    folder, dataset = home

    def make(parameters, **kwargs):
        arguments = {
            "application": "tiny",
            "store": str(folder / "store"),
            "code": CODE,
            "runner": {"kind": "process", "root": str(tmp_path / "jobs")},
        }
        description = DescribeModelCodeOperator(
            task_id="describe", parameters=parameters, deferrable=False, **arguments
        ).execute(context("describe"))
        return TrainModelOperator(
            task_id="train",
            dataset=dataset,
            description=description,
            reasons=[{"kind": "on_demand", "evidence": {"why": "the weather moved"}}],
            experiment="tracking",
            **{**arguments, **kwargs},
        )

    return make


def deferred(task, **kwargs):
    """The trigger as the triggerer gets it, and how to go on afterwards."""
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context(**kwargs))
    path, arguments = json.loads(json.dumps(caught.value.trigger.serialize()))
    assert path.endswith("JobTrigger")
    event = {"status": "exited"}
    return arguments, lambda: task.complete(context(**kwargs), event, **caught.value.kwargs)


def watched(arguments, monkeypatch):
    """Let a trigger wait for the job in a thread of its own; gives the lines that it prints, as they come."""
    trigger = JobTrigger(**arguments)
    lines = lines_of(trigger, monkeypatch)

    async def first():
        return await anext(trigger.run())

    thread = threading.Thread(target=lambda: asyncio.run(first()))
    thread.start()
    return thread, lines


def history(mlflow, run_id, key):
    return sorted((p["step"], p["value"]) for p in mlflow.metric_history(run_id, key))


def test_a_run_lives_with_its_job(task, mlflow, home, monkeypatch, tmp_path):
    monkeypatch.setattr("airflow_mlops.hooks.mlflow.progress.FLUSH_EVERY", 0.2)
    train = task({"do": "live", "seconds": 4})
    arguments, complete = deferred(train, run_id="lives")
    run_id = arguments["progress"]["run_id"]

    run = mlflow.run(run_id)
    assert run.status == "RUNNING"
    assert run.params == {"do": "live", "seconds": "4", "code": "0", "seed": "0"}
    page = "https://airflow.example.org/dags/tiny__training/runs/lives/tasks/train?try_number=1"
    expected = {
        "airflow_mlops.application": "tiny",
        "airflow_mlops.dataset_id": home[1]["dataset_id"],
        "airflow_mlops.dag_id": "tiny__training",
        "airflow_mlops.run_id": "lives",
        "airflow_mlops.task_id": "train",
        "airflow_mlops.try": "1",
        "airflow_mlops.airflow_url": page,
        "mlflow.source.name": page,
    }
    assert {key: run.tags.get(key) for key in expected} == expected
    assert page in run.tags["mlflow.note.content"]
    assert len(run.tags["airflow_mlops.git_commit"].removesuffix("-dirty")) == 40
    assert run.datasets == {home[1]["dataset_id"]}

    thread, lines = watched(arguments, monkeypatch)
    eventually(lambda: history(mlflow, run_id, "loss"))
    assert thread.is_alive()
    assert mlflow.run(run_id).status == "RUNNING"
    thread.join()
    points = [(step, float(f"0.{step}")) for step in range(1, 41)]
    assert history(mlflow, run_id, "loss") == points
    assert history(mlflow, run_id, "system/cpu_utilization_percentage") == [(0, 50.0)]
    assert any('"step": 40' in line for line in lines)
    assert not any("system/" in line for line in lines)

    result = complete()
    assert result["run_id"] == run_id
    assert mlflow.run(run_id).status == "FINISHED"
    assert history(mlflow, run_id, "loss") == points
    link = train.operator_extra_links[0].get_link(train, ti_key=None)
    assert link == mlflow.run_url(mlflow.run(run_id))
    assert link.endswith(f"/runs/{run_id}")


def test_what_the_record_and_the_model_hold(task, mlflow, home, tmp_path):
    from mlflow.models import Model

    run_id = task({}, deferrable=False).execute(context(run_id="holds"))["run_id"]
    record = mlflow.read_json(run_id, "lineage.json")
    assert record["code"]["entrypoint"] == CODE["entrypoint"]
    assert record["code"]["name"] == "tiny"
    assert record["config"]["parameters"] == {"do": "learn", "code": 0, "seconds": 0}
    assert record["config"]["columns"]["features"] == ["prediction"]
    assert record["data"]["dataset_id"] == home[1]["dataset_id"]
    assert record["data"]["splits"] == {"train": 120, "validation": 40, "test": 40}
    assert set(record["model"]["files"]) == {"MLmodel", "weights"}
    assert record["run"]["run_id"] == run_id
    assert record["reasons"]
    assert [m["name"] for m in mlflow.read_json(run_id, "training/metrics.json")] == ["auc", "brier"]

    model = Model.load(str(mlflow.download(run_id, "model", tmp_path)))
    assert [(c.name, c.type.name, c.required) for c in model.signature.inputs] == [
        ("prediction", "double", False)
    ]
    example = model.load_input_example(str(tmp_path / "model"))
    assert example["prediction"].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_a_job_that_fails_closes_its_run_and_a_retry_finishes_it(task, mlflow):
    train = task({"do": "resume", "code": 75}, deferrable=False)
    with pytest.raises(AirflowException):
        train.execute(context(run_id="fails", max_tries=1))
    run = mlflow.find_run("tracking", train.job_name(context(run_id="fails", max_tries=1)))
    assert run.status == "FAILED"
    assert "exit code 75" in run.tags["airflow_mlops.reason"]

    again = train.execute(context(run_id="fails", try_number=2, max_tries=1))
    assert again["run_id"] == run.run_id
    finished = mlflow.run(run.run_id)
    assert finished.status == "FINISHED"
    assert finished.tags["airflow_mlops.try"] == "2"
    assert "airflow_mlops.reason" not in finished.tags


def test_a_model_that_breaks_the_contract_closes_its_run(task, mlflow, monkeypatch):
    train = task({}, deferrable=False)
    monkeypatch.setattr("airflow_mlops.operators.training.train.read_metrics", lambda *_: 1 / 0)
    with pytest.raises(AirflowFailException, match="ZeroDivisionError"):
        train.execute(context(run_id="breaks"))
    run = mlflow.find_run("tracking", train.job_name(context(run_id="breaks")))
    assert run.status == "FAILED"
    assert "division by zero" in run.tags["airflow_mlops.reason"]


def test_who_ends_a_task_by_hand_closes_its_run(task, mlflow, monkeypatch):
    deferred_task = task({"do": "sleep", "seconds": 600})
    arguments, _ = deferred(deferred_task, run_id="by hand")
    run_id = arguments["progress"]["run_id"]
    asyncio.run(JobTrigger(**arguments).on_kill())
    assert (mlflow.run(run_id).status, mlflow.run(run_id).tags["airflow_mlops.reason"]) == (
        "KILLED",
        "The task was ended by hand.",
    )

    on_worker = task({"do": "sleep", "seconds": 600})
    arguments, _ = deferred(on_worker, run_id="on worker")
    run_id = arguments["progress"]["run_id"]
    with monkeypatch.context() as outage:
        outage.setattr("airflow_mlops.operators.model_code.airflow_answers", lambda: False)
        on_worker.on_kill()
        assert mlflow.run(run_id).status == "RUNNING"
    monkeypatch.setattr("airflow_mlops.operators.model_code.airflow_answers", lambda: True)
    on_worker.on_kill()
    assert mlflow.run(run_id).status == "KILLED"


def test_what_no_worker_could_close_the_maintenance_closes(task, mlflow, home):
    def open_run(name):
        arguments, _ = deferred(task({"do": "sleep", "seconds": 600}), run_id=name)
        return arguments

    opened = {name: open_run(name) for name in ("failed", "deferred", "cleared", "forgotten")}
    states = {"failed": {"train": "failed"}, "deferred": {"train": "deferred"}, "cleared": {"train": None}}
    maintenance = context("close")
    maintenance["ti"].get_task_states = lambda dag_id, task_ids, run_ids: {
        name: states[name] for name in run_ids if name in states
    }
    mine = {name: arguments["progress"]["run_id"] for name, arguments in opened.items()}

    young = CloseRunsOperator(task_id="close", application="tiny").execute(maintenance)
    assert not set(young["closed"]) & set(mine.values())
    closed = CloseRunsOperator(task_id="close", application="tiny", min_age=0).execute(maintenance)["closed"]
    assert set(closed) & set(mine.values()) == {mine["failed"], mine["forgotten"]}
    assert mlflow.run(mine["failed"]).status == "FAILED"
    assert "its worker was killed" in mlflow.run(mine["failed"]).tags["airflow_mlops.reason"]
    assert {mlflow.run(mine[name]).status for name in ("deferred", "cleared")} == {"RUNNING"}
    # A prune that runs meanwhile leaves the dataset of an open training alone.
    used = mlflow.datasets_in_use()[home[1]["dataset_id"]]
    assert f"open run {mine['deferred']}" in used
    assert f"open run {mine['failed']}" not in used
    for arguments in opened.values():
        asyncio.run(JobTrigger(**arguments).on_kill())


def test_mlflow_away_costs_no_training(task, mlflow, mlflow_server, monkeypatch):
    """Nobody answers at the start and while it runs; at the end there is the run, with everything in it."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", "http://127.0.0.1:9")
    train = task({"do": "live", "seconds": 1})
    arguments, complete = deferred(train, run_id="away")
    assert arguments["progress"] is None
    watched(arguments, monkeypatch)[0].join()
    for key, value in mlflow_server.environment.items():
        monkeypatch.setenv(key, value)
    run = mlflow.run(complete()["run_id"])
    assert run.status == "FINISHED"
    assert run.params["do"] == "live"


def test_a_server_that_goes_away_while_it_runs_gets_the_points_later(mlflow, monkeypatch):
    from airflow_mlops.hooks.mlflow.progress import MetricSink

    monkeypatch.setattr("airflow_mlops.hooks.mlflow.progress.FLUSH_EVERY", 0.05)
    run_id = mlflow.find_or_create_run("tracking", f"away-{time.time_ns()}")
    right, wrong = mlflow.server, type(mlflow.server)("http://127.0.0.1:9", "mlflow_default")

    async def play():
        async with MetricSink(run_id=run_id, server=wrong) as sink:
            for step in range(2500):
                sink.take(f'::mlops:: {{"metrics": {{"loss": {step}}}, "step": {step}, "time": {step + 1}}}')
            assert not await sink._send()
            sink._server = right
        return sink.lost

    assert asyncio.run(play()) == 0
    assert history(mlflow, run_id, "loss") == [(step, float(step)) for step in range(2500)]
    # What is read a second time, after a crash, counts once.
    assert asyncio.run(play()) == 0
    assert len(mlflow.metric_history(run_id, "loss")) == 2500


def test_a_sink_is_bounded_and_never_fails(mlflow, monkeypatch):
    from airflow_mlops.hooks.mlflow import progress as mlflow_progress
    from airflow_mlops.hooks.mlflow.progress import MetricSink

    monkeypatch.setattr(mlflow_progress, "KEEP", 100)
    monkeypatch.setattr(mlflow_progress, "LAST", 2.0)
    away = type(mlflow.server)("http://127.0.0.1:9", "mlflow_default")

    async def play(sink, lines):
        async with sink:
            for line in lines:
                sink.take(line)
        return sink.lost

    lines = [f'::mlops:: {{"metrics": {{"m{n}": 1}}, "step": 1e30}}' for n in range(1500)]
    sink = MetricSink(run_id="0" * 32, server=away)
    assert asyncio.run(play(sink, lines)) == mlflow_progress.NAMES
    assert len(sink._waiting) == 100
    # A run that is not there any more takes nothing, ever.
    assert asyncio.run(play(MetricSink(run_id="0" * 32, server=mlflow.server), lines[:1])) == 1
    assert asyncio.run(play(MetricSink.of(None), lines)) == 0
