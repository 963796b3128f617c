"""Batches in a real store: what is planned, and what is published after whatever went wrong before."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import duckdb
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mlops.exceptions import ContractError
from airflow_mlops.hooks.mlflow.hook import MLflowHook, ModelVersionInfo
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.delivery import PlanBatchOperator, PredictBatchOperator
from airflow_mlops.runners.protocol import JobState
from airflow_mlops.stores.datasets.versions import DatasetStore
from airflow_mlops.stores.predictions import PredictionStore
from tests.fixtures.tasks import EXAMPLES, context, write_examples

PROMISE = '[{"name":"auc","value":0.7,"split":"test"}]'
SPLIT = {"by": "time", "train": 0.6, "validation": 0.2, "test": 0.2, "gap": "0s"}


class Application:
    """A tiny application with a trained champion; examples arrive as the test says."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder, self.uri = folder, str(folder / "store")
        self.store = open_store(self.uri)
        self.predictions = PredictionStore(self.store, "tiny")
        write_examples(folder / "data" / "1.parquet", 100)
        trained_on = self.provision(split=SPLIT)["dataset_id"]
        self.tags = {"airflow_mlops.dataset_id": trained_on, "airflow_mlops.test_metrics": PROMISE}
        self.version: str | None = "1"
        monkeypatch.setattr(MLflowHook, "champion", lambda _, model: self.champion(model))

    def champion(self, model: str) -> ModelVersionInfo | None:
        if self.version is None:
            return None
        return ModelVersionInfo(model, self.version, f"run{self.version}", tags=self.tags)

    def arrive(self, number: int, start: str, rows: int = 10) -> None:
        write_examples(self.folder / "data" / f"{number}.parquet", rows, start=start, first=1000 * number)

    def provision(self, **kwargs):
        return ProvisionDatasetOperator(
            task_id="provision",
            application="tiny",
            store=self.uri,
            examples={**EXAMPLES, "parquet": "*.parquet", "folder": str(self.folder / "data")},
            **kwargs,
        ).execute(context("provision"))

    def plan(self, **code):
        operator = PlanBatchOperator(
            task_id="plan_batch", application="tiny", store=self.uri, model="m", code={"image": "m:1", **code}
        )
        return operator.execute(context("plan_batch"))

    def dataset(self, plan):
        return self.provision(purpose="prediction", window_start=plan["window_start"], when_empty="skip")

    def predict(self, plan, dataset) -> PredictBatchOperator:
        return PredictBatchOperator(
            task_id="predict",
            application="tiny",
            store=self.uri,
            code=plan["code"],
            runner={"kind": "process"},
            dataset=dataset,
            training=plan,
        )

    def publish(self, plan, dataset, output: Path):
        # The tiny model's answer is the column "prediction" of its input.
        shutil.rmtree(output, ignore_errors=True)
        (output / "output").mkdir(parents=True)
        (given,) = DatasetStore(self.store, "tiny").paths(dataset["dataset_id"], "predict", Path("unused"))
        shutil.copy(given, output / "output" / "predictions.parquet")
        return self.predict(plan, dataset).take_over(context("predict"), output, JobState("exited", 0))

    def published(self) -> list[tuple]:
        """Each prediction that a reader finds: id of the example, model version."""
        return [
            row
            for batch in self.predictions.batches()
            for row in duckdb.sql(
                f"SELECT id, model_version FROM '{self.store.path(self.predictions.file_key(batch))}'"
            ).fetchall()
        ]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    return Application(tmp_path, monkeypatch)


