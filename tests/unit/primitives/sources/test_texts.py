"""CSV and JSON become rows of types that follow from all values, or an error with a cure."""

from __future__ import annotations

import gzip
from datetime import date, datetime
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from airflow_mlops.exceptions import SourceError
from airflow_mlops.hooks.sources.files import FileReader, relation
from airflow_mlops.primitives.sources.base import LocalSources, open_query, open_tables
from airflow_mlops.spec.data.examples import Table
from airflow_mlops.spec.features.extract import Extract


def rows(folder, files: dict[str, str | bytes], settings: dict | None = None) -> list[tuple]:
    """The rows of CSV or JSON files, as a feature pipeline extracts them."""
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    form = "csv" if "csv" in next(iter(files)) else "json"
    with duckdb.connect() as connection:
        names = [str(folder / name) for name in files]
        source = relation(connection, names, "extract", None, {form: settings} if settings else None)
        return connection.execute(f"SELECT * FROM {source}").fetchall()


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("id,t\n1,01/13/2026\n", None, date(2026, 1, 13)),
        ("id,t\n1,13/01/2026\n", None, date(2026, 1, 13)),
        ("id,t\n1,01/01/2026\n", None, date(2026, 1, 1)),
        ("id,t\n1,01/03/2026\n", {"dates": "%m/%d/%Y"}, date(2026, 1, 3)),
        ("id,t\n1,01/03/2026\n", {"dates": "%d/%m/%Y"}, date(2026, 3, 1)),
        ("id,t\n1,01/03/2026\n", {"types": {"t": "VARCHAR"}}, "01/03/2026"),
        ("id,t\n1,13.01.2026 10:20\n", None, datetime.fromisoformat("2026-01-13T10:20")),
        ("id,t\n1,2026-01-03\n", None, date(2026, 1, 3)),
        ("id,x\n1,99999999999999999999\n", None, Decimal(99999999999999999999)),
        ("id,x\n1,9223372036854775808\n", None, Decimal(9223372036854775808)),
        ("id,x\n1," + "9" * 50 + "\n", None, "9" * 50),
        ("id,x\n1,01234\n", None, "01234"),
        ("\ufeffid;x\r\n1;2,5\r\n", {"decimal": ","}, 2.5),
        ("id,x\n1,NA\n", {"nulls": ["", "NA"]}, None),
        ('id,x\n1,"a\nb"\n', None, "a\nb"),
        ("1,2\n", {"header": False}, 2),
        ("id,x\n1,Müller\n".encode("latin-1"), {"encoding": "latin-1"}, "Müller"),
    ],
)
def test_a_value_of_csv_is_what_was_written(text, settings, expected, tmp_path):
    ((_, value),) = rows(tmp_path, {"a.csv": text}, settings)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.csv": "id,t\n1,01/03/2026\n"}, r"a\.csv has '01/03/2026' in column 't'.*csv: \{dates"),
        ({"a.csv": "id,t\n1,01-03-26\n"}, r"csv: \{dates"),
        (
            {"a.csv": "t\n01/13/2026\n", "b.csv": "t\n13/01/2026\n"},
            r"another order.*csv: \{dates",
        ),
        ({"a.csv": "id,x\n1,2\n2,3,4\n3,5\n"}, r"a\.csv.*Line: 3.*Cure.*csv: \{delimiter"),
        ({"a.csv": "id,x,y\n1,2,3\n2,3\n"}, r"a\.csv.*Line: 3"),
        ({"a.csv": "id,x\n1,Müller\n".encode("latin-1")}, r"csv: \{encoding: latin-1\}"),
        ({"a.csv": "id,id\n1,2\n"}, "the column 'id' twice"),
        ({"a.csv": "1,2\n3,4\n"}, r"no name of a column.*csv: \{header: false\}"),
        ({"a.csv": "x\n1\n", "b.csv": "x\nNA\n"}, r"b\.csv has 'NA'.*csv: \{nulls"),
        ({"a.json": '{"x": 1}', "b.json": '{"x": "warm"}'}, r"b\.json has 'warm'.*json: \{types"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(files, message, tmp_path):
    with pytest.raises(SourceError, match=message):
        rows(tmp_path, files)


def test_a_late_value_or_key_counts(tmp_path):
    assert max(rows(tmp_path, {"a.csv": "x\n" + "1\n" * 30_000 + "1.5\n"})) == (1.5,)
    assert rows(tmp_path, {"a.json": '{"x": 1}\n' * 30_000 + '{"x": 1.5, "z": 7}'})[-1] == (1.5, 7)
    many = {f"{n:02}.json": '{"x": 1, "z": 7}' if n > 50 else '{"x": 1}' for n in range(60)}
    assert {z for _, z in rows(tmp_path, many)} == {None, 7}


def test_numbers_of_json_beyond_64_bits_are_exact(tmp_path):
    found = rows(tmp_path, {"a.json": '{"id": 99999999999999999999}\n{"id": 9223372036854775809}\n'})
    assert [int(value) for (value,) in found] == [99999999999999999999, 9223372036854775809]
    assert all(isinstance(value, Decimal) for (value,) in found)


def test_packed_files_and_those_without_rows_decide_nothing(tmp_path):
    packed = gzip.compress(b"id,x\n1,2.5\n")
    assert rows(tmp_path, {"a.csv": "id,x\n", "b.csv.gz": packed}) == [(1, 2.5)]
    assert rows(tmp_path, {"a.json": "[]", "b.json": '[{"x": 1}]'}) == [(1,)]


def test_a_first_parquet_file_without_rows_decides_no_type(tmp_path):
    pq.write_table(pa.table({"k": pa.array([], pa.null())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"k": ["x"]}), tmp_path / "b.parquet")
    with duckdb.connect() as connection:
        open_tables(connection, {"t": {"parquet": "*.parquet"}}, tmp_path, LocalSources())
        assert connection.execute("FROM t").fetchall() == [("x",)]


def test_two_lists_and_names_without_ending_are_read_as_parquet(tmp_path):
    table = pa.table({"id": [1], "a": [[1.0]], "b": [["x"]], "s": [{"id": "x"}]})
    for name in ("a.parq", "b.PARQUET", "c.pq", "part-0"):
        pq.write_table(table, tmp_path / name)
    reader = FileReader(str(tmp_path / "*"), tmp_path / "spill", "1GB")
    try:
        assert reader._connection.execute("SELECT count(*) FROM source").fetchone() == (4,)
    finally:
        reader.close()


def test_queries_and_tables_of_examples_read_the_same_way(tmp_path):
    (tmp_path / "a.csv").write_text("id,t\n1,01/03/2026\n")
    with duckdb.connect() as connection:
        with pytest.raises(SourceError, match="which part is the day"):
            open_query(connection, "(SELECT * FROM read_csv('a.csv'))", tmp_path, LocalSources(), "examples")
        table = {"files": "a.csv", "csv": {"dates": "%m/%d/%Y"}}
        pins, _ = open_tables(connection, {"t": table}, tmp_path, LocalSources())
        assert connection.execute("SELECT t FROM t").fetchall() == [(date(2026, 1, 3),)]
        assert pins[0]["pattern"] == "a.csv"


def test_the_yaml_says_how_text_is_read():
    said = {"files": "a.csv", "csv": {"delimiter": ";", "nulls": ["", "NA"], "types": {"zip": "VARCHAR"}}}
    assert Table.model_validate(said).to_json()["csv"]["nulls"] == ["", "NA"]
    assert Extract.model_validate({"files": "a.json", "json": {"dates": "%d/%m/%Y"}}).to_json()["json"] == {
        "dates": "%d/%m/%Y",
        "types": {},
    }
    for wrong in (
        {"files": "a.csv", "csv": {"delimeter": ";"}},
        {"files": "a.csv", "csv": {"dates": "d/m/y"}},
        {"files": "a.csv", "csv": {"types": {"a": "no type!"}}},
        {"files": "a.csv", "csv": {}, "json": {}},
    ):
        with pytest.raises(ValidationError):
            Table.model_validate(wrong)
    with pytest.raises(ValidationError, match="how files are read"):
        Table.model_validate({"parquet": "a.parquet", "csv": {}})
