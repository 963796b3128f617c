"""Which files are data, and what their folders' names mean."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.datasets.examples import Examples
from airflow_mlops.primitives.datasets.query import ExamplesQuery
from airflow_mlops.primitives.sources.base import LocalSources, open_query, open_tables
from airflow_mlops.primitives.sources.listing import data_files, find_files
from airflow_mlops.primitives.sql.words import parquet


def put(folder, name, **columns):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return str(file)


def rows(folder, sql):
    with duckdb.connect() as connection:
        opened = open_query(connection, sql, folder, LocalSources(), "examples")
        found = connection.sql(opened.sql)
        return found.columns, sorted(found.fetchall())


class TestFolders:
    """Names of folders are no columns, unless they are asked for."""

    @pytest.mark.parametrize(
        "sql",
        [
            "FROM read_parquet('**/*.parquet')",
            "FROM read_parquet(['*/x=7/a.parquet'], union_by_name=true)",
            "FROM PARQUET_SCAN ( /* ( */ '**/*.parquet' )",
            "FROM 'env=prod/x=7/a.parquet'",
            "FROM 'env=prod/x=7/a.parquet' AS t, (SELECT 1 WHERE ')' = ')')",
        ],
    )
    def test_a_query_reads_the_columns_of_the_files(self, tmp_path, sql):
        put(tmp_path, "env=prod/x=7/a.parquet", x=[0, 1])
        columns, found = rows(tmp_path, f"SELECT x {sql}")
        assert (columns, found) == (["x"], [(0,), (1,)])
        assert "env" not in rows(tmp_path, f"SELECT * {sql}")[0]

    def test_text_readers_do_so_as_well(self, tmp_path):
        (tmp_path / "x=7").mkdir()
        (tmp_path / "x=7/a.csv").write_text("x\n0\n1\n")
        (tmp_path / "x=7/a.json").write_text('{"x": 0}\n{"x": 1}\n')
        for name in ("csv", "json"):
            assert rows(tmp_path, f"FROM read_{name}('*/a.{name}')") == (["x"], [(0,), (1,)])
            assert rows(tmp_path, f"FROM 'x=7/a.{name}'") == (["x"], [(0,), (1,)])

    def test_examples_and_tables_do_so_as_well(self, tmp_path):
        times = pa.array([0, 1], pa.timestamp("us", "UTC"))
        put(tmp_path, "env=prod/t=1/x=7/a.parquet", x=[0, 1], t=times)
        query = ExamplesQuery(("x",), "t", parquet="env=prod/**/*.parquet", folder=tmp_path)
        with duckdb.connect() as connection:
            assert list(Examples.open(connection, query).columns) == ["x", "t"]
            table = {"parquet": "env=prod/**/*.parquet"}
            open_tables(connection, {"lake": table}, tmp_path, LocalSources())
            assert connection.sql("SELECT x FROM lake").fetchall() == [(0,), (1,)]
            assert connection.sql(f"FROM {parquet(find_files(str(tmp_path)))}").columns == ["x", "t"]

    def test_asked_for_they_are_those_behind_the_first_wildcard(self, tmp_path):
        for month in ("01", "02"):
            put(tmp_path, f"env=prod/month={month}/city=K%C3%B6ln/a.parquet", x=[int(month)])
        given = {"parquet": "env=prod/*/*/*.parquet", "partitions": {"month": "VARCHAR", "city": "VARCHAR"}}
        with duckdb.connect() as connection:
            open_tables(connection, {"lake": given}, tmp_path, LocalSources())
            found = connection.sql("FROM lake ORDER BY x")
            assert found.columns == ["x", "month", "city"]
            assert found.fetchall() == [(1, "01", "Köln"), (2, "02", "Köln")]
        sql = "FROM read_parquet('env=prod/**/*.parquet', hive_partitioning=true, hive_types={'month': INT}) AS t"
        assert rows(tmp_path, f"SELECT t.* {sql} WHERE month > 1") == (["x", "month"], [(2, 2)])

    @pytest.mark.parametrize(
        ("types", "said"),
        [
            ({"x": "INT"}, "partition 'x' is also a column of the files"),
            ({"env": "VARCHAR"}, "lies in no folder env="),
            ({"day": "INT); DROP"}, "is no type"),
        ],
    )
    def test_a_partition_that_is_none_is_refused(self, tmp_path, types, said):
        put(tmp_path, "env=prod/day=1/x=7/a.parquet", x=[1])
        given = {"parquet": "env=prod/**/*.parquet", "partitions": types}
        with duckdb.connect() as connection, pytest.raises(SourceError, match=said):
            open_tables(connection, {"lake": given}, tmp_path, LocalSources())

    def test_a_query_that_asks_for_them_says_their_types(self, tmp_path):
        put(tmp_path, "day=01/a.parquet", x=[1])
        with pytest.raises(SourceError, match="add hive_types="):
            rows(tmp_path, "FROM read_parquet('*/*.parquet', hive_partitioning=true)")
        assert rows(tmp_path, "FROM read_parquet('*/*.parquet', hive_partitioning=false)") == (["x"], [(1,)])

    def test_an_option_counts_in_quotes_too(self, tmp_path):
        put(tmp_path, "day=01/a.parquet", x=[1])
        with pytest.raises(SourceError, match="add hive_types="):
            rows(tmp_path, """FROM read_parquet('*/*.parquet', "hive_partitioning" = true)""")
        (tmp_path / "a.csv").write_text("x\n01\n")
        assert rows(tmp_path, """FROM read_csv('a.csv', "all_varchar" = true)""") == (["x"], [("01",)])


class TestNames:
    """What a file is called does not decide what it is."""

    @pytest.mark.parametrize("ending", [".parq", ".PARQUET", ".pq", "", ".data"])
    def test_types_are_compared_whatever_the_name(self, tmp_path, ending):
        put(tmp_path, f"a{ending}", x=[1])
        put(tmp_path, f"b{ending}", x=[0.6])
        for sql in ("FROM read_parquet('*')", "FROM 'a.parq'"):
            if sql.startswith("FROM read"):
                with pytest.raises(SourceError, match="x is double instead of int64"):
                    rows(tmp_path, sql)
        query = ExamplesQuery(("x",), "t", parquet="*", folder=tmp_path)
        with duckdb.connect() as connection, pytest.raises(SourceError, match="x is double"):
            Examples.open(connection, query)

    def test_a_folder_gives_its_parquet_files_by_their_content(self, tmp_path):
        names = ["a.parquet", "b.PARQUET", "c.parq", "deep/000000_0"]
        files = tuple(put(tmp_path, name, x=[1]) for name in names)
        (tmp_path / "README.md").write_text("about")
        (tmp_path / "empty").touch()
        assert find_files(str(tmp_path)) == files

    @pytest.mark.parametrize("name", ["a.PARQUET", "a.parq", "a.pq", "a.parquet"])
    def test_a_query_names_it_in_place_of_a_table(self, tmp_path, name):
        put(tmp_path, f"x=7/{name}", x=[1])
        assert rows(tmp_path, f"SELECT a.x FROM 'x=7/{name}'") == (["x"], [(1,)])

    def test_a_bracket_in_a_name_means_itself(self, tmp_path):
        put(tmp_path, "a1.parquet", x=[1])
        file = put(tmp_path, "a[1].parquet", x=[2])
        assert find_files("a[1].parquet", tmp_path) == (file,)


class TestHidden:
    """Names that begin with ``_`` or ``.`` are no data."""

    NAMES = (
        "_temporary/0/part.parquet",
        ".ipynb_checkpoints/a-checkpoint.parquet",
        ".a.parquet",
        "_a.parquet",
        "_delta_log/10.checkpoint.parquet",
        "deep/_staging/a.parquet",
        "deep/._a.parquet",
    )

    @pytest.mark.parametrize("pattern", ["", "**/*.parquet", "**"])
    def test_they_are_left_out(self, tmp_path, pattern):
        kept = put(tmp_path, "a.parquet", x=[1]), put(tmp_path, "day=1/_part=2/b.parquet", x=[1])
        for name in self.NAMES:
            put(tmp_path, name, x=[2])
        assert find_files(pattern or str(tmp_path), tmp_path) == kept
        assert rows(tmp_path, f"FROM read_parquet('{pattern or '.'}')") == (["x"], [(1,), (1,)])

    def test_what_is_named_is_read(self, tmp_path):
        file = put(tmp_path, ".home/_lake/_a.parquet", x=[1])
        for pattern in ("_a.parquet", "*_a.parquet", "_*.parquet"):
            found = data_files([file], str(tmp_path / ".home/_lake" / pattern))
            assert found == ([] if pattern.startswith("*") else [file])
        assert find_files("_a.parquet", tmp_path / ".home/_lake") == (file,)
        assert find_files(".home/_lake/_*", tmp_path) == (file,)

    def test_objects_are_named_alike(self):
        names = [f"lake/{name}" for name in ("a.parquet", *self.NAMES)]
        assert data_files(names, "lake") == ["lake/a.parquet"]
        assert data_files(names, "") == ["lake/a.parquet"]
        assert data_files(names, "lake/**") == ["lake/a.parquet"]
