import json
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import DataError, SourceError
from airflow_mlops.primitives.statistics.bins import (
    CategoricalColumn,
    NumericColumn,
    Reference,
    UncomparedColumn,
    build_reference,
    count_column,
    count_like,
)


def chunked(values, type_=None):
    return pa.chunked_array([pa.array(values, type=type_)])


def test_a_quantity_is_counted_exactly_and_nothing_is_lost():
    values = [*np.random.default_rng(0).normal(size=5000), None, float("nan"), float("inf")]
    column = count_column(chunked(values))
    assert isinstance(column, NumericColumn)
    assert len(column.edges) == 63
    assert len(column.counts) == 64
    assert sum(column.counts) == 5001
    assert column.missing == 2
    assert column.counts[-1] >= 1


def test_bins_hold_their_upper_edge():
    column = NumericColumn((1.0, 2.0), (0, 0, 0), 0)
    assert column.count(chunked([0.5, 1.0, 1.5, 2.0, 2.5])).counts == (2, 2, 1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 2, 1, None], {"1": 2, "2": 2}),
        ([1.0, 2.0, 2.0, 1.0, float("nan")], {"1": 2, "2": 2}),
        ([0.5, 0.5, 2.0, None, None], {"0.5": 2, "2": 1}),
        ([True, False, True], {"false": 1, "true": 2}),
        (["EWR", "JFK", None], {"EWR": 1, "JFK": 1}),
        ([Decimal("1.5"), Decimal("2.0")], {"1.5": 1, "2": 1}),
    ],
)
def test_values_that_are_no_quantity_are_counted_by_name(values, expected):
    column = count_column(chunked(values))
    assert isinstance(column, CategoricalColumn)
    assert column.counts == expected
    assert column.missing == len(values) - sum(expected.values())


def test_dictionary_encoded_text_counts_as_text():
    column = count_column(chunked(["a", "b", "a", None]).dictionary_encode())
    assert column == CategoricalColumn({"a": 2, "b": 1}, 1)


def test_texts_are_compared_letter_by_letter_with_a_reference_of_an_older_release_too():
    old = Reference.from_json(
        {
            "format": 1,
            "dataset_id": "d",
            "rows": 2,
            "columns": {"v": {"kind": "categorical", "counts": {"1.1": 2}, "missing": 0}},
        }
    )
    assert old.columns["v"].count(chunked(["1.1", "1.10"])).counts == {"1.1": 1, "1.10": 1}
    assert old.columns["v"].count(chunked([1.1])).counts == {"1.1": 1}


def test_identifiers_and_times_are_not_compared_and_say_why():
    assert "identifier" in count_column(chunked([f"N{i}" for i in range(10_001)])).reason
    assert "timestamp" in count_column(chunked([datetime(2013, 1, 1, tzinfo=UTC)])).reason


def test_a_window_of_nothing_but_missing_numbers_counts_as_missing():
    reference = count_column(chunked(np.arange(100.0)))
    counted = count_like(reference, "temp", chunked([None] * 7))
    assert (sum(counted.counts), counted.missing) == (0, 7)


def test_text_where_the_training_data_had_numbers_is_named():
    with pytest.raises(SourceError, match="Column temp: expected numbers"):
        count_like(count_column(chunked(np.arange(100.0))), "temp", chunked(["warm", "cold"]))


def test_files_of_one_split_count_together_and_survive_json(tmp_path):
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        table = pa.table(
            {"x": rng.normal(size=500), "c": ["u", "v"] * 250, "t": [datetime(2013, 1, 1, tzinfo=UTC)] * 500}
        )
        pq.write_table(table, tmp_path / f"{name}.parquet")
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    reference = build_reference("d1", paths, ["x", "c", "t"])
    assert reference.rows == 1000
    assert reference.columns["c"].counts == {"u": 500, "v": 500}
    assert isinstance(reference.columns["t"], UncomparedColumn)
    assert Reference.from_json(json.loads(json.dumps(reference.to_json(), allow_nan=False))) == reference


def test_a_missing_column_is_named_with_the_file_and_the_cure(tmp_path):
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "month.parquet")
    with pytest.raises(
        SourceError, match=r"month\.parquet lacks 1 column: wind_speed\. It has: x\..*bring it back"
    ):
        build_reference("d1", [tmp_path / "month.parquet"], ["x", "wind_speed"])


def test_no_file_at_all_is_an_error():
    with pytest.raises(SourceError, match="empty split"):
        build_reference("d1", [], ["x"])


def test_a_reference_of_another_release_is_refused():
    with pytest.raises(DataError, match="expected format 1, got 99"):
        Reference.from_json({"format": 99, "dataset_id": "d1"})
