"""How new the rows of a feature view are, asked of the source itself."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.database import connect, raised_outside
from airflow_mlops.exceptions import FeatureStoreError, SourceError
from airflow_mlops.primitives.sql.words import identifier, literal, parquet

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

__all__ = ["newest_row"]

#: How far back stores that cannot be asked for a maximum are searched.
_REACH = timedelta(days=7)


def newest_row(store: FeatureStore, view: FeatureView, until: datetime) -> datetime | None:
    """Event time of the newest row that is not after ``until``.

    Files tell it by their statistics, databases by a query. A row of the future does not make a view fresh.

    :raises SourceError: the files cannot be read.
    :raises FeatureStoreError: the view has no stored rows.
    """
    source: Any = getattr(view, "batch_source", None)
    if source is None:
        raise FeatureStoreError(f"{view.name!r} has no rows of its own: name the views that it reads")
    kind = type(source).__name__
    if kind == "FileSource":
        return _of_files(store, source, until)
    if kind == "PostgreSQLSource":
        return _of_postgres(store, source, until)
    if kind == "SparkSource":
        return _of_spark(store, source, until)
    return _of_any(store, view, source, until)


def _of_files(store: FeatureStore, source: Any, until: datetime) -> datetime | None:
    import duckdb

    from airflow_mlops.hooks.feast.asof.files import ViewFiles

    settings, repo = store.config.offline_store, store.config.repo_path
    sources = ViewFiles(getattr(settings, "aws_conn_id", None), Path(repo) if repo else None)
    files = sources.find(source.path, source.s3_endpoint_override or None)
    column = _column(source)
    bounds = [footer.bounds.get(column) for footer in sources.footers(files, (column,)) if footer.rows]
    known = [bound[1] for bound in bounds if bound]
    if len(known) == len(bounds) and max(known, default=until) <= until:
        return max(known, default=None)
    with connect() as connection:
        sources.register(connection)
        time = f"{identifier(column)}::TIMESTAMPTZ"
        query = f"SELECT max({time}) FROM {parquet(files)} WHERE {time} <= {literal(until)}::TIMESTAMPTZ"
        try:
            return _first(connection.execute(query).fetchone())
        except duckdb.Error as error:
            if (outside := raised_outside(error)) is not None:
                raise outside from error
            raise SourceError(f"{source.path}: newest {column}: {error}") from error


def _of_postgres(store: FeatureStore, source: Any, until: datetime) -> datetime | None:
    module = importlib.import_module("feast.infra.utils.postgres.connection_utils")
    column = identifier(_column(source))
    query = (
        f"SELECT max({column}) FROM {source.get_table_query_string()} AS feature_rows WHERE {column} <= %s"
    )
    with module._get_conn(store.config.offline_store) as connection, connection.cursor() as cursor:  # noqa: SLF001
        cursor.execute("SET TIME ZONE 'UTC'")
        return _first(cursor.execute(query, (until,)).fetchone())


def _of_spark(store: FeatureStore, source: Any, until: datetime) -> datetime | None:
    from airflow_mlops.hooks.feast.join import spark_session

    session = spark_session(store.config.offline_store)
    column = f"`{_column(source)}`"
    moment = until.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    query = (
        f"SELECT CAST(unix_micros(max({column})) AS BIGINT) FROM {source.get_table_query_string()} "
        f"WHERE {column} <= TIMESTAMP '{moment}'"
    )
    found = session.sql(query).first()[0]
    return None if found is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=found)


def _of_any(store: FeatureStore, view: FeatureView, source: Any, until: datetime) -> datetime | None:
    offline: Any = store._get_provider().offline_store  # noqa: SLF001
    keys = [column.name for column in view.entity_columns if column.name != "__dummy_id"]
    job = offline.pull_all_from_table_or_query(
        config=store.config,
        data_source=source,
        join_key_columns=keys,
        feature_name_columns=[],
        timestamp_field=source.timestamp_field,
        start_date=until - _REACH,
        end_date=until,
    )
    import pyarrow.compute as pc

    table = job.to_arrow()
    return _first((pc.max(table.column(source.timestamp_field)).as_py(),))


def _column(source: Any) -> str:
    """The time's column in the source, whatever the view calls it."""
    back = {feast: column for column, feast in (source.field_mapping or {}).items()}
    return str(back.get(source.timestamp_field, source.timestamp_field))


def _first(row: Any) -> datetime | None:
    found = row[0] if row else None
    if found is None:
        return None
    moment: datetime = found
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
