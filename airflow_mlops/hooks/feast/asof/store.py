"""
A Feast offline store that joins all feature views of a request by one DuckDB query.

In ``feature_store.yaml``::

    offline_store:
      type: airflow_mlops.AsofOfflineStore
      memory_limit: 2GB

The rules are those of :mod:`airflow_mlops.primitives.datasets.point_in_time`. Everything but
the training-set join is Feast's own DuckDB store. This module imports Feast and is imported by it:
nothing else may do so at module level.
"""

# ruff: noqa: TID253 - Feast loads this module by name when it needs it, nobody else does
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView

from airflow_mlops.database import connect
from airflow_mlops.exceptions import FeatureStoreError, SpecError, StoreError
from airflow_mlops.hooks.feast.asof.files import ViewFiles, s3_errors
from airflow_mlops.hooks.feast.asof.job import AsofRetrievalJob, JoinRequest, duckdb_errors
from airflow_mlops.hooks.feast.asof.plan import plan_views
from airflow_mlops.hooks.feast.asof.pull import PullJob, pull_rows
from airflow_mlops.hooks.scratch import ScratchFolder, scratch_folder
from airflow_mlops.primitives.sql.words import identifier, literal, one_query

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd
    import pyarrow as pa
    from feast import FeatureView
    from feast.data_source import DataSource
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_config import RepoConfig

__all__ = ["AsofOfflineStore", "AsofOfflineStoreConfig", "AsofRetrievalJob"]

_GIVEN, _EXAMPLES, _ROW = "_given_rows", "_entity_rows", "__asof_row"


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """
    Configuration of :class:`AsofOfflineStore`.

    :param memory_limit: what DuckDB may hold in memory before it uses the disk.
    :param threads: CPU threads; all of the machine by default.
    :param temp_directory: where it spills, in a folder of its own for each join; the system's by default.
    :param max_temp_directory_size: how much of that folder's disk it may take, such as ``20GB``; what is
        free by default.
    :param filter_by_created_timestamp: whether a feature row counts only from the time it was created.
        ``True``, unlike Feast's own default: otherwise a backfill leaks the future into training data.
    :param matched_times: whether results also say which row was taken of each view, by its times:
        ``<view>__event_timestamp`` and ``<view>__created_timestamp``.
    :param aws_conn_id: Airflow connection of type ``aws`` for sources on S3 that name none; without it the
        environment's login.
    """

    type: str = "airflow_mlops.AsofOfflineStore"
    memory_limit: str = "2GB"
    threads: int | None = None
    temp_directory: str | None = None
    max_temp_directory_size: str | None = None
    filter_by_created_timestamp: bool = True
    matched_times: bool = False
    aws_conn_id: str | None = None


