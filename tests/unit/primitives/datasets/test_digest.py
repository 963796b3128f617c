"""The digest sees values, not layouts."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.primitives.datasets.digest import logical_digest

TABLE = pa.table(
    {
        "text": pa.array(["a", None, "", "ü", "a"] * 20),
        "raw": pa.array([b"\0", None, b"", b"x", b"yy"] * 20),
        "flag": pa.array([True, None, False, True, False] * 20),
        "small": pa.array([1, None, -3, 4, 5] * 20, pa.int8()),
        "number": pa.array([1.5, None, float("nan"), -0.0, 1e300] * 20),
        "when": pa.array(
            [datetime(2024, 1, 1, 0, 0, s, tzinfo=UTC) for s in range(5)] * 20, pa.timestamp("us", "UTC")
        ),
        "day": pa.array([None, 1, 2, 3, 4] * 20, pa.date32()),
        "price": pa.array([Decimal("1.10"), None, Decimal(0), Decimal(1), Decimal(2)] * 20),
        "vector": pa.array([[1.0, None], None, [], [2.0], [3.0]] * 20),
    }
)


def test_the_digest_of_old_data_never_changes():
    assert logical_digest(TABLE) == "42824ebf912d35954d42a09159bb47a775eddc833c63097a2251203bf1078050"


def test_chunks_slices_and_the_bytes_under_nulls_do_not_count():
    pieces = pa.concat_tables([TABLE.slice(0, 7), TABLE.slice(7, 1), TABLE.slice(8)])
    assert logical_digest(pieces) == logical_digest(TABLE)
    dirty = pa.array(np.arange(100, dtype="int8"), mask=np.arange(100) % 5 == 1)
    clean = pa.array([None if i % 5 == 1 else i for i in range(100)], pa.int8())
    assert dirty.buffers()[1].to_pybytes() != clean.buffers()[1].to_pybytes()
    assert logical_digest(pa.table({"x": dirty})) == logical_digest(pa.table({"x": clean}))


def test_ways_to_store_the_same_values_do_not_count():
    other = TABLE
    for name, kind in {
        "text": pa.dictionary(pa.int32(), pa.string()),
        "raw": pa.large_binary(),
        "when": pa.timestamp("ns", "UTC"),
    }.items():
        column = TABLE.column(name)
        column = column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
        other = other.set_column(other.column_names.index(name), name, column)
    assert other.schema != TABLE.schema
    assert logical_digest(other) == logical_digest(TABLE)
    assert logical_digest(
        TABLE.set_column(0, "text", TABLE["text"].cast(pa.large_string()))
    ) == logical_digest(TABLE)


def test_parquet_and_duckdb_bring_the_same_digest_back(tmp_path):
    first, second = tmp_path / "1.parquet", tmp_path / "2.parquet"
    pq.write_table(TABLE, first, row_group_size=9, compression="snappy")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        connection.execute(f"COPY (SELECT * FROM '{first}') TO '{second}' (FORMAT parquet)")
    assert logical_digest(pq.read_table(first)) == logical_digest(TABLE)
    assert logical_digest(pq.read_table(second)) == logical_digest(TABLE)


@pytest.mark.parametrize(
    "other",
    [
        TABLE.take([1, 0, *range(2, 100)]),
        TABLE.slice(0, 99),
        TABLE.rename_columns(["t", *TABLE.column_names[1:]]),
        TABLE.select(TABLE.column_names[::-1]),
        TABLE.set_column(3, "small", TABLE["small"].cast(pa.int16())),
        TABLE.set_column(4, "number", TABLE["number"].fill_null(0.0)),
        TABLE.set_column(0, "text", TABLE["text"].fill_null("")),
        TABLE.set_column(2, "flag", TABLE["flag"].fill_null(False)),
    ],
)
def test_another_content_is_another_digest(other):
    assert logical_digest(other) != logical_digest(TABLE)


def test_where_one_text_ends_counts():
    assert logical_digest(pa.table({"x": ["ab", "c"]})) != logical_digest(pa.table({"x": ["a", "bc"]}))


def test_no_rows_have_a_digest_too():
    assert logical_digest(TABLE.slice(0, 0)) == logical_digest(TABLE.schema.empty_table())
