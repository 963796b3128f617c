"""The SQL that makes a target of two values 0 or 1."""

from __future__ import annotations

import duckdb
import pytest

from airflow_mlops.primitives.statistics.coding import binary_sql, is_binary


@pytest.mark.parametrize(
    ("type_", "no", "yes"),
    [
        ("INTEGER", -1, 1),
        ("DOUBLE", 0.0, 2.0),
        ("VARCHAR", "0", "1"),
        ("VARCHAR", "True", "False"),
        ("VARCHAR", "yes", "no"),
        ("VARCHAR", "it's", "other"),
    ],
)
def test_it_gives_0_and_1_and_leaves_null(type_, no, yes):
    sql = binary_sql("the target", [no, yes])
    with duckdb.connect() as connection:
        connection.execute(f'CREATE TABLE t ("the target" {type_})')
        connection.executemany("INSERT INTO t VALUES (?)", [[no], [yes], [None]])
        found = connection.execute(f"SELECT {sql} FROM t").fetchall()
    assert {found[0][0], found[1][0]} == {0, 1}
    assert found[2] == (None,)
    if str(yes).lower() in ("1", "yes"):
        assert found[1] == (1,)


def test_text_is_not_binary():
    assert is_binary([0, 1, True, 0.0])
    assert not is_binary(["0", "1"])
    assert not is_binary([1, 2])
