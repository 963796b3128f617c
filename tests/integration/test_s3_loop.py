"""The whole loop with a store that is no folder: provisioned, trained, registered, predicted and watched on S3."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_mlops.hooks.mlflow.hook import MLflowHook
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.datasets.split import SplitDatasetOperator
from airflow_mlops.operators.delivery import PlanBatchOperator, PredictBatchOperator
from airflow_mlops.operators.evaluation.evaluate import EvaluateModelOperator, TestModelOperator
from airflow_mlops.operators.evaluation.gate import GateModelOperator
from airflow_mlops.operators.monitoring.decide import DecideRetrainingOperator
from airflow_mlops.operators.monitoring.performance import MeasurePerformanceOperator
from airflow_mlops.operators.monitoring.profile import ProfileInputsOperator
from airflow_mlops.operators.registration import RegisterModelOperator
from airflow_mlops.operators.training.train import DescribeModelCodeOperator, TrainModelOperator
from airflow_mlops.stores.datasets.damage import find_damage
from airflow_mlops.stores.datasets.versions import DatasetStore
from tests.fixtures.tasks import EXAMPLES, context, write_examples
from tests.fixtures.versions import complete

TINY = Path(__file__).resolve().parents[1] / "fixtures" / "tiny_model"
SPLIT = {"by": "time", "train": 0.6, "validation": 0.2, "test": 0.2, "gap": "0s"}
RULES = {
    "drift": {"min_rows": 50},
    "performance": {"loss": "brier", "min_rows": 50},
    "retraining": {"on": ["drift"]},
}


@pytest.fixture
def mlflow(mlflow_server, monkeypatch):
    for key, value in mlflow_server.environment.items():
        monkeypatch.setenv(key, value)
    return MLflowHook()


@pytest.fixture
def place(s3_bucket, tmp_path, monkeypatch):
    """Where the application is. The working directory shows what would be written beside the store by mistake."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    write_examples(tmp_path / "data" / "1.parquet")
    return {"application": "tiny", "store": f"s3://{s3_bucket}/mlops"}


def provision(place, folder: Path, **arguments):
    examples = {**EXAMPLES, "parquet": "*.parquet", "folder": str(folder / "data")}
    operator = ProvisionDatasetOperator(task_id="provision", examples=examples, **place, **arguments)
    return operator.execute(context("provision"))


