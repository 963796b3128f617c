"""Reading real sources: PostgreSQL by ADBC and by its DB-API, another database, files, an HTTP server."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import sqlite3
import sys
import threading
import traceback
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from airflow_mlops.exceptions import SourceError, SpecError
from airflow_mlops.hooks.sources.extraction import Source
from airflow_mlops.primitives.features.watermark import Watermark
from tests.fixtures.features import Pipeline, observed

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def read(source: dict, folder: Path, previous: Watermark | None = None, **ends) -> tuple[pa.Table, Watermark]:
    """What a run reads, and how far it reached."""
    opened = Source(source)
    window = opened.plan(previous, folder, now=ends.pop("now", NOW), **ends)
    found = opened.read(window, folder)
    tables = [pq.read_table(file) for file in found.files]
    assert len({table.schema for table in tables}) <= 1, "the files have one schema"
    return (pa.concat_tables(tables) if tables else pa.table({})), found.watermark


@pytest.fixture(params=["adbc", "dbapi"])
def driver(request, monkeypatch) -> str:
    """Both ways to read PostgreSQL; without the extra only the second is there."""
    if request.param == "dbapi":
        monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
        monkeypatch.setitem(sys.modules, "adbc_driver_postgresql.dbapi", None)
    return request.param


@pytest.fixture
def database(postgres, monkeypatch):
    """The session's PostgreSQL as connection ``shop``, with a table of orders."""
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", postgres.connection_json)
    postgres.execute(
        "DROP TABLE IF EXISTS orders",
        "CREATE TABLE orders (id bigint, updated_at timestamptz, local_at timestamp, amount numeric(10, 2), "
        "items int, note text, paid boolean, tags text[], uid uuid, extra jsonb, day date, score real)",
        "INSERT INTO orders SELECT i, timestamptz '2026-01-01 00:00:00+00' + i * interval '1 hour', "
        "timestamp '2026-01-01 00:00:00' + i * interval '1 hour', i + 0.25, "
        "CASE WHEN i % 3 = 0 THEN NULL ELSE i END, 'n' || i, i % 2 = 0, ARRAY['x', 'y'], "
        "'00000000-0000-0000-0000-000000000001', '{\"a\": 1}', date '2026-01-01', 0.5 FROM generate_series(1, 10) i",
    )
    return postgres


