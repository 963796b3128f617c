"""Names and types of the columns of files: what is one column to SQL, and what is one type."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.sources.columns import check_columns, check_same_columns


@pytest.fixture
def put(tmp_path):
    def write(name, **columns):
        pq.write_table(pa.table(columns), tmp_path / name)
        return str(tmp_path / name)

    return write


def test_columns_that_differ_by_case_are_refused_in_one_file_and_between_files(put):
    twins = put("twins.parquet", A=[1], a=[2], b=[3])
    with pytest.raises(
        SourceError, match=r"twins.parquet has the column 'A' and 'a', .* Cure: give one of them"
    ):
        check_same_columns([twins], "examples")
    with pytest.raises(SourceError, match="'A' and 'a'"):
        check_columns([twins], ["a"], "view")
    check_same_columns([twins], "examples", only=["B"])
    check_columns([twins], ["b"], "view")
    files = [put("1.parquet", A=[1]), put("2.parquet", a=[1])]
    with pytest.raises(SourceError, match=r"1.parquet has the column 'A', and .*2.parquet has 'a'"):
        check_same_columns(files, "examples", absent=True)


def test_a_name_that_stands_twice_in_a_file_is_refused(tmp_path):
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a.parquet has the column 'a' twice"):
        check_same_columns([str(tmp_path / "a.parquet")], "examples")


def struct(a: pa.DataType) -> pa.DataType:
    return pa.struct([("a", a), ("b", pa.list_(pa.string()))])


@pytest.mark.parametrize(
    ("one", "other", "go_together"),
    [
        (pa.list_(pa.float64()), pa.list_(pa.field("element", pa.float64())), True),
        (pa.list_(pa.float64()), pa.large_list(pa.float64()), True),
        (pa.list_(pa.int32()), pa.list_(pa.int64()), True),
        (struct(pa.int32()), struct(pa.int64()), True),
        (pa.list_(struct(pa.int8())), pa.list_(struct(pa.int64())), True),
        (pa.map_(pa.string(), pa.int32()), pa.map_(pa.string(), pa.int64()), True),
        (pa.list_(pa.int64()), pa.list_(pa.float64()), False),
        (struct(pa.int64()), struct(pa.float64()), False),
        (struct(pa.int64()), pa.struct([("c", pa.int64())]), False),
        (pa.list_(pa.int64()), pa.int64(), False),
    ],
)
def test_nested_types_go_together_as_their_parts_do(tmp_path, one, other, go_together):
    for name, kind in (("a", one), ("b", other)):
        table = pa.table({"v": pa.array([None], kind)})
        pq.write_table(table, tmp_path / f"{name}.parquet", use_compliant_nested_type=name == "a")
    files = [str(tmp_path / f"{name}.parquet") for name in "ab"]
    if go_together:
        check_same_columns(files, "examples")
        return
    with pytest.raises(SourceError, match=r"column types differ"):
        check_same_columns(files, "examples")
