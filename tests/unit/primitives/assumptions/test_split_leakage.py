"""Answers that are known before they are asked for."""

from __future__ import annotations

import duckdb
import pytest

from airflow_mlops.primitives.assumptions import known_when_asked, report


@pytest.mark.parametrize(("early", "warned"), [(5, False), (6, True), (10, True)])
def test_a_dataset_whose_targets_are_mostly_known_when_asked_says_so(early, warned):
    rows = (
        "(SELECT TIMESTAMP '2026-01-01' AS at, "
        f"TIMESTAMP '2026-01-01' + CASE WHEN i < {early} THEN 0 ELSE 1 END * INTERVAL 1 DAY AS known FROM range(10) t(i))"
    )
    with duckdb.connect() as connection:
        found = known_when_asked(connection, rows, "known", "at")
    assert (found is not None) == warned
    if found is not None:
        told = report([found])
        assert (told["passed"], told["warned"], told["findings"][0]["failing_rows"]) == (True, 1, early)
        assert "known: expected most targets known after at" in str(found)
        assert f"{early} of 10 targets known when they are asked for" in str(found)