def test_all_of_it(place, mlflow, tmp_path):
    store = open_store(place["store"])
    code = {"entrypoint": ["sh", "entry.sh"], "directory": str(TINY)}
    job = {"runner": {"kind": "process", "root": str(tmp_path / "jobs")}, "deferrable": False, **place}

    dataset = provision(place, tmp_path, split=SPLIT)
    assert dataset["created"]
    assert not provision(place, tmp_path, split=SPLIT)["created"]
    assert complete(DatasetStore(store, "tiny")) == {dataset["dataset_id"]}

    described = DescribeModelCodeOperator(
        task_id="describe", code=code, parameters={"seconds": 0}, **job
    ).execute(context("describe"))
    trained = TrainModelOperator(
        task_id="train", code=code, dataset=dataset, description=described, experiment="s3_loop", **job
    ).execute(context("train"))
    run = mlflow.get_conn().get_run(trained["run_id"])
    manifest = f"{place['store']}/tiny/datasets/manifests/{dataset['dataset_id']}.json"
    assert run.inputs.dataset_inputs[0].dataset.source == f'{{"uri": "{manifest}"}}'
    assert run.inputs.dataset_inputs[0].dataset.source_type == "s3"

    evaluated, tested = (
        operator(task_id=operator.command, code=code, dataset=dataset, training=trained, **job).execute(
            context(operator.command)
        )
        for operator in (EvaluateModelOperator, TestModelOperator)
    )
    decision = GateModelOperator(
        task_id="gate",
        application="tiny",
        rules=[{"metric": "auc", "at_least": 0.7}],
        candidate=evaluated,
        tests=tested,
    ).execute(context("gate"))
    RegisterModelOperator(
        task_id="register",
        application="tiny",
        model="s3_loop",
        run_id=trained["run_id"],
        decision=decision,
        lineage=trained["lineage"],
        evaluation=evaluated,
    ).execute(context("register"))
    assert mlflow.datasets_in_use("tiny")[dataset["dataset_id"]] == ["version 1 of model s3_loop"]

    # The next day comes, is predicted, and is watched.
    write_examples(tmp_path / "data" / "2.parquet", start="2026-01-02", first=200)
    planned = PlanBatchOperator(task_id="plan_batch", model="s3_loop", code=code, **place).execute(context())
    batch = provision(place, tmp_path, purpose="prediction", window_start=planned["window_start"])
    assert batch["rows"] == 200
    predicted = PredictBatchOperator(
        task_id="predict", code=code, dataset=batch, training=planned, **job
    ).execute(context("predict"))
    assert (predicted["rows"], predicted["created"]) == (200, True)

    examples = {**EXAMPLES, "parquet": "*.parquet", "folder": str(tmp_path / "data")}
    [profiled] = ProfileInputsOperator(task_id="profile", drift=RULES["drift"], **place).execute({})
    assert profiled["rows"] == 200
    measured = MeasurePerformanceOperator(
        task_id="measure", examples=examples, performance=RULES["performance"], **place
    ).execute({})
    decided = DecideRetrainingOperator(task_id="decide", rules=RULES, **place).execute({})
    assert [window["window_id"] for window in decided["windows"]] == [
        window["window_id"] for window in measured
    ]

    names = {key.split("/")[1] for key in store.list("tiny/")}
    assert names == {"datasets", "monitoring", "predictions"}
    assert datetime.fromisoformat(planned["window_start"]).year == 2026
    # Nothing took the address for a folder.
    assert list((tmp_path / "cwd").iterdir()) == []


def test_runs_at_once_and_another_line_from_sources_on_s3(place, s3_server, s3_bucket, tmp_path):
    for file in (tmp_path / "data").iterdir():
        s3_server.client().upload_file(str(file), s3_bucket, f"examples/{file.name}")
    examples = {**EXAMPLES, "parquet": f"s3://{s3_bucket}/examples/*.parquet"}
    hashed = {"by": "hash", "train": 0.6, "test": 0.4, "folds": 2}

    def run(**changes):
        arguments = {"examples": examples, "split": SPLIT, **place, **changes}
        return ProvisionDatasetOperator(task_id="provision", **arguments).execute(context("provision"))

    with ThreadPoolExecutor(2) as pool:
        one, two = (future.result() for future in [pool.submit(run) for _ in range(2)])
    assert one["dataset_id"] == two["dataset_id"]
    assert sorted([one["created"], two["created"]]) == [False, True]
    datasets = DatasetStore(open_store(place["store"]), "tiny")
    assert complete(datasets) == {one["dataset_id"]}
    assert len(datasets.commits(one["dataset_id"])) == 2

    beside = run(split=hashed, line="calm")
    assert datasets.refs() == {"latest": one["dataset_id"], "calm/latest": beside["dataset_id"]}
    divided = SplitDatasetOperator(task_id="split", dataset=one, split=hashed, line="other", **place).execute(
        context("split")
    )
    fresh = run(split=hashed, store=f"s3://{s3_bucket}/fresh")
    assert divided["dataset_id"] == beside["dataset_id"] == fresh["dataset_id"]
    assert find_damage(datasets, beside["dataset_id"]) == []


@pytest.mark.parametrize(("status", "error"), [(503, AirflowException), (403, AirflowFailException)])
def test_a_store_that_fails_decides_whether_the_task_is_tried_again(place, s3_proxy, tmp_path, status, error):
    s3_proxy.fate = lambda *_: status
    with pytest.raises(error, match=f"the server answered {status}") as caught:
        provision(place, tmp_path, split=SPLIT)
    assert type(caught.value) is error
    s3_proxy.fate = lambda *_: None
    assert provision(place, tmp_path, split=SPLIT)["created"]
