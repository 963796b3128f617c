"""What is said of a dataset while it is made."""

from __future__ import annotations

import logging

import pytest

from tests.fixtures.tasks import context


def provisioned(tmp_path, caplog, columns, **examples):
    """What was warned of while a dataset of 60 rows ``i`` was made."""
    from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator

    sql = f"SELECT i AS id, TIMESTAMPTZ '2026-01-01' + to_minutes(i) AS at, i AS x, {columns} FROM range(60) t(i)"
    with caplog.at_level(logging.WARNING, "airflow_mlops"):
        ProvisionDatasetOperator(
            task_id="provision",
            application="tiny",
            store=str(tmp_path / "store"),
            examples={"sql": sql, "keys": ["id"], "timestamp": "at", "targets": ["y"], **examples},
        ).execute(context("provision"))
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(("early", "said"), [(10, False), (45, True)])
def test_a_dataset_most_of_whose_targets_are_known_when_asked_for_says_so(tmp_path, caplog, early, said):
    known = f'"at" + to_hours((i >= {early})::INT) AS known, i % 2 AS y'
    told = provisioned(tmp_path, caplog, known, targets_known_at="known")
    assert any(f"{early} of 60 targets known when they are asked for" in text for text in told) is said


@pytest.mark.parametrize(
    ("coded", "said"),
    [
        ("i % 2", None),
        ("(i % 2)::BOOLEAN", None),
        ("(i % 2)::DOUBLE", None),
        ("i % 3", None),
        ("i % 2 + 1", 'CASE "y" WHEN 1 THEN 0 WHEN 2 THEN 1 END AS "y"'),
        ("(i % 2)::VARCHAR", "CASE \"y\" WHEN '0' THEN 0 WHEN '1' THEN 1 END AS \"y\""),
        ("CASE WHEN i % 2 = 1 THEN 1 WHEN i % 4 = 0 THEN -1 ELSE 'NaN'::DOUBLE END", "WHEN -1 THEN 0"),
    ],
)
def test_two_classes_that_are_not_0_and_1_are_told_the_sql(tmp_path, caplog, coded, said):
    warned = provisioned(tmp_path, caplog, f"{coded} AS y")
    told = [text for text in warned if "The target y" in text]
    assert len(told) == (said is not None)
    assert said is None or said in told[0]
