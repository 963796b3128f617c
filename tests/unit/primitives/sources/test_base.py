"""Files behind a dataset."""

from __future__ import annotations

import os

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import SourceError, SourceUnavailableError
from airflow_mlops.primitives.sources.base import (
    LocalSources,
    check_columns,
    check_same_columns,
    find_files,
    first_file_decides,
    open_query,
    pin_files,
    relative_names,
)
from airflow_mlops.primitives.sources.queries import patterns_of


@pytest.fixture
def months(tmp_path):
    for month, columns in (("01", "ab"), ("02", "ba"), ("03", "a")):
        pq.write_table(pa.table({name: [1] for name in columns}), tmp_path / f"{month}.parquet")
    return tmp_path


def test_files_come_sorted_from_a_pattern_a_folder_or_a_name(months):
    every = tuple(str(months / f"{month}.parquet") for month in ("01", "02", "03"))
    assert find_files("*.parquet", months) == every
    assert find_files(str(months)) == every
    assert find_files("02.parquet", months) == every[1:2]


@pytest.mark.parametrize("pattern", ["04.parquet", "2*.parquet", "deep/er/*.parquet"])
def test_no_file_says_what_is_there_instead(months, pattern):
    with pytest.raises(SourceError, match=r"no file at .*; .* has 01.parquet, 02.parquet, 03.parquet"):
        find_files(pattern, months)


def test_a_missing_column_is_named_with_its_file(months):
    with pytest.raises(
        SourceError, match=r"feature view 'x': .*03.parquet lacks the column\(s\) b; it has a"
    ):
        check_columns(find_files("*", months), ["a", "b"], "feature view 'x'")
    with pytest.raises(SourceError, match=r"examples: .*03.parquet lacks b \(it has a\)"):
        check_same_columns(find_files("*", months), "examples")
    check_same_columns(find_files("0[12].parquet", months), "examples")


def test_what_is_no_parquet_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"half a fi")
    with pytest.raises(SourceError, match=r"a.parquet cannot be read as Parquet"):
        check_columns(find_files("*", tmp_path), ["a"], "x")


def test_files_of_a_query():
    sql = (
        "WITH one AS (FROM read_parquet('01.parquet')) SELECT * FROM one JOIN '02.parquet' USING (a) "
        "WHERE a IN (SELECT a FROM read_parquet(['0[12].parquet', '03.parquet'], union_by_name=true)) "
        "AND a NOT IN (SELECT a FROM read_parquet('s3://bucket/a.parquet'))"
    )
    with duckdb.connect() as connection:
        serialized = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()[0]
    assert set(patterns_of(serialized)) == {
        *("01.parquet", "02.parquet", "0[12].parquet", "03.parquet", "s3://bucket/a.parquet")
    }


@pytest.mark.parametrize(
    ("sql", "patterns"),
    [
        ("SELECT * FROM read_parquet('a*') JOIN 'b.parquet' USING (k)", ("a*", "b.parquet")),
        ("SELECT * FROM read_parquet(['a*'], union_by_name=true) JOIN read_parquet('b*') USING (k)", ("b*",)),
        ("SELECT COLUMNS('x.*') FROM read_parquet('a*')", ("a*",)),
        ("SELECT k FROM (SELECT t.* FROM read_parquet('a*') t)", ("a*",)),
        ("SELECT k, count(*) FROM read_parquet('a*') GROUP BY k", ()),
    ],
)
def test_all_columns_may_mean_those_of_the_first_file(sql, patterns):
    with duckdb.connect() as connection:
        serialized = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()[0]
    assert first_file_decides(serialized) == patterns


