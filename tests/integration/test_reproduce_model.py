"""``airflow-mlops reproduce`` on a real engine and a real MLflow server, with models in shell and in Python."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import pytest

from airflow_mlops.cli.main import main
from airflow_mlops.hooks.mlflow.hook import MLflowHook
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.evaluation.evaluate import EvaluateModelOperator
from airflow_mlops.operators.registration import RegisterModelOperator
from airflow_mlops.operators.training.train import DescribeModelCodeOperator, TrainModelOperator
from tests.fixtures.tasks import EXAMPLES, context, write_examples

FLIGHT_DELAY = Path(__file__).parents[2] / "examples" / "flight_delay"


@pytest.fixture
def mlflow(mlflow_server, monkeypatch):
    for key, value in mlflow_server.environment.items():
        monkeypatch.setenv(key, value)
    return MLflowHook()


def registered(folder, code, runner, parameters=None, rows=200):
    """Name of a model with one version, trained on data of its own."""
    model = f"again-{uuid.uuid4().hex[:8]}"
    arguments = {
        "application": "again",
        "store": str(folder / "store"),
        "runner": runner,
        "deferrable": False,
    }
    write_examples(folder / "data" / "examples.parquet", rows)
    dataset = ProvisionDatasetOperator(
        task_id="provision",
        application="again",
        store=arguments["store"],
        examples={**EXAMPLES, "parquet": "*.parquet", "folder": str(folder / "data")},
        split={"by": "time", "train": 0.6, "validation": 0.2, "test": 0.2, "gap": "0s"},
    ).execute(context("provision"))
    description = DescribeModelCodeOperator(
        task_id="describe", code=code, parameters=parameters or {}, **arguments
    ).execute(context("describe", run_id=model))
    trained = TrainModelOperator(
        task_id="train",
        code=description["code"],
        dataset=dataset,
        description=description,
        experiment="again",
        **{**arguments, "seed": 7},
    ).execute(context("train", run_id=model))
    evaluated = EvaluateModelOperator(
        task_id="evaluate", code=description["code"], dataset=dataset, training=trained, **arguments
    ).execute(context("evaluate", run_id=model))
    RegisterModelOperator(
        task_id="register",
        application="again",
        model=model,
        run_id=trained["run_id"],
        decision={"passed": True, "message": "", "results": []},
        lineage=trained["lineage"],
        evaluation=evaluated,
    ).execute(context("register"))
    return model, trained["run_id"]


def reproduce(capsys, *words):
    capsys.readouterr()
    code = main(["reproduce", *words, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


@pytest.mark.docker
@pytest.mark.usefixtures("no_leftovers")
def test_in_the_same_image_the_same_comes_out(mlflow, tiny_image, tmp_path, capsys):
    model, run_id = registered(tmp_path, {"image": tiny_image}, {"kind": "docker", "docker_conn_id": ""})
    tags = mlflow.model_version(model, "1").tags
    assert tags["airflow_mlops.git_commit"] == "5eed" * 10
    assert tags["airflow_mlops.base_digest"] == "sha256:ba5e"
    assert mlflow.run(run_id).tags["mlflow.source.git.commit"] == "5eed" * 10

    code, report, err = reproduce(capsys, f"{model}/champion", "--keep", str(tmp_path / "kept"))
    assert (code, report["same"], report["version"], report["run_on"]) == (0, True, "1", "docker"), err
    assert report["files"] == {"MLmodel": "same", "weights": "same"}
    assert {pair["stage"] for pair in report["metrics"]} == {"training", "evaluation"}
    assert "tiny train begins" in err
    assert (tmp_path / "kept" / "trained" / "model" / "weights").stat().st_size > 0

    assert main(["reproduce", f"{model}/1"]) == 0
    out = capsys.readouterr().out
    assert "SAME: metrics and files." in out
    assert "test.auc" in out

    # The model had other figures than its code gives.
    mlflow.log_json(run_id, "evaluation/metrics.json", [{"name": "auc", "value": 0.76, "split": "test"}])
    record = mlflow.read_json(run_id, "lineage.json")
    record["model"]["files"]["weights"] = "0" * 64
    mlflow.log_json(run_id, "lineage.json", record)
    code, report, _ = reproduce(capsys, f"{model}/1")
    assert code == 3, report
    assert report["files"]["weights"] == "different"
    assert "weights has other bytes" in report["registered_files"]
    wrong = [pair for pair in report["metrics"] if not pair["same"]]
    assert {"stage": "evaluation", "name": "test.auc", "old": 0.76, "new": 0.75}.items() <= wrong[0].items()
    code, report, _ = reproduce(capsys, f"{model}/1", "--tolerance", "0.02")
    assert (code, report["metrics_same"]) == (3, False)  # brier was not reported then

    def impossible(*words):
        code, answer, _ = reproduce(capsys, *words)
        assert (code, answer["same"]) == (4, None)
        return answer["problem"]

    assert "--run-on docker" in impossible(f"{model}/1", "--run-on", "process")
    assert "no dataset version" in impossible(f"{model}/1", "--store", str(tmp_path / "elsewhere"))
    record["code"]["image_digest"] = "sha256:" + "0" * 64
    mlflow.log_json(run_id, "lineage.json", record)
    assert "Cure: build it there" in impossible(f"{model}/1")
    assert "alias challenger" in impossible(f"{model}/challenger")
    assert "version 9" in impossible(f"{model}/9")
    mlflow.log_json(run_id, "lineage.json", {"format": 7})
    assert "another release" in impossible(f"{model}/1")
    assert main(["reproduce", model]) == 2


def test_the_flights_model_as_a_process(mlflow, tmp_path, capsys):
    """Trees of scikit-learn with a seed: the same metrics, and a note when the code is not what it was."""
    code = tmp_path / "code"
    shutil.copytree(FLIGHT_DELAY, code, ignore=shutil.ignore_patterns("tests", "features", "__pycache__"))
    (code / "airflow_mlops").symlink_to(Path(__file__).parents[2] / "airflow_mlops")
    command = {"entrypoint": ["python", "model_code.py"], "directory": str(code)}
    runner = {"kind": "process", "root": str(tmp_path / "jobs")}
    model, run_id = registered(tmp_path, command, runner, {"max_iter": 5, "min_samples_leaf": 20}, rows=1000)

    record = mlflow.read_json(run_id, "lineage.json")
    assert record["environment"]["packages"]["scikit-learn"]
    assert record["environment"]["lock_file"] == "requirements.txt"
    assert len(record["environment"]["lock_sha256"]) == 64

    (code / "measures.py").write_text((code / "measures.py").read_text() + "\n# a remark\n")
    answer, report, _ = reproduce(capsys, f"{model}/1")
    assert answer == 0, [pair for pair in report["metrics"] if not pair["same"]]
    assert report["metrics_same"]
    assert report["registered_files"] == "as recorded"
    # skops writes memory addresses into its file: the trees are the same, the bytes are not.
    states = {name: state for name, state in report["files"].items() if state != "same"}
    assert states == {"MLmodel": "volatile", "model.skops": "different"}
    assert not report["files_same"]
    assert any("is not what was run" in note for note in report["notes"])

    shutil.rmtree(code)
    answer, report, _ = reproduce(capsys, f"{model}/1")
    assert answer == 4
    assert "Cure: check it out there again" in report["problem"]
