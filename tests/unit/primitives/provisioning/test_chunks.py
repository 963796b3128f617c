"""Files of a dataset version: every row once, the same bytes again."""

from __future__ import annotations

import hashlib

import duckdb
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.primitives.provisioning import chunks
from airflow_mlops.primitives.provisioning.chunks import merge_features, write_chunks
from airflow_mlops.primitives.provisioning.split import Piece

PIECES = [Piece("train", 0, 70), Piece("train", 70, 71), Piece("test", 90, 200)]


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        yield connection


@pytest.fixture
def dataset(connection, tmp_path):
    path = tmp_path / "dataset.parquet"
    connection.execute(
        "COPY (SELECT i AS __row, TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_hours(i) AS at, "
        f"i::VARCHAR AS text FROM range(200) t(i)) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 2048)"
    )
    return path


def cut(dataset, folder, stored=()):
    folder.mkdir()
    return write_chunks(dataset, PIECES, "at", folder, lambda digest: digest in stored)


@pytest.mark.parametrize("batch", [1, 7, 70, 1000])
def test_rows_are_cut_where_asked(dataset, tmp_path, monkeypatch, batch):
    monkeypatch.setattr(chunks, "_BATCH", batch)
    found, files = cut(dataset, tmp_path / "out")
    texts = [pq.read_table(files[chunk.digest])["text"].to_pylist() for chunk in found]
    assert texts == [[str(row) for row in range(piece.first, piece.stop)] for piece in PIECES]
    assert [chunk.rows for chunk in found] == [70, 1, 110]
    assert (found[2].start, found[2].end) == ("2024-01-04T18:00:00+00:00", "2024-01-09T07:00:00+00:00")
    assert [chunk.split for chunk in found] == ["train", "train", "test"]


def test_the_same_rows_give_the_same_bytes(dataset, tmp_path, monkeypatch):
    _, first = cut(dataset, tmp_path / "1")
    monkeypatch.setattr(chunks, "_BATCH", 11)
    _, second = cut(dataset, tmp_path / "2")
    assert {digest: _bytes(path) for digest, path in first.items()} == {
        digest: _bytes(path) for digest, path in second.items()
    }


def test_stored_chunks_are_not_written_again(dataset, tmp_path):
    found, _ = cut(dataset, tmp_path / "1")
    again, files = cut(dataset, tmp_path / "2", stored=[found[0].digest])
    assert again == found
    assert list(files) == [found[1].digest, found[2].digest]


@pytest.mark.parametrize(
    ("joined", "message"),
    [
        ("range(0, 199)", r"199 row\(s\) for 199 example\(s\) out of 200"),
        ("(FROM range(200) UNION ALL FROM range(1))", r"201 row\(s\) for 200 example\(s\)"),
    ],
)
def test_a_join_that_loses_or_repeats_examples_is_refused(connection, dataset, tmp_path, joined, message):
    features = tmp_path / "features.parquet"
    connection.execute(f"COPY (SELECT range AS __row, 1 AS x FROM {joined}) TO '{features}' (FORMAT parquet)")
    with pytest.raises(FeatureStoreError, match=message):
        merge_features(
            connection, dataset, features, {"text": "input", "x": "feature"}, 200, tmp_path / "out"
        )


def test_features_find_their_example(connection, dataset, tmp_path):
    features, merged = tmp_path / "features.parquet", tmp_path / "merged.parquet"
    connection.execute(
        f"COPY (SELECT range AS __row, range * 2 AS x, 'other' AS text FROM range(200) ORDER BY hash(range)) TO '{features}'"
    )
    merge_features(connection, dataset, features, {"text": "input", "x": "feature"}, 200, merged)
    table = pq.read_table(merged)
    assert table["text"].to_pylist() == [str(row) for row in range(200)]
    assert table["x"].to_pylist() == [row * 2 for row in range(200)]


def _bytes(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