class TestPostgres:
    def test_types_are_those_of_the_database(self, database, driver, tmp_path):
        table, _ = read({"connection": "shop", "sql": "SELECT * FROM orders ORDER BY id"}, tmp_path)
        assert table.num_rows == 10
        kinds = {name: str(table.schema.field(name).type) for name in table.column_names}
        # A DB-API does not tell how wide a whole number is.
        assert kinds["id"] == "int64"
        assert kinds["items"] in ("int32", "int64")
        assert kinds["updated_at"] == "timestamp[us, tz=UTC]"
        assert kinds["local_at"] == "timestamp[us]"
        assert kinds["amount"].startswith("decimal128(")
        assert kinds["paid"] == "bool"
        first = table.slice(2, 1).to_pylist()[0]
        assert first["items"] is None
        assert (first["amount"], first["note"], first["tags"]) == (Decimal("3.25"), "n3", ["x", "y"])
        assert first["updated_at"] == datetime(2026, 1, 1, 3, tzinfo=UTC)
        assert first["uid"] == "00000000-0000-0000-0000-000000000001"
        assert json.loads(first["extra"]) == {"a": 1}

    @pytest.mark.parametrize("column", ["updated_at", "local_at", "id", "day"])
    def test_a_watermark_of_any_kind(self, database, driver, column, tmp_path):
        source = {"connection": "shop", "sql": "SELECT * FROM orders;", "watermark": column}
        table, reached = read(source, tmp_path / "1")
        assert table.num_rows == 10
        database.execute(
            "INSERT INTO orders (id, updated_at, local_at, day) VALUES (11, '2026-02-01', '2026-02-01', '2026-02-01')"
        )
        table, again = read(source, tmp_path / "2", reached)
        # The watermark's own moment is read again: another row of it may have come.
        ids = sorted(table["id"].to_pylist())
        assert ids == ([*range(1, 12)] if column == "day" else [10, 11])
        assert again.column == column
        assert again != reached

    def test_a_query_may_place_the_ends_itself(self, database, driver, tmp_path):
        sql = "SELECT id, updated_at FROM orders WHERE updated_at > :after AND updated_at <= :until AND note LIKE 'n%'"
        source = {"connection": "shop", "sql": sql, "watermark": "updated_at"}
        table, reached = read(source, tmp_path / "1")
        assert table.num_rows == 10
        assert reached.value == "2026-01-01T10:00:00+00:00"
        table, _ = read(
            source, tmp_path / "2", reached, end="2026-01-01T12:00:00Z", start="2026-01-01T08:00:00Z"
        )
        assert sorted(table["id"].to_pylist()) == [9, 10]

    def test_late_rows_are_read_again(self, database, driver, tmp_path):
        source = {
            "connection": "shop",
            "sql": "SELECT * FROM orders",
            "watermark": "updated_at",
            "late": "3h",
        }
        _, reached = read(source, tmp_path / "1")
        table, _ = read(source, tmp_path / "2", reached)
        assert sorted(table["id"].to_pylist()) == [7, 8, 9, 10]

    def test_rows_of_the_future_are_left(self, database, driver, tmp_path):
        database.execute("INSERT INTO orders (id, updated_at) VALUES (99, '2030-01-01')")
        source = {"connection": "shop", "sql": "SELECT * FROM orders", "watermark": "updated_at"}
        table, reached = read(source, tmp_path)
        assert 99 not in table["id"].to_pylist()
        assert reached.value.startswith("2026-01-01")

    def test_an_empty_table_has_nothing_to_read(self, database, driver, tmp_path):
        database.execute("TRUNCATE orders")
        for source in ({}, {"watermark": "id"}, {"watermark": "updated_at"}):
            pipeline = Pipeline(
                str(tmp_path), {"connection": "shop", "sql": "SELECT * FROM orders", **source}
            )
            with pytest.raises(AirflowSkipException, match="connection shop has no row"):
                pipeline.extract()

    def test_batches_have_one_type_in_the_end(self, database, driver, tmp_path):
        sql = "SELECT id, CASE WHEN id > 5 THEN id + 0.5 END AS x, CASE WHEN id > 8 THEN 'text' END AS t FROM orders ORDER BY id"
        table, _ = read({"connection": "shop", "sql": sql, "batch_rows": 2}, tmp_path)
        assert table["x"].to_pylist()[4:6] == [None, Decimal("6.5")]
        assert table["t"].to_pylist()[7:] == [None, "text", "text"]

    def test_numbers_of_any_scale(self, database, driver, tmp_path):
        sql = "SELECT 12345678901234567890.5::numeric AS a, 1::numeric / 3 AS b, -0.25::numeric AS c, NULL::numeric AS d"
        table, _ = read({"connection": "shop", "sql": sql}, tmp_path)
        row = table.to_pylist()[0]
        assert (row["a"], row["c"], row["d"]) == (Decimal("12345678901234567890.5"), Decimal("-0.25"), None)
        assert float(row["b"]) == pytest.approx(1 / 3)

    def test_published_end_to_end(self, database, driver, tmp_path):
        pipeline = Pipeline(
            str(tmp_path / "store"),
            {"connection": "shop", "sql": "SELECT * FROM orders", "watermark": "updated_at", "late": "1h"},
            timestamp="updated_at",
            keys=["id"],
        )
        made = pipeline.transform(
            pipeline.extract(), "SELECT id, updated_at, amount::DOUBLE AS amount FROM extracted"
        )
        assert pipeline.publish(made)["new_rows"] == 10
        database.execute("INSERT INTO orders (id, updated_at, amount) VALUES (11, '2026-01-01 10:30+00', 1)")
        made = pipeline.transform(
            pipeline.extract(), "SELECT id, updated_at, amount::DOUBLE AS amount FROM extracted"
        )
        done = pipeline.publish(made)
        assert (done["new_rows"], done["rows"]) == (1, 11)
        assert done["watermark"]["value"] == "2026-01-01T10:30:00+00:00"

    def test_a_wrong_query_names_the_place_and_the_cure(self, database, driver, tmp_path):
        pipeline = Pipeline(str(tmp_path), {"connection": "shop", "sql": "SELECT idd FROM orders"})
        with pytest.raises(
            AirflowFailException, match=r'(?s)connection shop: .*"idd" does not exist.*Cure'
        ) as caught:
            pipeline.extract()
        assert database.password not in str(caught.value)

    def test_the_password_is_nowhere(self, database, driver, tmp_path, monkeypatch, caplog):
        connection = json.loads(database.connection_json)
        monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({**connection, "password": "s3cret/%word"}))
        with caplog.at_level(logging.DEBUG), pytest.raises(AirflowException) as caught:
            Pipeline(str(tmp_path), {"connection": "shop", "sql": "SELECT 1 AS x"}).extract()
        assert "password authentication failed" in str(caught.value)
        shown = "".join(traceback.format_exception(caught.value)) + caplog.text
        assert "s3cret" not in shown
        assert caught.value.__cause__ is None

    def test_a_server_that_is_away_is_tried_again(self, database, driver, tmp_path, monkeypatch):
        connection = json.loads(database.connection_json)
        monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({**connection, "port": 1}))
        with pytest.raises(
            AirflowException, match="SourceUnavailableError: connection shop does not answer"
        ) as caught:
            Pipeline(str(tmp_path), {"connection": "shop", "sql": "SELECT 1 AS x"}).extract()
        assert not isinstance(caught.value, AirflowFailException)

    def test_two_columns_of_one_name(self, database, driver, tmp_path):
        with pytest.raises(SourceError, match=r"gives the column\(s\) id more than once"):
            read({"connection": "shop", "sql": "SELECT id, id FROM orders"}, tmp_path)

    def test_a_type_that_no_feature_can_be(self, database, tmp_path):
        with pytest.raises(SourceError, match=r"'gap' is .*extract\(epoch from"):
            read({"connection": "shop", "sql": "SELECT interval '1 day' AS gap"}, tmp_path)

    def test_a_million_rows_in_little_memory(self, database, tmp_path):
        sql = "SELECT i AS id, i::float8 AS x FROM generate_series(1, 1000000) i"
        found = Source({"connection": "shop", "sql": sql}).read(
            Source({"connection": "shop", "sql": sql}).plan(None, tmp_path, now=NOW), tmp_path
        )
        assert found.rows == 1_000_000
        assert pq.read_table(found.files[0], columns=["id"])["id"].to_numpy().sum() == 500_000_500_000


