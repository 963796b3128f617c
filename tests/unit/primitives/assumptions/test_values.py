from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.primitives.assumptions import check_table, parse_assumptions


def passes(tmp_path, values: pa.Array, **rule) -> bool:
    table = pa.table({"n": range(len(values)), "x": values})
    pq.write_table(table, tmp_path / "rows.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    with duckdb.connect() as connection:
        rules = parse_assumptions([{"column": "x", **rule}])
        (finding,) = check_table(connection, rules, tmp_path / "rows.parquet", types, order="n", shown=["n"])
    return finding.passed


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({"between": [0.1, 0.1]}, True),
        ({"between": [0.2, 0.3]}, False),
        ({"one_of": [0.1]}, True),
        ({"one_of": [0.2]}, False),
        ({"above": 0.1}, False),
        ({"below": 0.1}, False),
        ({"above": 0.09}, True),
    ],
)
def test_a_bound_is_as_narrow_as_its_column(tmp_path, rule, holds):
    assert passes(tmp_path, pa.array([0.1, None], pa.float32()), **rule) is holds


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({"type": "string"}, True),
        ({"between": [1, 2]}, True),
        ({"above": 1}, True),
        ({"one_of": ["a"]}, True),
        ({"matches": "[a-z]+"}, True),
        ({"length": [1, 2]}, True),
        ({"not_null": True}, False),
        ({"max_null_share": 0.5}, False),
        ({"max_null_share": 1.0}, True),
    ],
)
def test_a_column_without_any_value_breaks_only_rules_about_missing_ones(tmp_path, rule, holds):
    assert passes(tmp_path, pa.nulls(3), **rule) is holds
