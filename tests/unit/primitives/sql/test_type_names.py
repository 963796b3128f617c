from __future__ import annotations

import pytest

from airflow_mlops.primitives.sql.type_names import same_type


@pytest.mark.parametrize(
    ("arrow", "duckdb"),
    [
        ("decimal128(10, 2)", "DECIMAL(10,2)"),
        ("decimal128(10, 0)", "numeric(10)"),
        ("list<element: double>", "DOUBLE[]"),
        ("list<item: double not null>", "double[]"),
        ("list<element: list<element: int32>>", "INTEGER[][]"),
        ("struct<a: int64, b: list<element: string>>", "STRUCT(a BIGINT, b VARCHAR[])"),
        ("struct<a: decimal128(5, 1)>", 'struct("a" decimal(5,1))'),
        ("map<string, int32>", "MAP(VARCHAR, INTEGER)"),
        ("timestamp[us, tz=UTC]", "TIMESTAMP WITH TIME ZONE"),
        ("uint8", "UTINYINT"),
        ("binary", "BLOB"),
        ("float", "REAL"),
    ],
)
def test_names_of_one_type(arrow, duckdb):
    assert same_type(arrow, duckdb)
    assert same_type(duckdb, arrow)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("decimal128(10, 2)", "DECIMAL(10,3)"),
        ("list<element: double>", "FLOAT[]"),
        ("struct<a: int64>", "STRUCT(a INTEGER)"),
        ("struct<a: int64>", "STRUCT(b BIGINT)"),
        ("double", "DOUBLE[]"),
        ("int64", "uint64"),
    ],
)
def test_names_of_different_types(one, other):
    assert not same_type(one, other)
