"""What SQL may touch: the files that were found for it, and nothing else of the machine or the network."""

from __future__ import annotations

import io
import itertools
import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fsspec import AbstractFileSystem

import airflow_mlops
from airflow_mlops.database import confine, connect
from airflow_mlops.exceptions import SourceError, SourceUnavailableError
from airflow_mlops.hooks.sources.transform import transform
from airflow_mlops.primitives.datasets.examples import Examples
from airflow_mlops.primitives.datasets.query import ExamplesQuery
from airflow_mlops.primitives.sources.session import source_errors


@pytest.fixture
def place(tmp_path):
    """A given file whose name has signs of a pattern, a secret one beside it, and a scratch folder."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "data").mkdir()
    table = pa.table({"id": [1, 2], "at": pa.array([0, 1], pa.timestamp("us")), "y": [0, 1]})
    pq.write_table(table, tmp_path / "data" / "a[1]*.parquet")
    pq.write_table(table, tmp_path / "data" / "b.parquet")
    (tmp_path / "secret.csv").write_text("token\nabc\n")
    return tmp_path


@pytest.fixture
def closed(place):
    with connect(place / "scratch" / "spill", "100MB", threads=2) as connection:
        connection.register("table_of_arrow", ds.dataset(place / "data" / "b.parquet"))
        confine(connection, [place / "data" / "a[1]*.parquet"])
        yield connection


OUTSIDE = [
    "SELECT * FROM read_text('{0}/secret.csv')",
    "SELECT * FROM read_blob('{0}/secret.csv')",
    "SELECT * FROM read_csv('{0}/' || 'secret.csv')",
    "SELECT * FROM read_parquet('{0}/data/b.parquet')",
    "SELECT * FROM parquet_metadata('{0}/data/b.parquet')",
    "SELECT * FROM sniff_csv('{0}/secret.csv')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_text('http://127.0.0.1:9/x')",
    "SELECT * FROM read_csv('https://127.0.0.1:9/' || 'x.csv')",
]


@pytest.mark.parametrize(
    "sql",
    [
        *OUTSIDE,
        "INSTALL httpfs",
        "LOAD httpfs",
        "ATTACH '{0}/x.db'",
        "COPY (SELECT 1) TO '{0}/x.csv'",
        "SET enable_external_access=true",
        "SET autoload_known_extensions=true",
        "SET allowed_directories=['/']",
        "RESET lock_configuration",
    ],
)
def test_a_closed_session_touches_nothing_else(closed, place, sql):
    with pytest.raises(duckdb.Error):
        closed.execute(sql.format(place)).fetchall()


def test_it_reads_what_it_was_given_and_uses_its_scratch_folder(closed, place):
    scratch = place / "scratch"
    given = "read_parquet('" + re.sub(r"([\[*?])", r"[\1]", str(place / "data" / "a[1]*.parquet")) + "')"
    closed.execute(f"COPY (SELECT * FROM {given}) TO '{scratch}/out.parquet' (FORMAT parquet)")
    assert closed.execute(f"SELECT count(*) FROM '{scratch}/out.parquet'").fetchone() == (2,)
    assert closed.execute("SELECT count(*) FROM table_of_arrow").fetchone() == (2,)
    closed.execute("CREATE TEMP TABLE big AS SELECT hash(i)::VARCHAR || i AS s FROM range(5000000) t(i)")
    assert list((scratch / "spill").iterdir())  # it does not fit into memory


def test_no_session_fetches_an_extension():
    with connect() as connection:
        names = ("autoinstall_known_extensions", "autoload_known_extensions", "allow_community_extensions")
        for name in names:
            assert connection.execute(f"SELECT current_setting('{name}')").fetchone() == (False,)


def test_it_is_the_only_door():
    package = Path(airflow_mlops.__file__).parent
    found = [str(file) for file in package.rglob("*.py") if re.search(r"duckdb\.connect\(", file.read_text())]
    assert found == [str(package / "database.py")]


@pytest.mark.parametrize("sql", [sql for sql in OUTSIDE if "read_parquet" not in sql])
def test_a_query_of_examples_is_told_what_it_may_read(place, sql):
    hidden = sql.format(place)
    query = f"SELECT * FROM 'data/a*.parquet' WHERE (SELECT count(*) FROM ({hidden})) >= 0"
    given = {"sql": query, "keys": ["id"], "timestamp": "at", "targets": ["y"], "folder": str(place)}
    with connect(place / "scratch" / "spill", "100MB") as connection, pytest.raises(SourceError) as told:
        looked_at(connection, given)
    assert "Cure:" in str(told.value) or "read" in str(told.value)


def looked_at(connection, given):
    return Examples.open(connection, ExamplesQuery.from_mapping(given)).window(connection, "training", None)


def test_so_is_one_of_features(place):
    source = place / "data" / "b.parquet"
    both = "SELECT extracted.* FROM extracted JOIN more USING (id)"
    assert transform(both, [source], {"more": str(source)}, place / "scratch")
    with pytest.raises(SourceError, match=r"A query reads the files that it names .* Cure: name the file"):
        transform(f"SELECT * FROM read_text('{place}/secret.csv')", [source], {}, place / "scratch")
    with pytest.raises(SourceError, match="'id' and 'ID', which differ by case only"):
        transform("SELECT *, 1 AS ID FROM extracted", [source], {}, place / "scratch")


class Flaky(AbstractFileSystem):
    """A file system in Python, away once its file is read."""

    protocol, cachable = "away", False

    def __init__(self, error, after):
        super().__init__()
        self.error, self.after = error, after
        sink = io.BytesIO()
        pq.write_table(pa.table({"a": range(200_000)}), sink, row_group_size=5_000)
        self.content = sink.getvalue()

    def glob(self, path, **_):
        return [f"away://{path.removeprefix('away://')}"]

    def info(self, path, **_):
        return {"name": path, "size": len(self.content), "type": "file"}

    def exists(self, _path, **_):
        return True

    def modified(self, _path):
        return datetime(2026, 1, 1, tzinfo=UTC)

    def open(self, _path, _mode="rb", **_):
        reads = itertools.count()

        def read(size=-1):
            if next(reads) >= self.after:
                raise self.error
            return io.BytesIO.read(file, size)

        file = type("File", (io.BytesIO,), {})(self.content)
        file.read = read
        return file


@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize(
    ("error", "retriable"),
    [
        (SourceUnavailableError("reading s3://b/x was given up after 60 s"), True),
        (ConnectionResetError("connection reset"), True),
        (TimeoutError("timed out"), True),
        (SourceError("reading s3://b/x: the server answered 403"), False),
        (PermissionError("no"), False),
    ],
)
def test_a_file_system_that_is_away_while_duckdb_reads_may_come_back(error, retriable, after):
    with connect() as connection:
        connection.register_filesystem(Flaky(error, after))
        with pytest.raises(SourceError, match=str(error)) as caught, source_errors("daily"):
            connection.execute("SELECT sum(a) FROM read_parquet('away://x.parquet')").fetchall()
    assert caught.value.retriable is retriable
    assert "At:" not in str(caught.value) or isinstance(error, PermissionError)