class SqliteHook:
    """A DB-API hook as the providers have them: another placeholder, rows of plain Python values."""

    placeholder = "?"

    def __init__(self, path: Path) -> None:
        self.path = path

    def get_conn(self):
        return sqlite3.connect(self.path)


@pytest.fixture
def sqlite(tmp_path, monkeypatch):
    """A database that no ADBC driver reads, as connection ``small``."""
    from airflow.sdk import BaseHook

    path = tmp_path / "small.db"
    own = SimpleNamespace(
        conn_type="sqlite", password=None, host=None, extra_dejson={}, get_hook=lambda: SqliteHook(path)
    )
    monkeypatch.setattr(BaseHook, "get_connection", classmethod(lambda cls, conn_id: own))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE t (id INTEGER, x, at TEXT); "
            "INSERT INTO t VALUES (1, 1, '2026-01-01'), (2, NULL, '2026-01-02'), (3, 2.5, '2026-01-03')"
        )
    return path


class TestDbApi:
    def test_rows_in_batches(self, sqlite, tmp_path):
        table, _ = read(
            {"connection": "small", "sql": "SELECT * FROM t ORDER BY id", "batch_rows": 1}, tmp_path
        )
        assert table.to_pylist()[1:] == [
            {"id": 2, "x": None, "at": "2026-01-02"},
            {"id": 3, "x": 2.5, "at": "2026-01-03"},
        ]
        assert str(table.schema.field("x").type) == "double"

    def test_a_watermark_of_text_and_of_numbers(self, sqlite, tmp_path):
        for column, value in (("at", "2026-01-03"), ("id", 3)):
            source = {"connection": "small", "sql": "SELECT * FROM t -- all of it", "watermark": column}
            table, reached = read(source, tmp_path / column)
            assert (table.num_rows, reached.value) == (3, value)
            table, _ = read(source, tmp_path / f"{column}2", reached)
            assert table["id"].to_pylist() == [3]

    def test_types_that_have_nothing_in_common(self, sqlite, tmp_path):
        with contextlib.closing(sqlite3.connect(sqlite)) as connection, connection:
            connection.execute("INSERT INTO t VALUES (4, 'many', '2026-01-04')")
        with pytest.raises(SourceError, match=r"column 'x' mixes types: .*Cure: cast it"):
            read({"connection": "small", "sql": "SELECT * FROM t"}, tmp_path / "1")
        with pytest.raises(SourceError, match=r"column 'x' is double in the first 3 rows and string behind"):
            read(
                {"connection": "small", "sql": "SELECT * FROM t ORDER BY id", "batch_rows": 3}, tmp_path / "2"
            )

    def test_late_needs_a_time(self, sqlite, tmp_path):
        with pytest.raises(SpecError, match="late needs a watermark that is a time"):
            read({"connection": "small", "sql": "SELECT * FROM t", "watermark": "id", "late": "1h"}, tmp_path)


