"""The ends of the window in a user's query: always parameters."""

from __future__ import annotations

import pytest

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.features.bound_sql import (
    names_in,
    newest_query,
    window_query,
    with_parameters,
    with_settings,
)

ENDS = {"after": 1, "until": 2}


def test_a_query_without_ends_is_wrapped():
    sql = window_query("SELECT * FROM t -- all\n;", "at", after=True, until=True)
    assert sql == "SELECT * FROM (\nSELECT * FROM t -- all\n) q WHERE q.at >= :after AND q.at <= :until"
    assert window_query("SELECT 1", "at", after=False, until=False) == "SELECT 1"
    assert window_query("SELECT 1", None, after=False, until=False) == "SELECT 1"


def test_a_strange_column_is_quoted():
    assert 'q."a ""b"' in window_query("SELECT 1", 'a "b', after=True, until=False)
    assert newest_query("SELECT 1;", "at") == "SELECT max(q.at) FROM (\nSELECT 1\n) q"


def test_ends_that_the_query_places_are_left_where_they_are():
    sql = "SELECT * FROM t WHERE a > :after"
    assert window_query(sql, "a", after=True, until=True) == sql
    with pytest.raises(SpecError, match="sql has :after, and there is no watermark"):
        window_query(sql, None, after=True, until=True)


@pytest.mark.parametrize(
    "text",
    [
        "':after'",
        "'it''s :after'",
        '":after"',
        "x::after",
        "-- :after",
        "/* :after */",
        "$$ :after $$",
        "$q$:after$q$",
        "col:after",
    ],
)
def test_what_only_looks_like_an_end(text):
    sql = f"SELECT {text}\n, 1"
    assert names_in(sql) == set()
    assert with_parameters(sql, ENDS, "?").values == ()


def test_parameters_in_the_order_of_the_text():
    query = with_parameters("SELECT :until, :after, :until", ENDS, "?")
    assert (query.sql, query.values) == ("SELECT ?, ?, ?", (2, 1, 2))


def test_per_cent_signs_survive_the_drivers_own_formatting():
    query = with_parameters("SELECT * FROM t WHERE n LIKE 'a%' AND x > :after", ENDS, "%s")
    assert query.sql % ("1",) == "SELECT * FROM t WHERE n LIKE 'a%' AND x > 1"
    assert with_parameters("SELECT 5 % 2", ENDS, "%s").sql == "SELECT 5 % 2"


def test_settings_of_a_session():
    assert (
        with_settings("a > :after", {"after": "timestamptz"})
        == "a > current_setting('airflow_mlops.after')::timestamptz"
    )


@pytest.mark.parametrize("sql", ["", " ; ", "SELECT '\0'"])
def test_no_query(sql):
    with pytest.raises(SpecError, match="sql"):
        window_query(sql, None, after=False, until=False)
