"""Files of a dataset version: every row once, the same bytes again."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.primitives.datasets.digest import logical_digest
from airflow_mlops.primitives.datasets.making import chunks
from airflow_mlops.primitives.datasets.making.chunks import Rows, check_join, divided, write_chunks
from airflow_mlops.primitives.datasets.splits.assign import Assignment, whole

ROLES = {"at": "timestamp", "text": "input", "x": "feature"}
BY_PART = Assignment(
    split="CASE WHEN e.__row % 3 = 0 THEN NULL ELSE e.__row % 3 - 1 END",
    fold="CASE WHEN e.__row % 3 = 1 THEN e.__row % 2 + 1 END",
    in_order=False,
)


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        connection.execute(
            "CREATE TABLE examples AS SELECT i AS __row, TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_hours(i * 7) AS at, "
            "i::VARCHAR AS text FROM range(200) t(i)"
        )
        connection.execute(
            "CREATE TABLE features AS SELECT range AS __row, range * 0.5 AS x, 'other' AS text FROM range(200) "
            "ORDER BY hash(range)"
        )
        yield connection


def write(connection, folder, assignment=BY_PART, stored=(), batch=64):
    folder.mkdir()
    query = divided(Rows("examples", "features"), ROLES, "at", assignment)
    batches = connection.execute(f"SELECT * FROM ({query}) ORDER BY __row").to_arrow_reader(batch)
    return write_chunks(batches, assignment, "at", folder, lambda digest: digest in stored)


def rows_of(files, chunk):
    return [int(text) for text in pq.read_table(files[chunk.digest])["text"].to_pylist()]


@pytest.mark.parametrize("batch", [1, 7, 70, 1000])
def test_files_are_splits_folds_and_months(connection, tmp_path, batch):
    found, files = write(connection, tmp_path / "out", batch=batch)
    months = [("2024-01-01", "2024-01-31"), ("2024-02-01", "2024-02-28")]
    assert [(chunk.split, chunk.fold) for chunk in found] == [
        *[("train", 1)] * 2,
        *[("train", 2)] * 2,
        *[("validation", None)] * 2,
    ]
    assert all(
        months[n % 2][0] <= chunk.start[:10] <= chunk.end[:10] <= months[n % 2][1]
        for n, chunk in enumerate(found)
    )
    assert sorted(row for chunk in found for row in rows_of(files, chunk)) == [n for n in range(200) if n % 3]
    for chunk in found:
        rows = rows_of(files, chunk)
        assert len(rows) == chunk.rows
        assert rows == sorted(rows)
        assert {n % 3 for n in rows} == {1 if chunk.split == "train" else 2}
        table = pq.read_table(files[chunk.digest])
        assert table.column_names == ["at", "text", "x"]
        assert table["x"].to_pylist() == [n * 0.5 for n in rows]
        assert logical_digest(table) == chunk.digest


def test_splits_that_follow_each_other_are_cut_in_order_of_time(connection, tmp_path):
    fold = "CASE WHEN e.__row % 50 >= 10 THEN e.__row // 50 END"
    assignment = Assignment(
        split="CASE WHEN e.__row < 150 THEN 0 ELSE 2 END", fold=fold, segment="(e.__row // 50)"
    )
    found, files = write(connection, tmp_path / "out", assignment)
    rows = [rows_of(files, chunk) for chunk in found]
    assert [row for some in rows for row in some] == list(range(200))
    assert [chunk.split for chunk in found] == sorted([chunk.split for chunk in found], reverse=True)
    # What a gap interrupts is several files, even within a month.
    assert [(chunk.fold, some[0]) for chunk, some in zip(found, rows, strict=True)][:4] == [
        (None, 0),
        (0, 10),
        (None, 50),
        (1, 60),
    ]
    assert all(one.end <= two.start for one, two in pairwise(found))


@pytest.mark.parametrize("held", [0, 3000, 1 << 30], ids=["nothing", "some", "all"])
@pytest.mark.parametrize("group", [7, 1 << 17])
def test_the_same_rows_give_the_same_bytes_however_much_is_held_back(
    connection, tmp_path, monkeypatch, held, group
):
    monkeypatch.setattr(chunks, "ROW_GROUP", group)
    _, first = write(connection, tmp_path / "1")
    monkeypatch.setattr(chunks, "HELD_BYTES", held)
    _, second = write(connection, tmp_path / "2", batch=11)
    assert {digest: _bytes(path) for digest, path in first.items()} == {
        digest: _bytes(path) for digest, path in second.items()
    }
    assert sorted(path.name for path in (tmp_path / "2").iterdir()) == sorted(
        f"{digest}.parquet" for digest in second
    )
    for path in second.values():
        metadata = pq.ParquetFile(path).metadata
        assert {metadata.row_group(n).num_rows for n in range(metadata.num_row_groups - 1)} <= {group}


@pytest.mark.parametrize("held", [0, 1 << 30], ids=["nothing", "all"])
def test_stored_chunks_are_not_written_again(connection, tmp_path, monkeypatch, held):
    monkeypatch.setattr(chunks, "HELD_BYTES", held)
    found, _ = write(connection, tmp_path / "1")
    again, files = write(connection, tmp_path / "2", stored=[found[0].digest])
    assert again == found
    assert list(files) == [chunk.digest for chunk in found[1:]]
    assert len(list((tmp_path / "2").iterdir())) == len(found) - 1


def test_an_error_of_a_writer_is_not_lost(connection, tmp_path):
    def broken(_):
        raise RuntimeError("the store is gone")

    query = divided(Rows("examples", "features"), ROLES, "at", whole("train"))
    batches = connection.execute(f"SELECT * FROM ({query}) ORDER BY __row").to_arrow_reader(64)
    with pytest.raises(RuntimeError, match="the store is gone"):
        write_chunks(batches, whole("train"), "at", tmp_path, broken)


def test_untouched_months_keep_their_files_in_a_longer_window(connection, tmp_path):
    longer, _ = write(connection, tmp_path / "1", whole("train"))
    connection.execute("DELETE FROM examples WHERE __row >= 150")
    shorter, _ = write(connection, tmp_path / "2", whole("train"))
    assert longer[:1] == shorter[:1]
    assert longer[1] != shorter[1]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sides=st.lists(st.sampled_from([None, 0, 1, 2]), min_size=200, max_size=200), batch=st.integers(1, 250)
)
def test_every_row_comes_out_once_on_its_side(tmp_path_factory, sides, batch):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        connection.execute("CREATE TABLE sides (n INTEGER, side INTEGER)")
        connection.executemany("INSERT INTO sides VALUES (?, ?)", list(enumerate(sides)))
        connection.execute(
            "CREATE TABLE examples AS SELECT n AS __row, TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_hours(n * 7) AS at, "
            "n::VARCHAR AS text, side FROM sides"
        )
        connection.execute("CREATE TABLE features AS SELECT __row, 1.0 AS x FROM examples")
        assignment = Assignment(split="e.side", in_order=False)
        found, files = write(connection, tmp_path_factory.mktemp("out") / "files", assignment, batch=batch)
    by_name = {None: None, 0: "train", 1: "validation", 2: "test"}
    came = {row: chunk.split for chunk in found for row in rows_of(files, chunk)}
    assert came == {n: by_name[side] for n, side in enumerate(sides) if side is not None}


@pytest.mark.parametrize(
    ("joined", "message"),
    [
        ("range(0, 199)", r"199 row\(s\) for 199 example\(s\) out of 200"),
        ("(FROM range(200) UNION ALL FROM range(1))", r"201 row\(s\) for 200 example\(s\)"),
    ],
)
def test_a_join_that_loses_or_repeats_examples_is_refused(connection, joined, message):
    with pytest.raises(FeatureStoreError, match=message):
        check_join(connection, f"(SELECT range AS __row FROM {joined})", 200)


def _bytes(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