class AsofOfflineStore(DuckDBOfflineStore):
    """Feast's DuckDB store with a training-set join that loses no row and streams to Parquet."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | str,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        *,
        start_date: datetime | None = None,  # noqa: ARG004 - only without entity rows
        end_date: datetime | None = None,  # noqa: ARG004
    ) -> AsofRetrievalJob:
        """Plan the join of the requested features to the examples.

        The examples are read here and once, so that a query that is not the same twice does no harm.

        :param entity_df: examples as a DuckDB query, the path of a Parquet file or a pattern of them,
            ``read_parquet(…)``, a pandas frame or an Arrow table. Their time is ``event_timestamp``, or else
            the only column that is a time.
        :param filter_by_created_timestamp: filter even if ``feature_store.yaml`` says not to; Feast cannot
            tell a caller who says no from one who says nothing.
        """
        if entity_df is None:
            raise FeatureStoreError(
                "give entity rows: this offline store has no retrieval by time range alone"
            )
        settings = config.offline_store
        files = ViewFiles(settings.aws_conn_id, Path(config.repo_path) if config.repo_path else None)
        spill = _spill_folder(settings.temp_directory)
        connection = connect()
        try:
            _configure(connection, settings, spill.name)
            examples = _read_examples(connection, entity_df, files, spill.name)
            views = plan_views(
                feature_views,
                feature_refs,
                files,
                full_names=full_feature_names,
                between=examples.between,
                examples=examples.rows,
            )
            files.register(connection)
            request = JoinRequest(
                entities=_EXAMPLES,
                columns=tuple(examples.columns),
                timestamp=examples.timestamp,
                row=_ROW,
                views=views,
                between=examples.between,
                filter_by_created=filter_by_created_timestamp or settings.filter_by_created_timestamp,
                matched=settings.matched_times,
            )
            request.sql()  # says what does not fit, now
        except BaseException:
            connection.close()
            spill.cleanup()
            raise
        first, last = examples.between or (None, None)
        return AsofRetrievalJob(
            connection,
            request,
            RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in examples.columns if name != examples.timestamp],
                min_event_timestamp=first,
                max_event_timestamp=last,
            ),
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            full_feature_names=full_feature_names,
            repo_path=config.repo_path,
            spill=spill,
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> PullJob:
        """The newest row of each key in a window, of the files that the join reads."""
        columns = (join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
        return pull_rows(config, data_source, *columns, (start_date, end_date), latest=True)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> PullJob:
        """All rows in a window, of the files that the join reads."""
        columns = (join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
        return pull_rows(config, data_source, *columns, (start_date, end_date), latest=False)


@dataclass(frozen=True)
class _Examples:
    """Examples as a table of the connection: DuckDB type by column, and what is known of their time."""

    columns: dict[str, str]
    timestamp: str
    between: tuple[datetime, datetime] | None
    rows: int


def _spill_folder(parent: str | None) -> ScratchFolder:
    try:
        return scratch_folder(parent)
    except StoreError as error:
        raise FeatureStoreError(
            f"no folder to spill to: {error}; or name one that can be written to, by temp_directory in "
            "feature_store.yaml"
        ) from error


def _configure(connection: duckdb.DuckDBPyConnection, settings: AsofOfflineStoreConfig, spill: str) -> None:
    try:
        connection.execute(f"SET memory_limit={literal(settings.memory_limit)}")
        connection.execute(f"SET temp_directory={literal(spill)}")
        if settings.max_temp_directory_size:
            connection.execute(f"SET max_temp_directory_size={literal(settings.max_temp_directory_size)}")
        if settings.threads:
            connection.execute(f"SET threads={int(settings.threads)}")
    except duckdb.Error as error:
        raise FeatureStoreError(f"offline_store in feature_store.yaml: {error}") from error


def _read_examples(
    connection: duckdb.DuckDBPyConnection, rows: pd.DataFrame | pa.Table | str, files: ViewFiles, spill: str
) -> _Examples:
    """Number the examples in the order in which they are given."""
    with duckdb_errors("reading the entity rows", spill):
        given = _given(connection, rows, files)
        columns = _describe(connection, given)
        timestamp = _time_column(columns)
        if _ROW in columns:
            raise FeatureStoreError(f"the entity rows have a column {_ROW}, which is taken; rename it")
        time = f"{identifier(timestamp)}::TIMESTAMPTZ"
        table = f"CREATE TEMP TABLE {_EXAMPLES} AS SELECT *, row_number() OVER () AS {_ROW} FROM {given}"
        try:
            connection.execute(table)
            found = connection.execute(
                f"SELECT min({time}), max({time}), count(*) FROM {_EXAMPLES}"
            ).fetchone()
        except (duckdb.ConversionException, duckdb.InvalidInputException) as error:
            raise FeatureStoreError(f"the entity rows cannot be read: {error}") from error
        # From here on the order is that of the numbers.
        connection.execute("SET preserve_insertion_order=false")
    first, last, count = found or (None, None, 0)
    return _Examples(columns, timestamp, (first, last) if first is not None else None, count)


def _given(
    connection: duckdb.DuckDBPyConnection, rows: pd.DataFrame | pa.Table | str, files: ViewFiles
) -> str:
    """What stands behind FROM."""
    if not isinstance(rows, str):
        connection.register(_GIVEN, rows)
        return _GIVEN
    if "s3://" in rows:
        files.use_s3()
        files.register(connection)
    text = rows.strip()
    if not any(sign.isspace() or sign in "();" for sign in text):  # a path, and no query
        return literal(text)
    if text.lower().startswith(("read_", "parquet_scan")):
        text = f"FROM {text}"
    try:
        return one_query(text, "entity rows")
    except (duckdb.Error, SpecError) as error:
        raise FeatureStoreError(f"the entity rows cannot be read: {error}") from error


def _describe(connection: duckdb.DuckDBPyConnection, given: str) -> dict[str, str]:
    try:
        if "s3://" in given:
            with s3_errors("reading the entity rows"):
                described = connection.execute(f"DESCRIBE SELECT * FROM {given}").fetchall()
        else:
            described = connection.execute(f"DESCRIBE SELECT * FROM {given}").fetchall()
    except duckdb.Error as error:
        raise FeatureStoreError(f"the entity rows cannot be read: {error}") from error
    return {str(row[0]): str(row[1]) for row in described}


def _time_column(columns: dict[str, str]) -> str:
    if "event_timestamp" in columns:
        return "event_timestamp"
    times = [name for name, kind in columns.items() if kind.startswith("TIMESTAMP")]
    if len(times) != 1:
        raise FeatureStoreError(
            "the entity rows need a column event_timestamp, or exactly one column that is a time; they have "
            + ", ".join(f"{name} {kind}" for name, kind in columns.items())
        )
    return times[0]
