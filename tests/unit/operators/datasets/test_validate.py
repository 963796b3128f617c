"""Checking a version that was published before, and comparing one version with another."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import duckdb
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.datasets.validate import ValidateDatasetOperator, distribution_test, earlier_rows
from airflow_mlops.primitives.datasets.branches import line_reference
from airflow_mlops.primitives.datasets.manifest import Chunk, Column, Manifest
from airflow_mlops.primitives.sql.words import identifier
from airflow_mlops.stores.datasets.history import History
from airflow_mlops.stores.datasets.versions import DatasetStore

COLUMNS = (
    Column("id", "int64", "key"),
    Column("at", "timestamp[us, tz=UTC]", "timestamp"),
    Column("size", "double", "feature"),
    Column("city", "string", "input"),
    Column("late", "int64", "target"),
)


@pytest.fixture
def datasets(tmp_path):
    return DatasetStore(open_store(str(tmp_path / "store")), "app")


def publish(datasets, folder, *, day, shift=0.0, rows=3000, purpose="training", line="main", hour=13):
    """A version of two splits; ``shift`` moves the distribution of ``size``."""
    files, chunks = {}, []
    kept = tuple(column for column in COLUMNS if purpose == "training" or column.role != "target")
    names = ("train", "test") if purpose == "training" else ("predict", "predict")
    for split, first, last in ((names[0], 0, rows * 2 // 3), (names[1], rows * 2 // 3, rows)):
        digest = hashlib.sha256(repr((day, shift, rows, first, purpose)).encode()).hexdigest()
        files[digest] = folder / f"{digest}.parquet"
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone='UTC'")
            connection.execute(
                f"COPY (SELECT {', '.join(identifier(column.name) for column in kept)} FROM (SELECT i AS id, TIMESTAMPTZ '2024-01-{day:02} 00:00:00+00' + to_seconds(i) AS \"at\", "
                f"sin(i) * 10 + {shift} AS size, ['A', 'B', 'C'][i % 3 + 1] AS city, i % 2 AS late FROM range({first}, {last}) t(i))) "
                f"TO '{files[digest]}' (FORMAT parquet)"
            )
        chunks.append(Chunk(digest, split, last - first, f"2024-01-{day:02}", f"2024-01-{day:02}"))
    manifest = Manifest(
        application="app",
        purpose=purpose,
        columns=kept,
        chunks=tuple(chunks),
        window=("2024-01-01T00:00:00+00:00", f"2024-01-{day:02}T12:00:00+00:00"),
    )
    commit = {"time": f"2024-01-{day:02}T{hour}:00:00+00:00"}
    datasets.publish(manifest, files, commit, line_reference(line, purpose))
    return manifest.id


@pytest.fixture
def operator(tmp_path):
    def make(*rules, **given):
        return ValidateDatasetOperator(
            task_id="validate",
            application="app",
            store=str(tmp_path / "store"),
            assumptions=list(rules),
            folder=str(tmp_path),
            **given,
        )

    return make


def report_of(result):
    return json.loads(Path(result["report"].removeprefix("file://")).read_text())


def test_a_version_that_keeps_its_rules_gives_a_report(datasets, operator, tmp_path):
    dataset_id = publish(datasets, tmp_path, day=2)
    (tmp_path / "cities.csv").write_text("code,name\nA,Aachen\nB,Berlin\nC,Celle\n")
    result = operator(
        {"column": "id", "not_null": True, "type": "int64"},
        {"unique": ["id"]},
        {"column": "city", "found_in": {"csv": "cities.csv", "column": "code"}},
        {"groups_stay_together": ["id"]},
        {"newest": {"within": "12h", "of": "window"}},
        {"column": "id", "increasing_per": []},
        {"max_target_leakage": 0.95},
        {"rows_vs_previous": [0.5, 2.0]},
    ).execute({})
    assert json.loads(json.dumps(result)) == result
    assert (result["dataset_id"], result["passed"], result["checked"], result["failed"]) == (
        dataset_id,
        True,
        9,
        0,
    )
    found = report_of(result)
    assert found["dataset_id"] == dataset_id
    assert [one["rule"] for one in found["findings"] if one["volatile"]] == ["found_in", "rows_vs_previous"]


def test_a_version_that_breaks_a_rule_fails_for_good_with_the_rows(datasets, operator, tmp_path, caplog):
    publish(datasets, tmp_path, day=2)
    rules = ({"column": "city", "one_of": ["A", "B"]}, {"column": "size", "below": 5, "severity": "warn"})
    with pytest.raises(AirflowFailException, match="1 of 2 assumption") as caught:
        operator(*rules, dataset={"dataset_id": datasets.resolve("latest")}).execute({})
    assert "city: expected one of A, B, observed 1000 of 3000 rows have another value e.g. {'id': 2" in str(
        caught.value
    )
    found = report_of({"report": str(caught.value).rpartition("Full report: ")[2]})
    assert (found["passed"], found["failed"], found["warned"]) == (False, 1, 1)
    assert [row["id"] for row in found["findings"][0]["examples"]] == [2, 5, 8, 11, 14]


def test_a_warning_is_in_the_log_and_fails_nothing(datasets, operator, tmp_path, caplog):
    publish(datasets, tmp_path, day=2)
    result = operator({"column": "size", "below": 5, "severity": "warn"}).execute({})
    assert (result["passed"], result["warned"]) == (True, 1)


def test_an_entity_on_both_sides_and_twins_are_found(datasets, operator, tmp_path):
    publish(datasets, tmp_path, day=2)
    with pytest.raises(AirflowFailException) as caught:
        operator({"groups_stay_together": ["city"]}, {"groups_stay_together": ["id"]}).execute({})
    assert "city: expected each value in one split, observed 3 in several splits, with 3000 rows" in str(
        caught.value
    )
    assert "'__split': 'train'" in str(caught.value)


def test_another_distribution_than_the_version_before_is_found(datasets, operator, tmp_path):
    first = publish(datasets, tmp_path, day=2)
    same = publish(datasets, tmp_path, day=3, rows=3300)
    moved = publish(datasets, tmp_path, day=4, shift=3.0)
    rule = {"distribution": {"against": first[:10]}}
    assert operator(rule, dataset=same).execute({})["passed"]
    with pytest.raises(
        AirflowFailException, match=r"1 of 2 columns moved against .{12} with 3000 rows: size \(ks"
    ):
        operator(rule, dataset=moved).execute({})
    allowed = {"distribution": {"against": first, "max_drifted": 1}}
    assert operator(allowed, dataset=moved).execute({})["passed"]


def test_training_data_that_differ_from_what_is_served_are_found(datasets, operator, tmp_path):
    publish(datasets, tmp_path, day=2)
    rule = {"distribution": {"against": "serving", "columns": ["size"]}}
    found = report_of(operator(rule).execute({}))["findings"][0]
    assert found["observed"] == "there is no version serving yet"
    publish(datasets, tmp_path, day=3, shift=-4.0, purpose="prediction")
    with pytest.raises(AirflowFailException, match="size"):
        operator(rule).execute({})


def test_few_rows_are_not_compared(datasets, operator, tmp_path):
    first = publish(datasets, tmp_path, day=2, rows=300)
    second = publish(datasets, tmp_path, day=3, rows=300, shift=9)
    rule = {"distribution": {"against": first}}
    assert "too few rows" in report_of(operator(rule, dataset=second).execute({}))["findings"][0]["observed"]
    with pytest.raises(AirflowFailException, match="size"):
        operator({"distribution": {"against": first, "min_rows": 100}}, dataset=second).execute({})


def test_a_version_that_is_not_there_is_named(datasets, operator, tmp_path):
    publish(datasets, tmp_path, day=2)
    with pytest.raises(AirflowFailException, match="no dataset version of 'app' begins with 'lates'"):
        operator({"distribution": {"against": "lates"}}).execute({})


def test_a_column_that_changed_its_type_has_moved(datasets, tmp_path):
    dataset_id = publish(datasets, tmp_path, day=2)
    table = tmp_path / "now.parquet"
    duckdb.sql("SELECT 'x' AS size, 'A' AS city FROM range(2000)").write_parquet(str(table))
    rule = {"against": dataset_id, "min_rows": 100, "false_alarm_rate": 1e-4, "max_drifted": 0}
    report = distribution_test(datasets)([table], rule, ["size", "city", "gone"])
    assert {one["column"]: one["kind"] for one in report["columns"]} == {
        "gone": "absent",
        "size": "another type",
        "city": "categorical",
    }
    assert all(one["drifted"] for one in report["columns"] if one["column"] != "gone")


class TestLatest:
    """``against: latest`` is the version before the one that is checked, on its line and for its purpose."""

    LATEST = {"distribution": {"against": "latest", "columns": ["size"]}}  # noqa: RUF012

    def observed(self, result):
        return report_of(result)["findings"][0]["observed"]

    def test_it_is_never_the_version_itself(self, datasets, operator, tmp_path):
        first = publish(datasets, tmp_path, day=2)
        assert self.observed(operator(self.LATEST).execute({})) == "there is no earlier version yet"
        moved = publish(datasets, tmp_path, day=3, shift=3.0)
        for wanted in ("latest", moved[:12], {"dataset_id": moved, "line": "main"}):
            with pytest.raises(AirflowFailException, match=f"1 of 1 columns moved against {first[:12]}"):
                operator(self.LATEST, dataset=wanted).execute({})
        assert self.observed(operator(self.LATEST, dataset=first).execute({})).startswith("there is no")

    def test_each_line_has_its_own(self, datasets, operator, tmp_path):
        publish(datasets, tmp_path, day=2)
        beside = publish(datasets, tmp_path, day=3, shift=3.0, line="calm")
        for wanted in ("calm/latest", beside):
            assert self.observed(operator(self.LATEST, dataset=wanted).execute({})).startswith("there is no")
        publish(datasets, tmp_path, day=4, line="calm")
        with pytest.raises(AirflowFailException, match=f"moved against {beside[:12]}"):
            operator(self.LATEST, dataset="calm/latest").execute({})

    def test_a_version_of_two_lines_is_compared_on_the_one_that_is_named(self, datasets, operator, tmp_path):
        first = publish(datasets, tmp_path, day=2)
        both = publish(datasets, tmp_path, day=3, shift=3.0)
        assert publish(datasets, tmp_path, day=3, shift=3.0, line="calm", hour=14) == both
        with pytest.raises(AirflowFailException, match=f"moved against {first[:12]}"):
            operator(self.LATEST, dataset="latest").execute({})
        assert self.observed(operator(self.LATEST, dataset=both).execute({})).startswith("there is no")

    def test_neither_is_a_batch_to_predict_compared_with_itself(self, datasets, operator, tmp_path):
        first = publish(datasets, tmp_path, day=2, purpose="prediction")
        publish(datasets, tmp_path, day=3, shift=3.0, purpose="prediction")
        rule = {"distribution": {"against": "serving", "columns": ["size"]}}
        with pytest.raises(AirflowFailException, match=f"moved against {first[:12]}"):
            operator(rule, dataset="latest-prediction").execute({})

    def test_earlier_versions_for_the_same_purpose_are_counted(self, datasets, tmp_path):
        publish(datasets, tmp_path, day=1, rows=300)
        publish(datasets, tmp_path, day=2, rows=600)
        publish(datasets, tmp_path, day=3, rows=30, purpose="prediction")
        publish(datasets, tmp_path, day=3, rows=60, line="calm")
        last = publish(datasets, tmp_path, day=4, rows=900)
        publish(datasets, tmp_path, day=5, rows=1200)
        assert earlier_rows(datasets, History(datasets, last), "latest") == (600, 300)
