"""The unsupervised and the reinforcement-learning examples, from their YAML to the gate's report."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mlops.factories.application import (
    code_of,
    model_code_arguments,
    training_dataset_arguments,
)
from airflow_mlops.factories.files import load_spec
from airflow_mlops.hooks.mlflow.hook import MLflowHook
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.evaluation.evaluate import EvaluateModelOperator, TestModelOperator
from airflow_mlops.operators.evaluation.gate import GateModelOperator
from airflow_mlops.operators.training.train import DescribeModelCodeOperator, TrainModelOperator
from tests.fixtures.tasks import context

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def mlflow(mlflow_server, monkeypatch) -> MLflowHook:
    for key, value in mlflow_server.environment.items():
        monkeypatch.setenv(key, value)
    return MLflowHook()


def play(folder: Path) -> dict:
    """What the training DAG does, task by task, on the worker."""
    spec = load_spec(folder / "application.yaml")
    name, code, run_id = spec.application, code_of(spec), f"paradigm_{spec.application}"
    job = {**model_code_arguments(spec), "deferrable": False}
    dataset = ProvisionDatasetOperator(task_id="provision", **training_dataset_arguments(spec)).execute(
        context("provision", run_id=run_id)
    )
    description = DescribeModelCodeOperator(
        task_id="describe", code=code, parameters=dict(spec.training.parameters), **job
    ).execute(context("describe", run_id=run_id))
    assert description["description"]["paradigm"] == spec.paradigm
    trained = TrainModelOperator(
        task_id="train", code=code, dataset=dataset, description=description, experiment=name, **job
    ).execute(context("train", run_id=run_id))
    of_model = {"code": code, "dataset": dataset, "training": trained, **job}
    evaluated = EvaluateModelOperator(task_id="evaluate", **of_model).execute(
        context("evaluate", run_id=run_id)
    )
    tested = TestModelOperator(task_id="test", **of_model).execute(context("test", run_id=run_id))
    decision = GateModelOperator(
        task_id="gate",
        application=name,
        rules=[rule.model_dump(mode="json", exclude_none=True) for rule in spec.evaluation.require],
        candidate=evaluated,
        tests=tested,
        dataset=dataset,
        store=spec.store,
        paradigm=spec.paradigm,
    ).execute(context("gate", run_id=run_id))
    return {"run_id": trained["run_id"], "decision": decision, "evaluated": evaluated, "tested": tested}


@pytest.mark.parametrize(
    ("example", "measured", "told"),
    [
        (
            "customer_segments",
            {"silhouette": 0.3, "stability": 0.9},
            ("silhouette", "Mean silhouette of each cluster"),
        ),
        ("pump_faults", {"precision_at_50": 0.3, "auc": 0.9}, ("precision_at_50", "Precision")),
        ("cart_pole", {"mean_return": 400.0}, ("mean_return", "Return")),
    ],
)
def test_an_example_is_trained_judged_and_reported(example, measured, told, tmp_path, mlflow):
    shutil.copytree(
        EXAMPLES / example, tmp_path / example, ignore=shutil.ignore_patterns("data", "store", "__pycache__")
    )
    subprocess.run([sys.executable, "data.py"], cwd=tmp_path / example, check=True)
    found = play(tmp_path / example)

    assert found["decision"]["passed"], found["decision"]["message"]
    rules = " ".join(check["rule"] for check in found["decision"]["results"])
    for metric, bound in measured.items():
        assert f"test.{metric} ≥ {bound:g}" in rules
    assert found["tested"]["failures"] + found["tested"]["errors"] == 0
    report = mlflow.read_json(found["run_id"], "evaluation/report.json")
    assert told[0] in str(report)
    page = mlflow.download(found["run_id"], "evaluation/report.html", tmp_path / "report").read_text()
    assert told[1] in page
    assert "<svg" in page


def test_a_candidate_that_is_not_good_enough_is_refused(tmp_path):
    """Nine segments where there are four: half of the customers would not give the same."""
    folder = tmp_path / "customer_segments"
    shutil.copytree(
        EXAMPLES / folder.name, folder, ignore=shutil.ignore_patterns("data", "store", "__pycache__")
    )
    subprocess.run([sys.executable, "data.py"], cwd=folder, check=True)
    text = (folder / "application.yaml").read_text()
    (folder / "application.yaml").write_text(text.replace("clusters: 4", "clusters: 9"))
    decision = play(folder)["decision"]
    assert not decision["passed"]
    assert "stability" in decision["message"]
