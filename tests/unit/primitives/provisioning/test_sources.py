"""Files behind a dataset."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.provisioning import sources
from airflow_mlops.primitives.provisioning.sources import (
    check_columns,
    check_same_columns,
    files_in_query,
    find_files,
    first_file_decides,
    pin_files,
)


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


def test_files_of_a_query(months):
    sql = (
        "WITH one AS (FROM read_parquet('01.parquet')) SELECT * FROM one JOIN '02.parquet' USING (a) "
        "WHERE a IN (SELECT a FROM read_parquet(['0[12].parquet', '03.parquet'], union_by_name=true)) "
        "AND a NOT IN (SELECT a FROM read_parquet('s3://bucket/a.parquet'))"
    )
    with duckdb.connect() as connection:
        serialized = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()[0]
    files = files_in_query(serialized, months)
    assert set(files) == {"01.parquet", "02.parquet", "0[12].parquet", "03.parquet"}
    assert files["0[12].parquet"] == (str(months / "01.parquet"), str(months / "02.parquet"))


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


def test_a_large_file_is_pinned_by_its_footer(months, monkeypatch):
    monkeypatch.setattr(sources, "_WHOLE", 10)
    pins = pin_files(find_files("*", months))
    assert [sorted(pin) for pin in pins] == [["bytes", "file", "footer_sha256"]] * 3
    assert len({pin["footer_sha256"] for pin in pins}) == 3