class TestFiles:
    def test_csv_and_json_are_read_as_tables(self, tmp_path):
        (tmp_path / "a.csv").write_text("id,seen,x\n1,2026-01-01 00:00:00,1.5\n")
        (tmp_path / "b.csv").write_text("id,seen,x\n2,2026-01-02 00:00:00,\n")
        (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"id": 3, "seen": "2026-01-03T00:00:00Z"}\n'))
        table, reached = read({"files": str(tmp_path / "*.csv"), "watermark": "seen"}, tmp_path / "s1")
        assert sorted(table["id"].to_pylist()) == [1, 2]
        assert (reached.kind, reached.value) == ("naive", "2026-01-02T00:00:00+00:00")
        table, _ = read({"files": str(tmp_path / "*.csv"), "watermark": "seen"}, tmp_path / "s2", reached)
        assert table["id"].to_pylist() == [2]
        table, _ = read({"files": str(tmp_path / "*.jsonl.gz")}, tmp_path / "s3")
        assert table["id"].to_pylist() == [3]

    def test_a_truncated_file_is_named(self, tmp_path):
        observed(tmp_path / "a.parquet", "('a', timestamptz '2026-01-01 00:00:00+00', 1.0)")
        whole = (tmp_path / "a.parquet").read_bytes()
        (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(SourceError, match=r"b\.parquet"):
            read({"files": str(tmp_path / "*.parquet")}, tmp_path / "s")

    def test_the_one_file_with_another_type_or_without_a_column_is_named(self, tmp_path):
        for name in "abc":
            observed(tmp_path / f"{name}.parquet", "('a', timestamptz '2026-01-01 00:00:00+00', 1.0)")
        observed(tmp_path / "d.parquet", "('a', timestamptz '2026-01-01 00:00:00+00', 'warm')")
        with pytest.raises(SourceError, match=r"d\.parquet has column 'temp' as VARCHAR.*Cure"):
            read({"files": str(tmp_path / "*.parquet")}, tmp_path / "s")
        observed(tmp_path / "d.parquet", "('a', timestamptz '2026-01-01 00:00:00+00')", "station, seen")
        with pytest.raises(SourceError, match=r"d\.parquet has no column 'temp'"):
            read({"files": str(tmp_path / "*.parquet")}, tmp_path / "s")

    def test_a_wrong_value_in_one_csv_of_many_is_named(self, tmp_path):
        rows = "\n".join(f"{n},{n}.5" for n in range(50_000))
        for name in ("a", "b"):
            (tmp_path / f"{name}.csv").write_text(f"id,x\n{rows}\n")
        (tmp_path / "c.csv").write_text(f"id,x\n{rows}\n7,warm\n")
        with pytest.raises(SourceError, match=r"c\.csv|warm"):
            read({"files": str(tmp_path / "*.csv")}, tmp_path / "s")

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ({"files": "/nowhere/*.parquet"}, "no file at /nowhere"),
            ({"files": "IN/*.txt"}, "expected all of them to end in one of"),
            ({"files": "IN/*.parquet", "watermark": "changed"}, "has no column 'changed'"),
            ({"files": "IN/*.parquet", "watermark": "temp"}, "watermark 'temp' is DOUBLE"),
            ({"files": "a", "http": {"connection": "c"}}, "exactly one of"),
            ({"connection": "c"}, "connection needs sql"),
            ({"file": "a"}, "unknown key.*file"),
        ],
    )
    def test_what_cannot_be_read_is_said(self, source, message, tmp_path):
        observed(tmp_path / "a.parquet", "('a', timestamptz '2026-01-01 00:00:00+00', 1.0::DOUBLE)")
        (tmp_path / "a.txt").write_text("x")
        named = {
            key: value.replace("IN", str(tmp_path)) if isinstance(value, str) else value
            for key, value in source.items()
        }
        with pytest.raises((SourceError, SpecError), match=message):
            read(named, tmp_path / "s")

    def test_a_folder_that_does_not_exist_is_final(self, tmp_path):
        with pytest.raises(AirflowFailException, match="no file at"):
            Pipeline(str(tmp_path), {"files": str(tmp_path / "none" / "*.csv")}).extract()


