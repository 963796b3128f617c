"""Rows of a cursor as one Arrow schema, however their values come."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import SourceError
from airflow_mlops.hooks.sources.arrow import batch_of, write_batches

NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - a time without zone is what it is about
EAST = timezone(timedelta(hours=5))


@pytest.mark.parametrize(
    ("values", "kind", "first"),
    [
        ((1, None), "int64", 1),
        ((True, None), "bool", True),
        ((1, 2.5), "double", 1.0),
        ((Decimal("1.50"), 2), "decimal128(3, 2)", Decimal("1.50")),
        ((Decimal("1.5"), 2.5), "double", 1.5),
        ((NAIVE, None), "timestamp[us]", NAIVE),
        (
            (datetime(2026, 1, 1, 5, tzinfo=EAST), datetime(2026, 1, 1, tzinfo=UTC)),
            "timestamp[us, tz=UTC]",
            datetime(2026, 1, 1, tzinfo=UTC),
        ),
        ((date(2026, 1, 1),), "date32[day]", date(2026, 1, 1)),
        ((memoryview(b"x"), b"y"), "binary", b"x"),
        ((UUID(int=1),), "string", "00000000-0000-0000-0000-000000000001"),
        (({"b": 1, "a": [2]},), "string", '{"a": [2], "b": 1}'),
        (([1, 2], None), "list<item: int64>", [1, 2]),
        ((None, None), "null", None),
    ],
)
def test_types_of_values(values, kind, first):
    batch = batch_of(["c"], [(value,) for value in values])
    assert str(batch.schema.field("c").type) == kind
    assert batch.column(0)[0].as_py() == first


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((NAIVE, datetime(2026, 1, 1, tzinfo=UTC)), "mixes times with and without a time zone"),
        ((1, "x"), "mixes types: .*1 str"),
        ((True, 2), "mixes types"),
        ((date(2026, 1, 1), NAIVE), "a date is no time"),
        ((2**70,), r"'c' \(int\) has no column type"),
        ((object(),), r"'c' \(object\) has no column type"),
    ],
)
def test_values_that_make_no_column(values, message):
    with pytest.raises(SourceError, match=f"{message}.*Cure"):
        batch_of(["c"], [(value,) for value in values])


def test_later_batches_widen_a_type_and_earlier_files_follow(tmp_path):
    batches = [[(None,), (1,)], [(2,), (None,)], [(2.5,), (3,)]]
    files = write_batches((batch_of(["c"], rows) for rows in batches), tmp_path)
    tables = [pq.read_table(file) for file in files]
    assert {str(table.schema.field("c").type) for table in tables} == {"double"}
    assert [value for table in tables for value in table["c"].to_pylist()] == [None, 1.0, 2.0, None, 2.5, 3.0]


def test_decimals_take_the_digits_of_all(tmp_path):
    values = [Decimal("1.5"), Decimal("1234567.25"), Decimal("0.0000001")]
    files = write_batches((batch_of(["c"], [(value,)]) for value in values), tmp_path)
    assert [pq.read_table(file)["c"][0].as_py() for file in files] == values


def test_a_whole_number_that_a_float_cannot_hold_is_told(tmp_path):
    batches = [[(2**53 + 1,)], [(0.5,)]]
    with pytest.raises(SourceError, match=r"changes from int64 to double.*Cure"):
        write_batches((batch_of(["c"], rows) for rows in batches), tmp_path)


def test_a_column_that_turns_into_another_type_is_told(tmp_path):
    batches = [[(1,)] * 3, [("x",)]]
    with pytest.raises(SourceError, match="'c' is int64 in the first 3 rows and string behind"):
        write_batches((batch_of(["c"], rows) for rows in batches), tmp_path)


def test_no_rows_are_a_file_without_rows(tmp_path):
    (file,) = write_batches([batch_of(["a", "b"], [])], tmp_path)
    assert pq.read_metadata(file).num_rows == 0
