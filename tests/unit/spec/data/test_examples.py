"""``examples:``: tables and where they are."""

from __future__ import annotations

import pytest
import yaml

from airflow_mlops.spec.data.examples import Examples

SQL = "sql: SELECT * FROM flights\nkeys: [id]\ntimestamp: at\ntargets: [late]\n"


def examples(text: str) -> Examples:
    return Examples.model_validate(yaml.safe_load(SQL + text))


def test_tables_are_handed_on_as_they_were_said():
    found = examples(
        "connection: lake\ntables:\n  flights: {delta: s3://lake/flights, version: 3}\n"
        "  rides: {iceberg: lake.city.rides, snapshot: 5}\n  weather: {parquet: weather/*.parquet}\n"
    ).to_json()
    assert found["connection"] == "lake"
    assert found["tables"] == {
        "flights": {"delta": "s3://lake/flights", "version": 3},
        "rides": {"iceberg": "lake.city.rides", "snapshot": 5},
        "weather": {"parquet": "weather/*.parquet"},
    }
    assert "tables" not in examples("").to_json()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ("{flights: {}}", "is no table"),
        ("{flights: {delta: a, parquet: b}}", "is several tables"),
        ("{flights: {iceberg: a.b.c, version: 3}}", "is for delta tables only"),
        ("{flights: {delta: a, snapshot: 3}}", "is for iceberg tables only"),
        ("{'flights; DROP': {delta: a}}", "pattern"),
        ("{examples: {delta: a}}", "reserved"),
        ("{}", "at least 1"),
    ],
)
def test_what_is_no_table_is_refused(tables, message):
    with pytest.raises(ValueError, match=message):
        examples(f"tables: {tables}\n")


def test_tables_beside_parquet_are_refused():
    with pytest.raises(ValueError, match="stands beside tables"):
        Examples.model_validate(
            yaml.safe_load(
                SQL.replace("sql: SELECT * FROM flights", "parquet: a") + "tables: {f: {delta: a}}"
            )
        )
