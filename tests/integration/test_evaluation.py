"""The gate on a real MLflow server: candidate and champion by real jobs on the same rows, and the report of it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import duckdb
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from sklearn.metrics import brier_score_loss, roc_auc_score

import tests.fixtures
from airflow_mlops.hooks.mlflow.hook import MLflowHook
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.evaluation.evaluate import (
    EvaluateChampionOperator,
    EvaluateModelOperator,
    TestModelOperator,
)
from airflow_mlops.operators.evaluation.gate import GateModelOperator
from airflow_mlops.operators.registration import RegisterModelOperator
from airflow_mlops.operators.training.train import DescribeModelCodeOperator, TrainModelOperator
from airflow_mlops.stores.datasets.versions import DatasetStore
from airflow_mlops.stores.predictions import TestPredictions
from tests.fixtures.tasks import EXAMPLES, context

CODE = {
    "entrypoint": [sys.executable, "model_code.py"],
    "directory": str(Path(tests.fixtures.__file__).with_name("judged_model")),
}
SPLIT = {"by": "time", "train": 0.1, "validation": 0.1, "test": 0.8, "gap": "0s"}
NO_WORSE = {"metric": "auc", "against": "champion", "no_worse_by": 0.02}


class Loop:
    """One application whose trainings differ by their parameters."""

    def __init__(self, folder, mlflow, model):
        self.mlflow, self.model, self.runs = mlflow, model, 0
        self.place = {"application": "judged", "store": str(folder / "store")}
        self.job = {
            "runner": {"kind": "process", "root": str(folder / "jobs")},
            "deferrable": False,
            **self.place,
        }
        data = folder / "data" / "examples.parquet"
        data.parent.mkdir(parents=True)
        duckdb.sql(
            f"""COPY (SELECT i AS id, TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_minutes(i) AS asked_at,
            ['EWR', 'JFK', 'LGA'][1 + i % 3] AS origin, (i * 7919 % 100 < 40)::INT AS answer
            FROM range(2000) t(i)) TO '{data}' (FORMAT parquet)"""
        )
        self.dataset = ProvisionDatasetOperator(
            task_id="provision",
            examples={**EXAMPLES, "parquet": "*.parquet", "folder": str(data.parent)},
            split=SPLIT,
            **self.place,
        ).execute(context("provision"))

    def train(self, **parameters):
        self.runs += 1
        run = f"manual__{self.runs}"
        described = DescribeModelCodeOperator(
            task_id="describe", code=CODE, parameters=parameters, **self.job
        ).execute(context("describe", run_id=run))
        return TrainModelOperator(
            task_id="train",
            code=CODE,
            dataset=self.dataset,
            description=described,
            experiment=self.model,
            **self.job,
        ).execute(context("train", run_id=run))

    def of(self, operator, trained, **more):
        task = operator(
            task_id=operator.__name__, code=CODE, dataset=self.dataset, training=trained, **more, **self.job
        )
        return task.execute(context(operator.__name__, run_id=f"manual__{self.runs}"))

    def champion(self, *, try_number=1, max_tries=0):
        task = EvaluateChampionOperator(
            task_id="evaluate_champion", code=CODE, model=self.model, dataset=self.dataset, **self.job
        )
        return task.execute(
            context(
                "evaluate_champion",
                run_id=f"manual__{self.runs}",
                try_number=try_number,
                max_tries=max_tries,
            )
        )

    def gate(self, rules, candidate, **more):
        return GateModelOperator(
            task_id="gate", rules=rules, candidate=candidate, dataset=self.dataset, **more, **self.place
        ).execute(context("gate", run_id=f"manual__{self.runs}"))

    def register(self, trained, decision):
        return RegisterModelOperator(
            task_id="register",
            application="judged",
            model=self.model,
            run_id=trained["run_id"],
            decision=decision,
        ).execute(context("register"))

    def tag(self, trained):
        return self.mlflow.get_conn().get_run(trained["run_id"]).data.tags["airflow_mlops.gate"]


@pytest.fixture(scope="module")
def loop(mlflow_server, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for key, value in mlflow_server.environment.items():
            patch.setenv(key, value)
        yield Loop(tmp_path_factory.mktemp("judged"), MLflowHook(), "judged")


@pytest.fixture(scope="module")
def first(loop):
    """The first champion."""
    trained = loop.train(noise=0.4)
    evaluated = loop.of(EvaluateModelOperator, trained)
    with pytest.raises(AirflowSkipException):
        loop.champion()
    decision = loop.gate([{"metric": "auc", "at_least": 0.7}, NO_WORSE], evaluated)
    assert decision["passed"], decision["message"]
    assert loop.register(trained, decision)["champion"]
    return trained


@pytest.fixture(scope="module")
def better(loop, first):
    """A candidate that is better, with everything that was found out about it."""
    trained = loop.train(noise=0.2, flaw="lies")
    return {
        "trained": trained,
        "evaluated": loop.of(EvaluateModelOperator, trained),
        "champion": loop.champion(),
        "tests": loop.of(TestModelOperator, trained),
    }


def arrays(loop, key):
    """What sklearn wants, joined by somebody else than the code under test."""
    store = DatasetStore(open_store(loop.place["store"]), "judged")
    files = [str(path) for path in store.paths(loop.dataset["dataset_id"], "test", Path("/nowhere"))]
    predicted = store.store.local(key, Path("/nowhere"))
    rows = duckdb.sql(
        f"SELECT answer, prediction FROM read_parquet({files}) JOIN '{predicted}' USING (id)"
    ).fetchall()
    assert len(rows) == 1600
    return zip(*rows, strict=True)


def test_figures_are_measured_on_the_same_rows_whatever_the_model_code_says(loop, better):
    found = {entry["name"]: entry for entry in better["evaluated"]["metrics"] if not entry.get("slice")}
    truth, scores = arrays(loop, better["evaluated"]["predictions"])
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["brier"]["value"] == pytest.approx(brier_score_loss(truth, scores))
    assert found["gizmo"]["value"] == 7
    assert better["evaluated"]["reported"] == [
        {"name": "auc", "value": 0.999, "split": "test", "direction": "maximize"}
    ]
    assert loop.mlflow.evaluation(better["trained"]["run_id"]) == better["evaluated"]["metrics"]
    assert better["champion"]["version"] == "1"


def test_a_better_candidate_passes_and_the_report_is_with_its_run(loop, first, better):
    rules = [
        {"metric": "auc", "at_least": 0.8, "confidence": 0.95},
        {"metric": "auc", "against": "champion", "better_by": 0.02},
        {"metric": "brier", "against": "champion", "no_worse_by": 0.0},
        {"metric": "f1", "against": "champion", "no_worse_by": 0.0},
        {"metric": "gizmo", "against": "champion", "confidence": 0.5},
        {"metric": "auc", "per_slice": "origin", "at_least": 0.8},
        {"fairness": "demographic_parity", "column": "origin", "at_most": 0.2},
        {"latency": "p95", "at_most": 1},
        {"size": "model", "at_most": 10_000},
    ]
    decision = loop.gate(
        rules, better["evaluated"], champion=better["champion"], tests=json.dumps(better["tests"])
    )
    assert decision["passed"], decision["message"]
    assert "the model code says 0.9990" in decision["message"]
    run_id = better["trained"]["run_id"]
    assert loop.mlflow.read_json(run_id, "evaluation/gate.json") == decision
    report = loop.mlflow.read_json(run_id, "evaluation/report.json")
    auc = next(metric for metric in report["metrics"] if metric["name"] == "auc")
    assert auc["gain"]["interval"][0] > 0
    assert report["about"]["champion"] == "version 1"
    assert report["tests"]["total"] == 1
    assert [group["column"] for group in report["slices"]] == ["origin"]
    page = loop.mlflow.download(
        run_id, "evaluation/report.html", Path(loop.place["store"]) / "page"
    ).read_text()
    assert page.count("<svg") == 5
    assert loop.tag(better["trained"]) == "passed"


def test_a_worse_candidate_is_stopped_or_with_dry_run_only_told_of(loop, first):
    trained = loop.train(noise=0.9)
    evaluated, champion = loop.of(EvaluateModelOperator, trained), loop.champion()
    decision = loop.gate([NO_WORSE], evaluated, champion=champion)
    assert not decision["passed"]
    assert "DeLong, paired, 1600 rows" in decision["message"]
    assert loop.tag(trained) == "failed"
    with pytest.raises(AirflowSkipException, match="no worse than champion"):
        loop.register(trained, decision)

    decision = loop.gate([NO_WORSE], evaluated, champion=champion, mode="dry_run")
    assert (decision["passed"], decision["register"]) == (False, True)
    assert loop.tag(trained) == "dry_run_failed"
    page = loop.mlflow.download(
        trained["run_id"], "evaluation/report.html", Path(loop.place["store"]) / "page"
    ).read_text()
    assert "registered all the same (dry run)" in page


@pytest.mark.parametrize(
    ("flaw", "said"), [("needy", "exit code 11.*lacks weather_v2"), ("crashes", "exit code 1: KeyError")]
)
def test_a_champion_that_cannot_read_the_new_features_is_no_verdict(loop, better, flaw, said):
    name, loop.model = loop.model, f"judged_{flaw}"
    try:
        old = loop.train(flaw=flaw)
        loop.register(old, {"passed": True})
        if flaw == "crashes":
            with pytest.raises(AirflowException, match="KeyError"):
                loop.champion(try_number=1, max_tries=1)
            found = loop.champion(try_number=2, max_tries=1)
        else:
            found = loop.champion(try_number=1, max_tries=1)
    finally:
        loop.model = name
    assert found["metrics"] == []
    assert re.search(said, found["failure"])
    decision = loop.gate([NO_WORSE], better["evaluated"], champion=found)
    assert decision["passed"]
    assert "inconclusive" in decision["message"]
    strict = loop.gate([{**NO_WORSE, "if_champion_fails": "fail"}], better["evaluated"], champion=found)
    assert not strict["passed"]


def test_predictions_that_leave_rows_out_and_broken_test_reports_are_refused(loop):
    trained = loop.train(flaw="short")
    with pytest.raises(AirflowFailException, match="1600 rows, 1597 predictions"):
        loop.of(EvaluateModelOperator, trained)
    broken = {"entrypoint": ["sh", "-c", 'echo "<testsuite><testcase" >"$MLOPS_ROOT/output/tests.xml"']}
    task = TestModelOperator(task_id="test", code=broken, dataset=loop.dataset, training=trained, **loop.job)
    with pytest.raises(AirflowFailException, match=r"output/tests\.xml\) is no XML.*Cure"):
        task.execute(context("test", run_id="broken"))


def test_a_program_that_says_that_its_tests_failed_does_not_pass(loop, better):
    """Whatever its report says: one case that passed, or none at all."""
    trained = {"run_id": better["evaluated"]["run_id"]}
    report = '<testsuite><testcase name="a"/></testsuite>'
    code = {"entrypoint": ["sh", "-c", f"echo '{report}' >\"$MLOPS_ROOT/output/tests.xml\"; exit 13"]}
    task = TestModelOperator(task_id="test", code=code, dataset=loop.dataset, training=trained, **loop.job)
    found = task.execute(context("test", run_id="thirteen"))
    assert (found["total"], found["errors"]) == (2, 1)
    decision = loop.gate([], better["evaluated"], tests=found)
    assert not decision["passed"]
    assert "1 failed: unnamed" in decision["message"]


def test_predictions_go_with_their_dataset_version(loop, better):
    datasets = DatasetStore(open_store(loop.place["store"]), "judged")
    keys = TestPredictions(datasets).keys(loop.dataset["dataset_id"])
    assert {better["evaluated"]["predictions"], better["champion"]["predictions"]} <= set(keys)