def test_pins_tell_contents_apart_and_machines_not(months, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere")
    for file in months.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    pins = pin_files(find_files("*", months))
    assert pins == pin_files(find_files("*", other))
    assert [pin["file"] for pin in pins] == ["01.parquet", "02.parquet", "03.parquet"]
    pq.write_table(pa.table({"a": [2], "b": [1]}), other / "01.parquet")
    assert pins[0] != pin_files(find_files("*", other))[0]
    assert pins[1:] == pin_files(find_files("*", other))[1:]


def test_one_value_of_a_large_file_counts_as_well(tmp_path):
    file = tmp_path / "large.parquet"
    pq.write_table(pa.table({"a": [1]}), file)
    footer = file.read_bytes()
    with file.open("r+b") as large:  # with a hole before the footer, so that it takes no room
        large.truncate(300 * 1024**2)
        large.seek(-len(footer), os.SEEK_END)
        large.write(footer)
    before, state = pin_files([str(file)]), file.stat()
    with file.open("r+b") as large:
        large.seek(1024**2)
        large.write(b"1")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = pin_files([str(file)])
    assert sorted(before[0]) == ["bytes", "file", "sha256"]
    assert before[0]["bytes"] == after[0]["bytes"]
    assert before != after


class TestTypes:
    """One file of many with another type."""

    def write(self, folder, name, **columns):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")

    def test_the_odd_file_is_named_with_both_types(self, tmp_path):
        for month in "123":
            self.write(tmp_path, month, a=pa.array([1]), b=pa.array([0.5]))
        self.write(tmp_path, "0", a=pa.array(["1"]), b=pa.array([0.5]))
        files = find_files("*", tmp_path)
        with pytest.raises(
            SourceError, match=r"differ between the files: .*/0.parquet: a is string instead of int64"
        ):
            check_same_columns(files, "examples")
        with pytest.raises(SourceError, match=r"feature view 'x': .*/0.parquet: a is string"):
            check_columns(files, ["a"], "feature view 'x'")
        check_columns(files, ["b"], "feature view 'x'")
        check_same_columns(files, "examples", only=["b"])

    def test_whole_numbers_and_fractions_are_not_one_type(self, tmp_path):
        self.write(tmp_path, "1", a=pa.array([1]))
        self.write(tmp_path, "2", a=pa.array([1.5]))
        with pytest.raises(SourceError, match=r"2.parquet: a is double instead of int64"):
            check_same_columns(find_files("*", tmp_path), "examples")

    def test_naive_times_and_instants_are_not_one_type(self, tmp_path):
        self.write(tmp_path, "1", t=pa.array([0], pa.timestamp("us", "UTC")))
        self.write(tmp_path, "2", t=pa.array([0], pa.timestamp("us")))
        with pytest.raises(SourceError, match=r"t is timestamp\[us\] instead of timestamp\[us, tz=UTC\]"):
            check_same_columns(find_files("*", tmp_path), "examples")

    def test_what_loses_nothing_may_differ(self, tmp_path):
        self.write(
            tmp_path, "1", a=pa.array([1], pa.int32()), t=pa.array([0], pa.timestamp("us", "UTC")), s=["x"]
        )
        self.write(
            tmp_path,
            "2",
            a=pa.array([1], pa.int64()),
            t=pa.array([0], pa.timestamp("us", "Europe/Berlin")),
            s=pa.array(["x"]).dictionary_encode(),
        )
        self.write(tmp_path, "3", a=pa.nulls(1), t=pa.nulls(1), s=pa.nulls(1))
        check_same_columns(find_files("*", tmp_path), "examples")

    def test_a_first_file_of_nulls_only_would_decide(self, tmp_path):
        self.write(tmp_path, "1", a=pa.nulls(1))
        self.write(tmp_path, "2", a=["x"])
        with pytest.raises(SourceError, match=r"1.parquet: a is null instead of string"):
            check_same_columns(find_files("*", tmp_path), "examples")

    def test_a_truncated_file_is_named_with_a_cure(self, months):
        whole = (months / "02.parquet").read_bytes()
        (months / "02.parquet").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(
            SourceError, match=r"02.parquet cannot be read as Parquet.* truncated.* write it again"
        ):
            check_same_columns(find_files("*", months), "examples")


class TestQueries:
    """Queries with the files that were found in place of names."""

    @pytest.fixture
    def connection(self):
        with duckdb.connect() as connection:
            yield connection

    @pytest.fixture
    def odd(self, tmp_path):
        """A folder whose name DuckDB's search path, or a pattern, would take apart."""
        folder = tmp_path / "of a, b [x]*'s"
        (folder / "é").mkdir(parents=True)
        for name in ("one", "two", "it's", "x[1]", "é/three"):
            pq.write_table(pa.table({"a": [len(name)], "name": [name]}), folder / f"{name}.parquet")
        return folder

    @pytest.mark.parametrize(
        ("sql", "names"),
        [
            ("SELECT name FROM read_parquet('*.parquet')", {"one", "two", "it's", "x[1]"}),
            ("SELECT name FROM read_parquet(['one.parquet', 't*.parquet'])", {"one", "two"}),
            ("SELECT name FROM read_parquet('**/*.parquet', union_by_name=true)", None),
            ("SELECT one.name FROM 'one.parquet' WHERE one.a = 3", {"one"}),
            ('SELECT q.name FROM "one.parquet" AS q', {"one"}),
            ("SELECT t.name FROM 't*.parquet' t -- the second\n", {"two"}),
            (
                "WITH é AS (FROM 'é/three.parquet') SELECT 'ü', name FROM é, 'two.parquet' AS b(x, y)",
                {"é/three"},
            ),
            ("SELECT name FROM read_parquet('it''s.parquet')", {"it's"}),
            ("SELECT name FROM 'x[[]1].parquet' z", {"x[1]"}),
            ("(SELECT name FROM 'one.parquet' UNION ALL SELECT 'one.parquet')", {"one", "one.parquet"}),
        ],
    )
    def test_a_query_reads_exactly_the_files_that_were_found(self, connection, odd, sql, names):
        query = open_query(connection, sql, odd, LocalSources(), "examples")
        pq.write_table(pa.table({"a": [0], "name": ["late"]}), odd / "zz.parquet")
        rows = connection.execute(query.sql).fetchall()
        expected = names or {"one", "two", "it's", "x[1]", "é/three"}
        assert {row[-1] for row in rows} == expected

    def test_columns_that_a_query_does_not_read_may_differ(self, connection, tmp_path):
        pq.write_table(pa.table({"a": [1], "b": [1]}), tmp_path / "1.parquet")
        pq.write_table(pa.table({"a": [2], "b": ["x"]}), tmp_path / "2.parquet")
        query = open_query(connection, "SELECT a FROM '*.parquet'", tmp_path, LocalSources(), "examples")
        assert connection.execute(query.sql).fetchall() == [(1,), (2,)]
        with pytest.raises(SourceError, match=r"2.parquet: b is string instead of int64"):
            open_query(connection, "SELECT a, b FROM '*.parquet'", tmp_path, LocalSources(), "examples")
        with pytest.raises(SourceError, match=r"examples: .*2.parquet: b is string"):
            open_query(connection, "SELECT * FROM '*.parquet'", tmp_path, LocalSources(), "examples")

    def test_a_name_that_cannot_be_followed_is_refused(self, connection, months):
        with pytest.raises(SourceError, match=r"write it in single quotes: '01.parquet'"):
            open_query(connection, "FROM read_parquet($$01.parquet$$)", months, LocalSources(), "examples")

    def test_an_address_needs_sources_that_know_it(self, connection):
        for place in ("https://x/a.parquet", "s3://bucket/a.parquet"):
            with pytest.raises(SourceError, match=r"is no file: only files and s3"):
                open_query(connection, f"FROM read_parquet('{place}')", None, LocalSources(), "examples")


def test_a_file_that_changes_while_it_is_read_is_not_pinned(months):
    sources = LocalSources()
    files = sources.find("*", months)
    sources.pin(files)
    pq.write_table(pa.table({"a": [1, 2, 3]}), files[0])
    with pytest.raises(SourceUnavailableError, match=r"01.parquet changed while it was read") as caught:
        sources.pin(files)
    assert caught.value.retriable


def test_relative_names_are_below_what_all_files_share():
    assert relative_names(["/x/ab/1", "/x/ac/1"]) == ["ab/1", "ac/1"]
    assert relative_names(["s3://b/k/1"]) == ["1"]
    assert relative_names([]) == []
