"""Stated assumptions against a small table with known faults."""

from __future__ import annotations

import json

import duckdb
import pytest

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.assumptions import (
    check_table,
    compile_check,
    parse_assumptions,
    summary,
)
from airflow_mlops.primitives.assumptions.kind import Table

TYPES = {"n": "int64", "id": "int32", "origin": "string", "temp": "double", "at": "timestamp[us, tz=UTC]"}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rows.parquet"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        connection.execute(
            "COPY (SELECT i AS n, (i % 95)::INTEGER AS id, CASE WHEN i = 7 THEN 'LAX' WHEN i < 3 THEN NULL ELSE 'JFK' END "
            "AS origin, CASE WHEN i = 9 THEN 'nan'::DOUBLE WHEN i = 8 THEN -200 WHEN i < 10 THEN NULL ELSE i END AS temp, "
            "TIMESTAMPTZ '2013-01-01 00:00:00+00' + to_hours(i) AS at FROM range(100) t(i)) "
            f"TO '{path}' (FORMAT parquet)"
        )
    return path


def check(table, *rules):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        return check_table(connection, parse_assumptions(rules), table, TYPES, order="n", shown=["n"])


@pytest.mark.parametrize(
    "rule",
    [
        {"column": "id", "not_null": True},
        {"column": "origin", "max_null_share": 0.03},
        {"column": "id", "between": [0, 94]},
        {"column": "at", "between": ["2013-01-01", "2013-01-06"]},
        {"column": "origin", "one_of": ["JFK", "LAX"]},
        {"column": "temp", "type": "double"},
        {"column": "temp", "type": "FLOAT64"},
        {"column": "id", "type": "integer"},
        {"column": "origin", "type": "varchar"},
        {"column": "at", "type": "timestamptz"},
        {"unique": ["n"]},
        {"unique": ["id", "at"]},
        {"min_rows": 100},
    ],
)
def test_what_holds_passes(table, rule):
    (finding,) = check(table, rule)
    assert finding.passed, finding
    assert finding.examples == ()


@pytest.mark.parametrize(
    ("rule", "observed", "rows"),
    [
        ({"column": "origin", "not_null": True}, "3 of 100 rows null", [0, 1, 2]),
        ({"column": "origin", "max_null_share": 0.02}, r"3 of 100 rows null \(0.03\)", [0, 1, 2]),
        (
            {"column": "temp", "between": [-100, 200]},
            "2 of 100 rows outside; values from -200.0 to nan",
            [8, 9],
        ),
        ({"column": "temp", "between": [None, 95]}, "5 of 100 rows outside", [9, 96, 97, 98, 99]),
        ({"column": "at", "between": ["2013-01-01 02:00:00", "2014-01-01"]}, "2 of 100 rows outside", [0, 1]),
        ({"column": "origin", "one_of": ["JFK", "it's"]}, "1 of 100 rows have another value", [7]),
        ({"column": "temp", "type": "int64"}, "type double", []),
        ({"unique": ["id"]}, "5 of 100 rows repeat another", [0, 1, 2, 3, 4]),
        ({"unique": ["origin"]}, "97 of 100 rows repeat another", [0, 1, 2, 3, 4]),
        ({"min_rows": 101}, "100 rows", []),
    ],
)
def test_what_does_not_hold_shows_figures_and_rows(table, rule, observed, rows):
    (finding,) = check(table, rule)
    assert not finding.passed
    assert finding.assumption.severity == "fail"
    import re

    assert re.match(observed, finding.observed), finding.observed
    assert [row["n"] for row in finding.examples] == rows
    json.dumps(finding.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("listed", "broken"),
    [
        ([1, 0], ["x", "true"]),
        ([1.0, "x", 0, True], []),
        (["1", "x"], ["1.0", "true", "0"]),
        ([True, "0"], ["x", "1.0"]),
        ([0.1], ["1", "x", "1.0", "true", "0"]),
    ],
)
def test_numbers_and_booleans_among_texts_are_read_as_such(tmp_path, listed, broken):
    path = tmp_path / "texts.parquet"
    duckdb.sql(
        f"COPY (SELECT unnest(['1', 'x', '1.0', 'true', '0', NULL]) AS origin) TO '{path}' (FORMAT parquet)"
    )
    with duckdb.connect() as connection:
        rules = parse_assumptions([{"column": "origin", "one_of": listed}])
        (finding,) = check_table(
            connection, rules, path, {"origin": "string"}, order="origin", shown=["origin"]
        )
    assert sorted(row["origin"] for row in finding.examples) == sorted(broken)


def test_a_misnamed_column_fails_even_as_a_warning(table):
    (finding,) = check(table, {"column": "tmp", "not_null": True, "severity": "warn"})
    assert not finding.passed
    assert finding.assumption.severity == "fail"
    assert finding.observed == "no column 'tmp'; did you mean 'temp'?"


def test_all_rules_are_one_query():
    rules = parse_assumptions([{"column": "temp", "not_null": True}, {"unique": ["n"]}, {"min_rows": 1}])
    query = compile_check(rules, Table("t", TYPES, distinct=rules[1]))
    assert query.count("SELECT") == query.count("FROM") == 1


def test_the_summary_names_ten(table):
    findings = check(table, *[{"column": "id", "between": [0, high]} for high in range(12)])
    lines = summary(findings).splitlines()
    assert len(lines) == 11
    assert (
        lines[0]
        == "  id: expected between 0 and 0, observed 98 of 100 rows outside; values from 0 to 94 e.g. {'n': 1, 'id': 1}"
    )
    assert lines[-1] == "  … and 2 more"
    assert all(len(finding.examples) == 5 for finding in findings)


def test_a_bound_that_does_not_fit_its_column_is_the_specs_fault(table):
    for rule in ({"column": "id", "one_of": ["JFK"]}, {"column": "at", "between": [1, 2]}):
        with pytest.raises(SpecError, match="does not fit the type of its column"):
            check(table, rule)


@pytest.mark.parametrize(
    "rule",
    [
        {"column": "a"},
        {"column": "a", "unique": ["a"]},
        {"not_null": True},
        {"column": "a", "beween": [1, 2]},
        {"column": "a", "between": [1]},
        {"column": "a", "max_null_share": 2},
        {"column": "a", "one_of": []},
        {"min_rows": "many"},
        {"min_rows": 1, "severity": "ignore"},
    ],
)
def test_a_rule_that_is_none_is_refused(rule):
    with pytest.raises(SpecError, match="assumption 1"):
        parse_assumptions([rule])