class TestPlan:
    def test_the_first_batch_begins_where_the_champions_training_ended(self, tiny):
        plan = tiny.plan()
        assert plan["window_start"].startswith("2026-01-01T01:39")
        assert (plan["run_id"], plan["version"], plan["metrics"][0]["name"]) == ("run1", "1", "auc")
        assert plan["code"] == {"image": "m:1"}

    def test_the_champion_predicts_in_the_image_that_trained_it(self, tiny):
        tiny.tags["airflow_mlops.image_digest"] = "sha256:abc"
        assert tiny.plan()["code"] == {"image": "sha256:abc"}

    def test_no_champion_skips(self, tiny):
        tiny.version = None
        with pytest.raises(AirflowSkipException, match="run tiny__training"):
            tiny.plan()

    def test_a_champion_of_unknown_origin_is_final_and_says_the_cure(self, tiny):
        """Somebody gave the alias to a version that was registered by hand."""
        tiny.tags = {}
        with pytest.raises(AirflowFailException, match=r"no tag airflow_mlops\.dataset_id.*Cure"):
            tiny.plan()


class TestPublish:
    def test_batch_after_batch_each_example_once(self, tiny, tmp_path):
        for number, start in ((2, "2026-02-01"), (3, "2026-03-01")):
            tiny.arrive(number, start)
            plan = tiny.plan()
            done = tiny.publish(plan, tiny.dataset(plan), tmp_path / "out")
            assert (done["rows"], done["created"]) == (10, True)
        ids = [row[0] for row in tiny.published()]
        assert sorted(ids) == [*range(2000, 2010), *range(3000, 3010)]
        with pytest.raises(AirflowSkipException):
            tiny.dataset(tiny.plan())

    def test_publishing_again_changes_nothing(self, tiny, tmp_path):
        tiny.arrive(2, "2026-02-01")
        plan = tiny.plan()
        dataset = tiny.dataset(plan)
        first = tiny.publish(plan, dataset, tmp_path / "out")
        files = {key: tiny.store.read(key) for key in tiny.store.list("tiny/predictions/")}
        again = tiny.publish({**plan, "version": "2"}, dataset, tmp_path / "out")
        assert (first["created"], again["created"]) == (True, False)
        assert again["model_version"] == "1"  # that of the batch there is
        assert {key: tiny.store.read(key) for key in tiny.store.list("tiny/predictions/")} == files

    def test_what_a_dead_try_left_never_passes_for_the_next_champions(self, tiny, tmp_path, monkeypatch):
        """The worker dies between the two files; before the next run another model becomes champion."""
        tiny.arrive(2, "2026-02-01")
        plan = tiny.plan()
        real = type(tiny.store).put_if_absent

        def dies(store, key, data):
            if key.endswith("meta.json"):
                raise KeyboardInterrupt
            return real(store, key, data)

        with monkeypatch.context() as patch:
            patch.setattr(type(tiny.store), "put_if_absent", dies)
            with pytest.raises(KeyboardInterrupt):
                tiny.publish(plan, tiny.dataset(plan), tmp_path / "out")
        assert tiny.predictions.batches() == []

        tiny.version = "2"
        plan = tiny.plan()
        tiny.publish(plan, tiny.dataset(plan), tmp_path / "out")
        assert {version for _, version in tiny.published()} == {"2"}
        (batch,) = tiny.predictions.batches()
        assert (batch.model_version, batch.rows) == ("2", 10)

    @pytest.mark.parametrize("place", ["before its file", "before meta.json"])
    def test_a_writer_that_stood_still_changes_nothing_of_what_was_published_meanwhile(
        self, tiny, tmp_path, monkeypatch, place
    ):
        """A paused machine: the retry, with the next champion, publishes the window; then the first one goes on."""
        tiny.arrive(2, "2026-02-01")
        plan = tiny.plan()
        dataset, real = tiny.dataset(plan), type(tiny.store).put_if_absent
        paused, seen = [place], {}

        def put(store, key, data):
            if paused and key.endswith("meta.json" if place == "before meta.json" else ".parquet"):
                paused.clear()
                tiny.publish({**plan, "version": "2"}, dataset, tmp_path / "other")
                (batch,) = tiny.predictions.batches()
                seen["batch"], seen["file"] = batch, tiny.store.read(tiny.predictions.file_key(batch))
            return real(store, key, data)

        monkeypatch.setattr(type(tiny.store), "put_if_absent", put)
        late = tiny.publish(plan, dataset, tmp_path / "out")
        assert (late["created"], late["model_version"]) == (False, "2")
        (batch,) = tiny.predictions.batches()
        assert batch == seen["batch"]
        assert tiny.store.read(tiny.predictions.file_key(batch)) == seen["file"]
        assert {version for _, version in tiny.published()} == {batch.model_version} == {"2"}
        assert len(tiny.store.list("tiny/predictions/")) == 2  # nothing of the late one stays

    def test_the_file_is_named_by_its_digest(self, tiny, tmp_path):
        tiny.arrive(2, "2026-02-01")
        plan = tiny.plan()
        tiny.publish(plan, tiny.dataset(plan), tmp_path / "out")
        (batch,) = tiny.predictions.batches()
        content = tiny.store.read(tiny.predictions.file_key(batch))
        assert batch.file == f"{hashlib.sha256(content).hexdigest()}.parquet"

    def test_a_task_of_an_old_run_that_is_cleared_predicts_nothing_twice(self, tiny, tmp_path):
        """Its plan is from before the later run; its dataset, made again, reaches up to the newest example."""
        tiny.arrive(2, "2026-02-01")
        old = tiny.plan()
        tiny.publish(tiny.plan(), tiny.dataset(tiny.plan()), tmp_path / "out")
        tiny.arrive(3, "2026-03-01")
        with pytest.raises(AirflowSkipException, match=r"predicted since.*clear plan_batch"):
            tiny.predict(old, tiny.dataset(old)).execute(context("predict"))

    def test_a_job_that_wrote_no_predictions_is_told(self, tiny, tmp_path):
        tiny.arrive(2, "2026-02-01")
        plan = tiny.plan()
        operator = tiny.predict(plan, tiny.dataset(plan))
        with pytest.raises(ContractError, match=r"m:1 predicted and wrote no output/predictions\.parquet"):
            operator.take_over(context("predict"), tmp_path, JobState("exited", 0))


