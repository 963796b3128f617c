"""One word for a value that is there: in SQL, NumPy and Arrow it says the same."""

from __future__ import annotations

import math

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from airflow_mlops.primitives.sql.present import (
    is_present,
    is_present_arrow,
    or_null_sql,
    present_sql,
    same_sql,
)

VALUES = [1.0, None, math.nan, math.inf, -0.0]
THERE = [True, False, False, True, True]


@pytest.mark.parametrize("type_", ["DOUBLE", "FLOAT"])
def test_sql_numpy_and_arrow_agree(type_):
    made = duckdb.sql(f"SELECT unnest(['1', NULL, 'nan', 'inf', '-0']::{type_}[]) AS v")
    found = made.project(
        f"{present_sql('v', type_)} AS there, {or_null_sql('v', type_)} IS NOT NULL AS kept"
    ).fetchall()
    assert found == [(there, there) for there in THERE]
    column = pa.chunked_array([pa.array(VALUES, pa.float64(), from_pandas=False)])
    assert is_present_arrow(column).to_pylist() == THERE
    masked = np.ma.masked_array([1.0, 5.0, math.nan, math.inf, -0.0], [False, True, False, False, False])
    assert is_present(masked).tolist() == THERE
    assert is_present(np.array(VALUES, dtype=object)).tolist() == THERE


def test_what_can_hold_no_nan_is_there_unless_it_is_null():
    assert duckdb.sql(
        f"SELECT {present_sql('v', 'VARCHAR')} FROM (VALUES ('nan'), (NULL), ('')) t(v)"
    ).fetchall() == [
        (True,),
        (False,),
        (True,),
    ]
    assert is_present(np.array([1, 2])).all()
    assert is_present_arrow(pa.chunked_array([["NaN", None]])).to_pylist() == [True, False]


def test_values_that_are_not_there_are_the_same():
    condition = same_sql("a", "DOUBLE", "b", "BIGINT")
    pairs = "(VALUES (1.0::DOUBLE, 1::BIGINT), ('nan', NULL), (NULL, NULL), (1, 2), (NULL, 1), ('nan', 1)) t(a, b)"
    assert [found for (found,) in duckdb.sql(f"SELECT {condition} FROM {pairs}").fetchall()] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
