"""Assumptions from the YAML's words to what is published, and what is not."""

from __future__ import annotations

import json

import duckdb
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.datasets.split import SplitDatasetOperator
from airflow_mlops.stores.datasets.versions import DatasetStore

EXAMPLES = {"parquet": "examples.parquet", "keys": ["id"], "timestamp": "asked", "targets": ["late"]}
SPLIT = {"by": "time", "train": 0.7, "validation": 0.15, "test": 0.15, "gap": "0s"}
STEADY = [
    {"column": "city", "not_null": True, "one_of": ["A", "B", "C"], "matches": "[A-Z]"},
    {"column": "size", "between": [0, 100], "known_by": "seen"},
    {"unique": ["id"]},
    {"sql": "size < 100 OR late = 1"},
    {"groups_stay_together": ["id"]},
    {"column": "id", "increasing_per": ["city"]},
]
VOLATILE = [
    {"column": "city", "found_in": {"csv": "cities.csv", "column": "code"}},
    {"newest": {"within": "1d"}, "severity": "warn"},
    {"rows_vs_previous": [0.5, 2.0]},
    {"distribution": {"against": "latest"}},
]


@pytest.fixture
def home(tmp_path):
    land(tmp_path)
    (tmp_path / "cities.csv").write_text("code,name\nA,Aachen\nB,Bonn\nC,Celle\n")
    return tmp_path


def land(home, *, reason="i % 3", rows=5000, stretch=1.0):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        connection.execute(
            "COPY (SELECT i AS id, TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_minutes(i) AS asked, "
            "TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_minutes(i - 5) AS seen, ['A', 'B', 'C'][i % 3 + 1] AS city, "
            f"abs(sin(i)) * 99 * {stretch} AS size, {reason} AS reason, (i % 5 = 0)::INTEGER AS late "
            f"FROM range({rows}) t(i)) TO '{home}/examples.parquet' (FORMAT parquet)"
        )


def provision(home, *rules):
    examples = {**EXAMPLES, "folder": str(home)}
    return ProvisionDatasetOperator(
        task_id="provision",
        application="app",
        store=str(home / "store"),
        examples=examples,
        split=SPLIT,
        assumptions=list(rules),
    ).execute({})


def test_steady_findings_are_in_the_version_and_others_in_the_record_of_the_run(home):
    first, again = (provision(home, *STEADY, *VOLATILE) for _ in range(2))
    assert first["dataset_id"] == again["dataset_id"], "earlier versions and the clock change no version"
    datasets = DatasetStore(open_store(str(home / "store")), "app")
    manifest = datasets.manifest(first["dataset_id"])
    assert [found["rule"] for found in manifest.assumptions] == [
        "not_null", "one_of", "matches", "between", "known_by", "unique", "sql", "groups_stay_together", "increasing_per",
    ]  # fmt: skip
    assert all(found["passed"] for found in manifest.assumptions)
    findings = {one["rule"]: one for one in datasets.commits(first["dataset_id"])[0]["findings"]}
    assert set(findings) == {"found_in", "newest", "rows_vs_previous", "distribution"}
    assert findings["newest"]["passed"] is False
    assert "1 times the median 5000" in findings["rows_vs_previous"]["observed"]


WARNED = {"column": "size", "between": [0, 98], "severity": "warn"}


def stored_reports(home):
    store = open_store(str(home / "store"))
    return {store.address(key): store.read_json(key) for key in store.list("app/datasets/assumptions/")}


def test_what_is_only_warned_of_keeps_its_rows_in_a_report(home, caplog):
    made = provision(home, WARNED, {"unique": ["id"]})
    datasets = DatasetStore(open_store(str(home / "store")), "app")
    ((address, report),) = stored_reports(home).items()
    assert datasets.commits(made["dataset_id"])[0]["report"] == address
    assert f"Full report: {address}" in caplog.text
    assert (report["dataset_id"], report["passed"], report["warned"]) == (made["dataset_id"], True, 1)
    broken, unique = report["findings"]
    assert len(broken["examples"]) == 5
    assert all(row["size"] > 98 for row in broken["examples"])
    assert unique["passed"]
    assert all("examples" not in found for found in datasets.manifest(made["dataset_id"]).assumptions)


def test_a_version_that_keeps_all_has_no_report(home):
    made = provision(home, {"unique": ["id"]})
    datasets = DatasetStore(open_store(str(home / "store")), "app")
    assert "report" not in datasets.commits(made["dataset_id"])[0]
    assert stored_reports(home) == {}


def test_a_version_that_is_divided_again_has_its_report_too(home):
    provision(home)
    given = {"application": "app", "store": str(home / "store"), "dataset": "latest", "line": "beside"}
    split = {"by": "hash", "train": 0.8, "test": 0.2}
    made = SplitDatasetOperator(task_id="divide", split=split, assumptions=[WARNED], **given).execute({})
    datasets = DatasetStore(open_store(str(home / "store")), "app")
    address = datasets.commits(made["dataset_id"])[0]["report"]
    assert len(stored_reports(home)[address]["findings"][0]["examples"]) == 5
    rules = [{**WARNED, "severity": "fail"}]
    again = SplitDatasetOperator(task_id="divide", split=split, assumptions=rules, **given)
    with pytest.raises(AirflowFailException, match="Full report: ") as caught:
        again.execute({})
    assert stored_reports(home)[str(caught.value).rpartition("Full report: ")[2]]["findings"][0]["examples"]


def test_a_version_that_is_divided_again_is_compared_with_the_one_before(home):
    provision(home)
    land(home, stretch=0.6)
    provision(home)
    again = SplitDatasetOperator(
        task_id="divide",
        application="app",
        store=str(home / "store"),
        dataset="latest",
        line="main",
        split={"by": "hash", "train": 0.8, "test": 0.2},
        assumptions=[{"distribution": {"against": "latest"}}],
    )
    with pytest.raises(AirflowFailException, match="moved against"):
        again.execute({})


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        ({"reason": "i % 5"}, {"max_target_leakage": 0.95}, "reason tells 1"),
        ({"stretch": 0.6}, {"distribution": {"against": "latest"}}, "moved against"),
        ({"rows": 1000}, {"rows_vs_previous": [0.5, 2]}, "0.2 times the median 5000"),
        ({}, {"groups_stay_together": ["city"]}, "3 in several splits"),
        ({}, {"column": "size", "known_by": "asked_again"}, "no column 'asked_again'"),
    ],
)
def test_what_does_not_hold_stops_the_dataset(home, change, rule, words):
    provision(home)
    land(home, **change)
    with pytest.raises(AirflowFailException, match="1 of 1 assumption") as caught:
        provision(home, rule)
    assert words in str(caught.value)
    (key,) = open_store(str(home / "store")).list("app/datasets/assumptions/")
    report = json.loads(open_store(str(home / "store")).read(key))
    assert report["findings"][0]["passed"] is False
    assert len(DatasetStore(open_store(str(home / "store")), "app").versions()) == 1
