"""One definition, and what each offline store is told: the warehouses cannot run here, so what would go out is looked at."""

from __future__ import annotations

import pytest

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.hooks.feast.connection.config import OUR_STORE
from airflow_mlops.hooks.feast.objects import describe
from airflow_mlops.hooks.feast.sources import BACKENDS, backend, batch_source
from tests.fixtures.feast_store import view


def source(store, **changes):
    definition = view("/srv/features/weather/data")
    definition["source"] = {**definition["source"], **changes}
    return batch_source(store, definition)


@pytest.mark.parametrize(
    ("store", "kind", "place"),
    [
        (OUR_STORE, "FileSource", {"path": "/srv/features/weather/data"}),
        ("asof", "FileSource", {"path": "/srv/features/weather/data"}),
        ("dask", "FileSource", {"path": "/srv/features/weather/data"}),
        ("file", "FileSource", {"path": "/srv/features/weather/data"}),
        ("duckdb", "FileSource", {"path": "/srv/features/weather/data/**/*.parquet"}),
        (
            "spark",
            "SparkSource",
            {"path": "/srv/features/weather/data", "file_format": "parquet", "table": ""},
        ),
        ("postgres", "PostgreSQLSource", {}),
        ("snowflake.offline", "SnowflakeSource", {"table": "weather_rows"}),
        ("bigquery", "BigQuerySource", {"table": "weather_rows"}),
        ("redshift", "RedshiftSource", {"table": "weather_rows"}),
        ("athena", "AthenaSource", {"table": "weather_rows"}),
    ],
)
def test_each_store_gets_its_own_source(store, kind, place):
    made = source(store)
    assert type(made).__name__ == kind
    for name, value in place.items():
        assert (getattr(made, name) or "") == value
    assert (made.name, made.timestamp_field, made.created_timestamp_column) == (
        "weather_rows",
        "time",
        "created",
    )
    again = type(made).from_proto(made.to_proto())  # what the registry keeps
    assert describe(again) == describe(made)


@pytest.mark.parametrize(
    ("store", "changes", "query"),
    [
        ("postgres", {"table": "public.weather"}, "public.weather"),
        ("postgres", {"query": "SELECT * FROM w"}, "(SELECT * FROM w)"),
        ("bigquery", {"table": "project.set.weather"}, "`project.set.weather`"),
        ("snowflake.offline", {"database": "D", "schema": "S"}, '"D"."S"."weather_rows"'),
        ("redshift", {"schema": "s", "database": "d"}, '"s"."weather_rows"'),
        ("athena", {"database": "d", "data_source": "AwsDataCatalog"}, '"AwsDataCatalog"."d"."weather_rows"'),
        ("spark", {"path": None, "table": "lake.weather"}, "`lake`.`weather`"),
    ],
)
def test_the_sql_that_would_go_out(store, changes, query):
    assert source(store, **changes).get_table_query_string() == query


def test_s3_is_spelled_for_each_engine(monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_LAKE", '{"conn_type": "aws", "extra": {"endpoint_url": "http://127.0.0.1:9000"}}'
    )
    path = "s3://lake@features/weather/data"
    assert source(OUR_STORE, path=path).path == path  # it opens S3 by that connection
    assert source("spark", path=path).path == "s3a://features/weather/data"
    for store in ("dask", "duckdb"):
        made = source(store, path=path)
        pattern = "/**/*.parquet" if store == "duckdb" else ""  # it lists no folders
        assert made.path == f"s3://features/weather/data{pattern}"
        assert made.s3_endpoint_override == "http://127.0.0.1:9000"
    plain = path.replace("lake@", "")
    assert source("dask", path=plain).s3_endpoint_override == ""  # the engine's own settings
    extra = '{"endpoint_url": "http://a", "service_config": {"s3": {"endpoint_url": "http://b"}}}'
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", f'{{"conn_type": "aws", "extra": {extra}}}')
    assert source("dask", path=plain).s3_endpoint_override == "http://b"  # that of the store which published
    with pytest.raises(FeatureStoreError, match="no Airflow connection 'nobody'"):
        source("dask", path="s3://nobody@features/weather")


@pytest.mark.parametrize(
    ("store", "changes", "said"),
    [
        ("ray", {}, "ray ignores the time to live"),
        ("mssql", {}, "no source can be made for offline store 'mssql'; known are .*repo_path"),
        (OUR_STORE, {"path": None}, "give path; it has name, table"),
        ("postgres", {"table": None}, "give table or query; it has name, path"),
        ("postgres", {"tabel": "x"}, "unknown tabel; expected"),
    ],
)
def test_what_cannot_be_meant_is_said(store, changes, said):
    with pytest.raises(FeatureStoreError, match=said):
        source(store, **changes)


def test_a_module_that_is_missing_is_named_with_its_cure(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyspark", None)
    for name in [name for name in sys.modules if "spark_source" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(
        sys.modules, "feast.infra.offline_stores.contrib.spark_offline_store.spark_source", None
    )
    with pytest.raises(FeatureStoreError, match=r"pip install 'airflow-mlops\[spark\]'"):
        source("spark")
    try:
        import trino  # noqa: F401
    except ImportError:
        with pytest.raises(FeatureStoreError, match=r"pip install 'feast\[trino\]'"):
            source("trino")


def test_known_weaknesses_are_known_by_name():
    assert {name for name, found in BACKENDS.items() if found.known} == {"file", "dask"}
    assert "drops examples" in backend("dask").known
