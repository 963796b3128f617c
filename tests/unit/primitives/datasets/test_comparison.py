"""How two dataset versions differ."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import DataError
from airflow_mlops.primitives.datasets.column_statistics import compare_distributions, psi
from airflow_mlops.primitives.datasets.comparison import (
    Side,
    compare_manifests,
    compare_pins,
    compare_rows,
)
from airflow_mlops.primitives.datasets.manifest import Chunk, Column, Manifest

START = datetime(2024, 1, 1, tzinfo=UTC)
COLUMNS = (
    Column("id", "int64", "key"),
    Column("at", "timestamp[us, tz=UTC]", "timestamp"),
    Column("city", "string", "input"),
    Column("temp", "double", "feature", "weather:temp"),
    Column("late", "bool", "target"),
)


def rows(first, last, **changed):
    numbers = range(first, last)
    columns = {
        "id": pa.array(numbers, pa.int64()),
        "at": pa.array([START + timedelta(hours=n) for n in numbers], pa.timestamp("us", "UTC")),
        "city": ["ABC"[n % 3] for n in numbers],
        "temp": pa.array([float(n % 10) for n in numbers], pa.float64()),
        "late": [n % 4 == 0 for n in numbers],
    }
    return pa.table(columns | changed)


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        yield connection


@pytest.fixture
def side(tmp_path):
    def make(*chunks, **fields):
        """A version of chunks (split, table)."""
        files, listed = {}, []
        for split, table in chunks:
            digest = f"{hash((split, str(table.to_pydict()))):x}"
            files[digest] = tmp_path / f"{digest} [x].parquet"
            pq.write_table(table, files[digest])
            listed.append(Chunk(digest, split, table.num_rows, "2024", "2024"))
        given = {"columns": COLUMNS, "window": ("2024", "2025"), **fields}
        return Side(Manifest("app", "training", chunks=tuple(listed), **given), files)

    return make


def test_the_same_version_does_not_differ(connection, side):
    one = side(("train", rows(0, 20)), ("test", rows(20, 30)))
    found = compare_manifests(one.manifest, one.manifest)
    assert found["same"]
    assert found["rules"] == {}
    assert found["columns"] == {"added": [], "removed": [], "changed": [], "moved": False}
    changes = compare_rows(connection, one, one)
    assert [changes[kind]["rows"] for kind in ("added", "removed", "changed", "moved")] == [0, 0, 0, 0]


def test_rows_are_told_apart_by_keys_and_time(connection, side):
    old = side(("train", rows(0, 10)), ("test", rows(10, 20)))
    temp = [float(n % 10) for n in range(2, 12)]
    temp[3] = -1.0
    city = ["ABC"[n % 3] for n in range(2, 12)]
    city[3], city[4] = "Z", None
    new = side(("train", rows(2, 12, temp=temp, city=city)), ("test", rows(12, 26)))
    found = compare_rows(connection, old, new)
    assert {kind: found[kind]["rows"] for kind in found} == {
        "added": 6,
        "removed": 2,
        "changed": 2,
        "moved": 2,
    }
    assert [row["keys"]["id"] for row in found["added"]["examples"]] == [20, 21, 22, 23, 24]
    assert found["removed"]["examples"][0] == {"keys": {"id": 0, "at": "2024-01-01 00:00:00+00"}}
    assert found["moved"]["examples"][0]["split"] == ["test", "train"]
    assert found["changed"]["columns"] == {"city": 2, "temp": 1}
    assert [row["values"] for row in found["changed"]["examples"]] == [
        {"city": ["C", "Z"], "temp": [5.0, -1.0]},
        {"city": ["A", None]},
    ]


def test_null_keys_and_values_that_are_no_number_are_equal_to_themselves(connection, side):
    ids = pa.array([None, 1, 2], pa.int64())
    nan = pa.array([float("nan"), None, 0.0])
    old = side(("train", rows(0, 3, id=ids, temp=nan)))
    new = side(("train", rows(0, 3, id=ids, temp=nan, city=["A", "B", "X"])))
    found = compare_rows(connection, old, new)
    assert {kind: found[kind]["rows"] for kind in found} == {
        "added": 0,
        "removed": 0,
        "changed": 1,
        "moved": 0,
    }
    assert found["changed"]["examples"][0]["values"] == {"city": ["C", "X"]}


def test_shared_chunks_are_not_read(connection, side):
    old = side(("train", rows(0, 10)), ("test", rows(10, 20)))
    new = side(("train", rows(0, 10)), ("test", rows(10, 21)))
    (shared,) = {c.digest for c in old.manifest.chunks} & {c.digest for c in new.manifest.chunks}
    old.files[shared].unlink()
    assert compare_rows(connection, old, new)["added"]["rows"] == 1


def test_columns_that_came_went_and_changed(connection, side):
    old = side(("train", rows(0, 4)))
    columns = (
        *COLUMNS[:2],
        replace(COLUMNS[3], type="string"),
        replace(COLUMNS[2], role="feature", reference="places:city"),
        Column("wind", "double", "feature", "weather:wind"),
    )
    table = rows(0, 4, temp=["0.0", "1.0", "2.0", "9.0"]).drop_columns(["late"])
    new = side(("train", table.append_column("wind", pa.array([1.0] * 4))), columns=columns)
    found = compare_manifests(old.manifest, new.manifest)["columns"]
    assert [column["column"] for column in found["added"]] == ["wind"]
    assert [column["column"] for column in found["removed"]] == ["late"]
    assert found["changed"] == [
        {"column": "city", "role": ["input", "feature"], "reference": [None, "places:city"]},
        {"column": "temp", "type": ["double", "string"]},
    ]
    assert found["moved"]
    assert compare_rows(connection, old, new)["changed"]["columns"] == {"temp": 1}


def test_rules_that_differ_are_named_with_both_values(side):
    one = side(("train", rows(0, 4)), split={"by": "time", "gap_seconds": 0, "bounds": {"x": 1}}).manifest
    other = replace(
        one,
        split={"by": "time", "gap_seconds": 60, "bounds": {"x": 2}},
        features={"service": "v2", "views": []},
        window=("2024", "2026"),
    )
    rules = compare_manifests(one, other)["rules"]
    assert sorted(rules) == ["features", "split", "window"]
    assert rules["split"] == [{"by": "time", "gap_seconds": 0}, {"by": "time", "gap_seconds": 60}]
    assert rules["features"] == [None, {"service": "v2", "views": []}]


def test_sources_that_came_went_and_changed():
    def pin(name, size):
        return {"of": "examples", "pattern": "*", "file": name, "bytes": size}

    found = compare_pins([pin("a", 1), pin("b", 1)], [pin("b", 2), pin("c", 1)])
    assert [one["file"] for one in found["added"]] == ["c"]
    assert [one["file"] for one in found["removed"]] == ["a"]
    assert found["changed"] == [
        {"of": "examples", "pattern": "*", "file": "b", "before": pin("b", 1), "after": pin("b", 2)}
    ]


def test_other_keys_cannot_be_compared(connection, side):
    old = side(("train", rows(0, 4)))
    new = side(("train", rows(0, 4)), columns=(replace(COLUMNS[0], role="input"), *COLUMNS[1:]))
    with pytest.raises(
        DataError, match="cannot be told apart by the same keys: id, at in the first, at in the"
    ):
        compare_rows(connection, old, new)


def test_a_column_that_moved_stands_out(connection, side):
    old = side(("train", rows(0, 1000)))
    temp = [n % 10 + 20.0 if n % 2 else None for n in range(1000)]
    new = side(("train", rows(0, 1000, temp=temp)))
    found = {one["column"]: one for one in compare_distributions(connection, old, new)}
    assert sorted(found) == ["city", "late", "temp"]
    assert found["temp"]["psi"] > 1
    assert found["temp"]["missing"] == [0.0, 0.5]
    assert found["temp"]["mean"] == [4.5, 25.0]
    assert found["city"]["psi"] == 0.0
    assert found["city"]["top"]["A"] == [0.334, 0.334]
    assert found["late"]["top"] == {"false": [0.75, 0.75], "true": [0.25, 0.25]}


def test_constant_missing_and_infinite_values_have_figures(connection, side):
    odd = pa.array([float("inf"), float("nan"), None, 1.0])
    old = side(("train", rows(0, 4, temp=odd, city=pa.nulls(4, pa.string()))))
    new = side(("train", rows(0, 4, temp=pa.nulls(4, pa.float64()))))
    found = {one["column"]: one for one in compare_distributions(connection, old, new)}
    assert found["temp"]["mean"] == [1.0, None]
    assert found["temp"]["missing"] == [0.75, 1.0]
    assert found["city"]["missing"] == [1.0, 0.0]
    assert found["city"]["psi"] > 1


def test_psi():
    assert psi([10, 10], [20, 20]) == 0
    assert psi([50, 50], [80, 20]) == pytest.approx(0.3 * 0.4700036 + 0.3 * 0.9162907, abs=1e-6)
    assert psi([0, 0], [1, 1]) == 0


@pytest.mark.parametrize("kind", ["string", "double"])
def test_wide_versions_are_compared_by_a_few_columns_a_query(connection, side, kind):
    values = ["a", "b", "b", None] if kind == "string" else [1.0, 2.0, 2.0, None]
    longest, queries = {}, {}
    for count in (100, 400):
        names = [f"c{n}" for n in range(count)]
        columns = tuple(Column(name, kind, "input") for name in names)
        old, new = (
            side(("train", pa.table(dict.fromkeys(names, some))), columns=columns)
            for some in (values, values[::-1])
        )
        said = []

        class Listening:
            def execute(self, sql, said=said):
                said.append(sql)
                return connection.execute(sql)

        found = compare_distributions(Listening(), old, new)
        assert [column["column"] for column in found] == names
        assert {column["psi"] for column in found} == {0.0}
        longest[count], queries[count] = max(sql.count('"c') for sql in said), len(said)
    assert longest[400] == longest[100], "no query grows with the columns"
    assert queries[400] < 60
