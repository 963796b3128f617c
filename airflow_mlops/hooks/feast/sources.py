"""
Feast's source of a feature view for each offline store, from one definition.

Feast's source classes differ by store: a view over Parquet is a ``FileSource`` for one engine and a
``SparkSource`` for another. A definition says where the rows are (``path`` for engines that read files,
``table`` or ``query`` for databases), and the offline store's type decides what Feast is given.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.hooks.connections.find import missing_connection
from airflow_mlops.hooks.feast.connection.session import feast_errors, import_feast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feast.data_source import DataSource

__all__ = ["BACKENDS", "Backend", "backend", "batch_source"]

_CONTRIB = "feast.infra.offline_stores.contrib"
_OFFLINE = "feast.infra.offline_stores"


@dataclass(frozen=True)
class Backend:
    """How a feature view's source is told to Feast for one offline store.

    :param kind: ``files``, ``spark`` or ``sql``.
    :param module: where Feast keeps the class.
    :param source: name of the class.
    :param options: further arguments of it that a definition's source may give.
    :param known: whether its point-in-time join is known to conform; a sentence where it is not.
    """

    kind: str
    module: str
    source: str
    options: tuple[str, ...] = ()
    known: str = field(default="", repr=False)


_FILES = f"{_OFFLINE}.file_source"
_DROPS = "drops examples whose features are older than the time to live, and all but one of equal ones"

#: Offline store's type → its source.
BACKENDS: dict[str, Backend] = {
    "ours": Backend("files", _FILES, "FileSource"),
    "duckdb": Backend("files", _FILES, "FileSource"),
    "file": Backend("files", _FILES, "FileSource", known=_DROPS),
    "dask": Backend("files", _FILES, "FileSource", known=_DROPS),
    "spark": Backend("spark", f"{_CONTRIB}.spark_offline_store.spark_source", "SparkSource"),
    "postgres": Backend("sql", f"{_CONTRIB}.postgres_offline_store.postgres_source", "PostgreSQLSource"),
    "snowflake.offline": Backend(
        "sql", f"{_OFFLINE}.snowflake_source", "SnowflakeSource", ("database", "schema", "warehouse")
    ),
    "bigquery": Backend(
        "sql",
        f"{_OFFLINE}.bigquery_source",
        "BigQuerySource",
        ("date_partition_column", "timestamp_field_type"),
    ),
    "redshift": Backend("sql", f"{_OFFLINE}.redshift_source", "RedshiftSource", ("database", "schema")),
    "athena": Backend(
        "sql",
        f"{_CONTRIB}.athena_offline_store.athena_source",
        "AthenaSource",
        ("database", "data_source", "date_partition_column"),
    ),
    "trino": Backend("sql", f"{_CONTRIB}.trino_offline_store.trino_source", "TrinoSource"),
}

_OURS = ("airflow_mlops.AsofOfflineStore", "asof")
_NEEDED = {"files": ["path"], "spark": ["path", "table", "query"], "sql": ["table", "query"]}
_KEYS = ("name", "path", "table", "query", "endpoint_url")


def backend(offline_store: str) -> Backend:
    """What is known of an offline store.

    :param offline_store: its type as ``feature_store.yaml`` names it.
    :raises FeatureStoreError: it is Ray, or one that sources cannot be made for.
    """
    if offline_store == "ray" or offline_store.endswith("RayOfflineStore"):
        raise FeatureStoreError(
            "offline store ray ignores the time to live of feature views: its training sets hold values that "
            "were not valid. Use spark, or airflow_mlops.AsofOfflineStore"
        )
    name = "ours" if offline_store in _OURS else offline_store
    if name not in BACKENDS:
        raise FeatureStoreError(
            f"no source can be made for offline store {offline_store!r}; known are {_OURS[0]}, "
            f"{', '.join(name for name in BACKENDS if name != 'ours')}. Apply the views of other stores from a "
            "Feast repository (repo_path)"
        )
    return BACKENDS[name]


def batch_source(offline_store: str, definition: Mapping[str, Any]) -> DataSource:
    """The source of a feature view for an offline store.

    :param offline_store: type of the store as ``feature_store.yaml`` names it.
    :param definition: of the view: ``name``, ``timestamp``, ``created`` and ``source`` with ``path``, or
        ``table`` or ``query`` for databases, and options of that store.
    :raises FeatureStoreError: the definition does not say where this store finds the rows, or Feast's
        module for the store is not installed.
    """
    chosen = backend(offline_store)
    view, source = str(definition["name"]), dict(definition["source"])
    where = f"source of feature view {view!r} for offline store {offline_store}"
    _check(source, chosen, where)
    import_feast()
    with feast_errors(where):
        kind = getattr(importlib.import_module(chosen.module), chosen.source)
        common = {
            "name": source.get("name") or f"{view}_source",
            "timestamp_field": definition["timestamp"],
            "created_timestamp_column": definition.get("created") or "",
        }
        options = {key: source[key] for key in chosen.options if source.get(key)}
        place = _PLACES[chosen.kind](source, chosen, offline_store, where)
        made: DataSource = kind(**common, **place, **options)
    return made


def _check(source: Mapping[str, Any], chosen: Backend, where: str) -> None:
    every = {*_KEYS, *(key for known in BACKENDS.values() for key in known.options)}
    if unknown := [key for key in source if key not in every]:
        raise FeatureStoreError(f"{where}: unknown {', '.join(unknown)}; expected {', '.join(sorted(every))}")
    needed = _NEEDED[chosen.kind]
    if not any(source.get(key) for key in needed):
        raise FeatureStoreError(
            f"{where}: give {' or '.join(needed)}; it has {', '.join(key for key in source if source[key]) or 'nothing'}"
        )


def _files(source: Mapping[str, Any], chosen: Backend, offline_store: str, where: str) -> dict[str, Any]:
    from feast.data_format import ParquetFormat

    path = str(source["path"])
    found: dict[str, Any] = {"file_format": ParquetFormat()}
    if chosen is BACKENDS["ours"]:  # it opens S3 by the Airflow connection in the address
        return {**found, "path": path}
    endpoint = source.get("endpoint_url")
    if path.startswith("s3://"):
        path, endpoint = _plain_s3(path, endpoint, where)
    if offline_store == "duckdb" and not path.endswith(".parquet"):
        path = f"{path.rstrip('/')}/**/*.parquet"  # it reads patterns, and no folders
    return {**found, "path": path, **({"s3_endpoint_override": endpoint} if endpoint else {})}


def _spark(source: Mapping[str, Any], chosen: Backend, offline_store: str, where: str) -> dict[str, Any]:  # noqa: ARG001
    if not source.get("path"):
        return {key: source[key] for key in ("table", "query") if source.get(key)}
    path = str(source["path"])
    if path.startswith("s3://"):
        path = f"s3a://{_plain_s3(path, None, where)[0].removeprefix('s3://')}"
    return {"path": path, "file_format": "parquet"}


def _sql(source: Mapping[str, Any], chosen: Backend, offline_store: str, where: str) -> dict[str, Any]:  # noqa: ARG001
    # Both at once mean different things to different stores: the query is what is read.
    return {"query": source["query"]} if source.get("query") else {"table": source["table"]}


def _plain_s3(path: str, endpoint: str | None, where: str) -> tuple[str, str | None]:
    """An address without the Airflow connection in it, and the endpoint of that connection.

    As everywhere in this package, an address that names none is opened by ``aws_default``; without such a
    connection the engine's own settings hold.
    """
    from airflow_mlops.hooks.s3.client import split_s3

    named = "@" in path.removeprefix("s3://").partition("/")[0]
    at = split_s3(path)
    return at.url, endpoint or _endpoint(at.conn_id, where, needed=named)


def _endpoint(conn_id: str, where: str, *, needed: bool) -> str | None:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        extra = BaseHook.get_connection(conn_id).extra_dejson
    except AirflowNotFoundException as error:
        missing = missing_connection(conn_id, FeatureStoreError, "aws", f"of {where}")
        if needed or missing.retriable:
            raise missing from error
        return None
    own = (extra.get("service_config") or {}).get("s3") or {}
    return own.get("endpoint_url") or extra.get("endpoint_url") or None


_PLACES = {"files": _files, "spark": _spark, "sql": _sql}