class TestAssumptions:
    """The rows to predict are held to the rules that mean something for them."""

    RULES = (
        {"column": "prediction", "between": [0, 0.3]},
        {"column": "answer", "not_null": True},
        {"min_rows": 1000},
    )

    def provision(self, tiny, **kwargs):
        tiny.arrive(2, "2026-02-01")
        plan = tiny.plan()
        rules = [dict(rule) for rule in self.RULES]
        return plan, tiny.provision(
            purpose="prediction", window_start=plan["window_start"], assumptions=rules, **kwargs
        )

    def test_they_warn_and_the_batch_names_the_report(self, tiny, tmp_path):
        plan, dataset = self.provision(tiny, warn_only=True)
        tiny.publish(plan, dataset, tmp_path / "out")
        (batch,) = tiny.predictions.batches()
        report = json.loads(Path(batch.report.removeprefix("file://")).read_bytes())
        assert [(one["rule"], one["column"]) for one in report["findings"] if not one["passed"]] == [
            ("between", "prediction")
        ]
        assert not [one for one in report["findings"] if one["rule"] in ("min_rows", "not_null")]

    def test_a_rule_about_a_column_that_the_rows_lack_does_not_hold(self, tiny):
        """The answer is none of theirs; any other column was lost on the way."""
        rules = [*self.RULES[1:], {"column": "gone", "not_null": True}, {"sql": "answer = 1 OR gone = 2"}]
        tiny.arrive(2, "2026-02-01")
        with pytest.raises(AirflowFailException, match=r"(?s)1 of 1 assumption.*gone: expected .* no column"):
            tiny.provision(
                purpose="prediction",
                window_start=tiny.plan()["window_start"],
                assumptions=[*map(dict, rules)],
            )

    def test_or_stop_before_the_prediction(self, tiny):
        with pytest.raises(AirflowFailException, match=r"prediction: expected between 0 and 0\.3"):
            self.provision(tiny)