@pytest.fixture
def http(monkeypatch):
    """A server whose answers the test gives by path, as connection ``api``."""

    class Answers(BaseHTTPRequestHandler):
        pages: ClassVar[dict] = {}
        asked: ClassVar[list] = []

        def do_GET(self):
            url = urlsplit(self.path)
            self.asked.append((url.path, parse_qs(url.query), self.headers.get("Authorization")))
            status, headers, body = self.pages.get(url.path, (404, {}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    connection = {"conn_type": "http", "host": address, "login": "me", "password": "s3cret"}
    monkeypatch.setenv("AIRFLOW_CONN_API", json.dumps(connection))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield SimpleNamespace(pages=Answers.pages, asked=Answers.asked, address=address)
    server.shutdown()
    thread.join()
    server.server_close()


def answer(value, status: int = 200, **headers) -> tuple:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return status, headers, body


class TestHttp:
    def test_pages_of_json_by_header_and_by_body(self, http, tmp_path):
        http.pages["/v1/rows"] = answer(
            {"data": {"items": [{"id": 1, "x": 1.5}]}}, Link='</v1/second>; rel="next"'
        )
        http.pages["/v1/second"] = answer(
            {"data": {"items": [{"id": 2, "x": None}]}, "links": {"next": "/v1/third"}}
        )
        http.pages["/v1/third"] = answer({"data": {"items": []}, "links": {"next": None}})
        source = {
            "http": {
                "connection": "api",
                "endpoint": "/v1/rows",
                "format": "json",
                "records": "data.items",
                "next": "links.next",
            }
        }
        table, _ = read(source, tmp_path)
        assert sorted(table["id"].to_pylist()) == [1, 2]
        assert {login for _, _, login in http.asked} == {"Basic bWU6czNjcmV0"}

    def test_the_window_is_asked_for_and_kept(self, http, tmp_path):
        rows = [{"id": n, "seen": f"2026-01-0{n}T00:00:00Z"} for n in (1, 2, 3)]
        http.pages["/rows"] = answer([*rows, {"id": 9, "seen": "2030-01-01T00:00:00Z"}])
        source = {
            "http": {
                "connection": "api",
                "endpoint": "rows",
                "params": {"since": ":after", "range": "..:until", "n": 5},
            },
            "watermark": "seen",
        }
        table, reached = read(source, tmp_path / "1")
        assert sorted(table["id"].to_pylist()) == [1, 2, 3]
        assert http.asked[-1][1] == {"range": ["..2026-06-01T00:00:00+00:00"], "n": ["5"]}
        table, _ = read(source, tmp_path / "2", reached)
        assert table["id"].to_pylist() == [3]
        assert http.asked[-1][1]["since"] == ["2026-01-03T00:00:00+00:00"]

    def test_csv_and_parquet(self, http, tmp_path):
        path = observed(tmp_path / "a.parquet", "('a', timestamptz '2026-01-01 00:00:00+00', 1.0)")
        http.pages["/a.csv"] = answer(b"id,x\n1,2.5\n")
        http.pages["/a.parquet"] = answer(path.read_bytes())
        for form, rows in (("csv", [{"id": 1, "x": 2.5}]), ("parquet", None)):
            source = {"http": {"connection": "api", "endpoint": f"a.{form}", "format": form}}
            table, _ = read(source, tmp_path / form)
            assert table.num_rows == 1
            assert rows is None or table.to_pylist() == rows

    def test_no_rows_skip(self, http, tmp_path):
        http.pages["/rows"] = answer([])
        with pytest.raises(AirflowSkipException, match="connection api rows has no row"):
            Pipeline(str(tmp_path), {"http": {"connection": "api", "endpoint": "rows"}}).extract()

    @pytest.mark.parametrize(
        ("page", "final", "message"),
        [
            (answer({}, 500), False, "answers 500"),
            (answer({}, 429), False, "answers 429"),
            (answer({}, 401), True, "answers 401.*login and password"),
            (answer({}, 404), True, "answers 404.*Cure"),
            (answer(b"<html>"), True, "answers with no JSON"),
            (answer({"a": 1}), True, "has no list of objects at its top.*records: data.items"),
            (answer([], Link='<http://elsewhere.example/x>; rel="next"'), True, "leads on to another server"),
            (answer([], Link='</rows>; rel="next"'), True, "leads on and on"),
            (answer([], 302, Location="http://elsewhere.example/x"), True, "leads on to another server"),
        ],
    )
    def test_what_the_server_does_wrong_is_said(self, http, page, final, message, tmp_path):
        http.pages["/rows"] = page
        source = {"http": {"connection": "api", "endpoint": "rows", "params": {"key": "k3y"}}}
        with pytest.raises(AirflowException, match=message) as caught:
            Pipeline(str(tmp_path), source).extract()
        assert isinstance(caught.value, AirflowFailException) == final
        assert "s3cret" not in str(caught.value)
        assert "k3y" not in str(caught.value)

    def test_an_answer_without_end_is_cut_off(self, http, tmp_path, monkeypatch):
        import airflow_mlops.hooks.sources.http as module

        monkeypatch.setattr(module, "PAGE_LIMIT", 1000)
        http.pages["/rows"] = answer([{"x": "y" * 2000}])
        with pytest.raises(SourceError, match="more than 1000 bytes"):
            read({"http": {"connection": "api", "endpoint": "rows"}}, tmp_path)

    def test_a_server_that_is_gone_is_tried_again(self, http, tmp_path, monkeypatch):
        connection = {"conn_type": "http", "host": "http://127.0.0.1:1", "password": "s3cret"}
        monkeypatch.setenv("AIRFLOW_CONN_API", json.dumps(connection))
        with pytest.raises(AirflowException, match="does not answer") as caught:
            Pipeline(str(tmp_path), {"http": {"connection": "api", "endpoint": "rows?key=k3y"}}).extract()
        assert not isinstance(caught.value, AirflowFailException)
        assert "k3y" not in str(caught.value)
