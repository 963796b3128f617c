"""Types of a feature table, and which rows are new to it; held against a plain reference."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_mlops.exceptions import DataError, SourceError
from airflow_mlops.primitives.features.parts import write_parts
from airflow_mlops.primitives.features.publication import Published, find_new, normalise
from airflow_mlops.primitives.features.schema import arrow_type, fit, word_of
from airflow_mlops.primitives.features.snapshot import TableRule

START = datetime(2026, 1, 1, tzinfo=UTC)
MOMENT = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def connection():
    opened = duckdb.connect()
    opened.execute("SET TimeZone='UTC'")
    return opened


def write(path: Path, rows: list[tuple], *, wind: bool = False) -> Path:
    schema = [("id", pa.int64()), ("seen", pa.timestamp("us", tz="UTC")), ("x", pa.float64())]
    schema += [("wind", pa.int32())] if wind else []
    columns = list(zip(*rows, strict=True)) or [[] for _ in schema]
    arrays = [pa.array(values, kind) for values, (_, kind) in zip(columns, schema, strict=True)]
    pq.write_table(pa.table(arrays, names=[name for name, _ in schema]), path)
    return path


def publish(connection, rule, file, files, columns, folder) -> tuple[list[tuple], list[Path], dict]:
    """New rows of a file, the files they become, and the columns."""
    batch = normalise(connection, rule, [file], columns, folder / "batch.parquet")
    fresh = find_new(connection, rule, batch, Published(files, columns), MOMENT, folder / "fresh.parquet")
    parts = list(write_parts(connection, rule, fresh, folder / "parts")) if fresh.rows else []
    rows = [row for _, path in parts for row in pq.read_table(path).to_pylist()]
    return rows, [path for _, path in parts], {**columns, **fresh.columns}


rows_of_batch = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 4), st.sampled_from([None, 0.0, 1.5])), min_size=0, max_size=8
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(rows_of_batch, min_size=1, max_size=4))
def test_batches_one_after_the_other_are_what_a_plain_loop_makes(connection, tmp_path_factory, batches):
    """With created in the rows: each distinct row once, a second value of one moment refused."""
    folder = tmp_path_factory.mktemp("p")
    rule = TableRule("seen", ("id",), partition="day")
    there: set[tuple] = set()
    files: dict[int, list[Path]] = {}
    columns: dict[str, str] = {}
    for number, batch in enumerate(batches):
        rows = [(key, START + timedelta(hours=9 * at), value) for key, at, value in batch]
        file = write(folder / f"{number}.parquet", rows)
        expected = set(rows) - there
        known = {row[:2] for row in there}
        clash = len({row[:2] for row in expected}) < len(expected) or any(
            row[:2] in known for row in expected
        )
        place = folder / str(number)
        place.mkdir()
        if clash:
            with pytest.raises(DataError):
                publish(connection, rule, file, files, columns, place)
            continue
        new, paths, columns = publish(connection, rule, file, files, columns, place)
        assert {(row["id"], row["seen"], row["x"]) for row in new} == expected
        assert len(new) == len(expected)
        there |= expected
        files.setdefault(3, []).extend(paths)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(rows_of_batch, min_size=1, max_size=5))
def test_corrections_that_the_publication_dates_are_versions_in_their_order(
    connection, tmp_path_factory, batches
):
    """Created by the publication: what was known at any moment is what a plain loop remembers of it."""
    folder = tmp_path_factory.mktemp("p")
    rule = TableRule("seen", ("id",), created="published_at", partition="month")
    versions: dict[tuple, list[float | None]] = {}
    files: dict[int, list[Path]] = {}
    columns: dict[str, str] = {}
    rows: list[dict] = []
    for number, batch in enumerate(batches):
        latest = {(key, START + timedelta(hours=9 * at)): value for key, at, value in batch}
        file = write(folder / f"{number}.parquet", [(*name, value) for name, value in latest.items()])
        place = folder / str(number)
        place.mkdir()
        new, paths, columns = publish(connection, rule, file, files, columns, place)
        files.setdefault(4, []).extend(paths)
        rows += new
        for name, value in latest.items():
            if name not in versions or versions[name][-1] != value:
                versions.setdefault(name, []).append(value)
    found: dict[tuple, list[float | None]] = {}
    for row in sorted(rows, key=lambda row: row["published_at"]):
        name = (row["id"], row["seen"])
        assert (row["published_at"] == row["seen"]) == (name not in found)
        found.setdefault(name, []).append(row["x"])
    assert found == versions


def test_rows_are_cut_by_day_in_utc_and_sorted(connection, tmp_path):
    rule = TableRule("seen", ("id",), partition="day")
    rows = [(2, START + timedelta(hours=25), 1.0), (1, START + timedelta(hours=25), 2.0), (1, START, 3.0)]
    file = write(tmp_path / "a.parquet", rows)
    batch = normalise(connection, rule, [file], {}, tmp_path / "b.parquet")
    fresh = find_new(connection, rule, batch, Published({}, {}), MOMENT, tmp_path / "f.parquet")
    parts = [part for part, _ in write_parts(connection, rule, fresh, tmp_path / "parts")]
    assert [part.file.split("/")[0] for part in parts] == ["event_day=2026-01-01", "event_day=2026-01-02"]
    assert [part.rows for part in parts] == [1, 2]
    assert parts[1].first == parts[1].last == "2026-01-02T01:00:00.000000+00:00"
    (path,) = (tmp_path / "parts").glob("event_day=2026-01-02/*.parquet")
    assert pq.ParquetFile(path).read()["id"].to_pylist() == [1, 2]


def test_large_partitions_become_several_files(connection, tmp_path, monkeypatch):
    import airflow_mlops.primitives.features.parts as module

    monkeypatch.setattr(module, "FILE_ROWS", 4)
    rule = TableRule("seen", ("id",), partition="year")
    file = write(tmp_path / "a.parquet", [(n, START, float(n)) for n in range(10)])
    rows, paths, _ = publish(connection, rule, file, {}, {}, tmp_path)
    assert sorted(pq.read_metadata(path).num_rows for path in paths) == [2, 4, 4]
    assert [row["id"] for row in rows] == list(range(10))


def test_a_column_that_came_later_is_not_compared_with_rows_from_before(connection, tmp_path):
    rule = TableRule("seen", ("id",), partition="year")
    old = write(tmp_path / "old.parquet", [(1, START, 1.0)])
    _, files, columns = publish(connection, rule, old, {}, {}, tmp_path)
    both = write(tmp_path / "new.parquet", [(1, START, 1.0, 5), (2, START, 2.0, 6)], wind=True)
    new, more, columns = publish(connection, rule, both, {3: files}, columns, tmp_path)
    assert [row["id"] for row in new] == [2]
    again, _, _ = publish(connection, rule, both, {3: files, 4: more}, columns, tmp_path)
    assert again == []
    changed = write(tmp_path / "changed.parquet", [(2, START, 2.0, 7)], wind=True)
    with pytest.raises(DataError, match="id=2"):
        publish(connection, rule, changed, {3: files, 4: more}, columns, tmp_path)


class TestTypes:
    @pytest.mark.parametrize(
        ("kind", "word"),
        [
            ("TINYINT", "int32"),
            ("HUGEINT", "int64"),
            ("DECIMAL(10,0)", "int64"),
            ("DECIMAL(10,2)", "float64"),
            ("DECIMAL(38,0)", "float64"),
            ("VARCHAR[]", "list[string]"),
            ("FLOAT[3]", "list[float32]"),
            ("TIMESTAMP_NS", "timestamp"),
            ("ENUM('a', 'b')", "string"),
            ("UUID", "string"),
        ],
    )
    def test_words(self, kind, word):
        assert word_of(kind, "c") == word
        assert arrow_type(word) is not None

    @pytest.mark.parametrize("kind", ["STRUCT(a INTEGER)", "TIME", "INTERVAL", "MAP(VARCHAR, INTEGER)"])
    def test_what_no_feature_can_be(self, kind):
        with pytest.raises(SourceError, match=r"column 'c' is .*Cure"):
            word_of(kind, "c")

    @pytest.mark.parametrize(
        ("values", "published", "fits"),
        [
            ("1::BIGINT", "int32", True),
            ("5000000000::BIGINT", "int32", False),
            ("3.0::DOUBLE", "int64", True),
            ("3.5::DOUBLE", "int64", False),
            ("9007199254740993::BIGINT", "float64", False),
            ("NULL::BIGINT", "string", True),
            ("'7'", "int64", False),
            ("1::INT", "string", False),
            ("0.1::DECIMAL(5,2)", "float64", True),
            ("DATE '2026-01-01'", "timestamp", False),
            ("1e300::DOUBLE", "float32", False),
        ],
    )
    def test_values_that_stay_what_they_are_may_come_as_another_number(
        self, connection, values, published, fits
    ):
        relation = f"(SELECT {values} AS c)"
        if fits:
            assert fit(connection, relation, {"c": published}) == {"c": published}
        else:
            with pytest.raises(SourceError, match=f"'c' is .* is published as {published}.*Cure"):
                fit(connection, relation, {"c": published})
