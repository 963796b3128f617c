"""
A Feast offline store that joins all feature views of a request by one DuckDB query.

In ``feature_store.yaml``::

    offline_store:
      type: airflow_mlops.hooks.feast_asof.AsofOfflineStore
      memory_limit: 2GB

The rules are those of :mod:`airflow_mlops.primitives.provisioning.point_in_time`. Everything but
the training-set join is Feast's own DuckDB store. This module imports Feast and is imported by it:
nothing else may do so at module level.
"""

# ruff: noqa: TID253 - Feast loads this module by name when it needs it, nobody else does
from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView

from airflow_mlops.exceptions import FeatureStoreError, SourceError
from airflow_mlops.primitives.provisioning.point_in_time import FeatureColumn, JoinKey, ViewPlan, compile_join
from airflow_mlops.primitives.provisioning.sources import check_columns, find_files
from airflow_mlops.primitives.sql import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import pandas as pd
    import pyarrow as pa
    from feast import FeatureView
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_config import RepoConfig
    from feast.saved_dataset import SavedDatasetStorage

__all__ = ["AsofOfflineStore", "AsofOfflineStoreConfig", "AsofRetrievalJob", "plan_views"]

_ENTITY_TABLE = "_entity_rows"


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """
    Configuration of :class:`AsofOfflineStore`.

    :param memory_limit: what DuckDB may hold in memory before it uses the disk.
    :param threads: CPU threads; all of the machine by default.
    :param temp_directory: where it spills; a temporary folder by default.
    :param filter_by_created_timestamp: whether a feature row counts only from the time it was created.
        ``True``, unlike Feast's own default: otherwise a backfill leaks the future into training data.
    """

    type: str = "airflow_mlops.hooks.feast_asof.AsofOfflineStore"
    memory_limit: str = "2GB"
    threads: int | None = None
    temp_directory: str | None = None
    filter_by_created_timestamp: bool = True


class AsofRetrievalJob(RetrievalJob):
    """A join that is ready to run.

    :param connection: a DuckDB connection of its own, with the example rows.
    :param query: the query.
    :param views: the feature views as they were compiled.
    :param metadata: what Feast wants to know about the request.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        query: str,
        views: tuple[ViewPlan, ...],
        metadata: RetrievalMetadata,
        *,
        on_demand: list[OnDemandFeatureView],
        full_feature_names: bool,
        repo_path: Path | None,
        spill: tempfile.TemporaryDirectory[str] | None,
    ) -> None:
        self._connection = connection
        self._query = query
        self.views = views
        self._metadata = metadata
        self._on_demand = on_demand
        self._full_feature_names = full_feature_names
        self._repo_path = repo_path
        self._spill = spill

    @property
    def full_feature_names(self) -> bool:
        """Whether feature names carry the name of their view."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Views that are computed after the join."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        """Features, keys and time range of the request."""
        return self._metadata

    def to_sql(self) -> str:
        """The DuckDB query; the session's time zone must be UTC."""
        return self._query

    def to_reader(self, rows: int = 100_000) -> pa.RecordBatchReader:
        """The joined rows as a stream of Arrow batches, without on-demand views."""
        return self._run(self._query).to_arrow_reader(rows)

    def to_parquet(self, destination: Path) -> int:
        """Write the joined rows, on-demand views included, and say how many there are.

        Without on-demand views the rows are streamed and never lie in memory as a whole.
        """
        if self._on_demand:
            import pyarrow.parquet as pq

            table = self.to_arrow()
            pq.write_table(table, destination, compression="zstd")
            return int(table.num_rows)
        copy = f"COPY ({self._query}) TO {literal(str(destination))} (FORMAT parquet, COMPRESSION zstd)"
        written = self._run(copy).fetchone()
        return int(written[0]) if written else 0

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,
        timeout: int | None = None,  # noqa: ARG002 - Feast's signature
    ) -> None:
        """Write the joined rows to a saved dataset's Parquet file, whole or not at all."""
        from feast.errors import SavedDatasetLocationAlreadyExists

        source = storage.to_data_source()
        if not isinstance(source, FileSource) or "://" in source.path.removeprefix("file://"):
            raise FeatureStoreError(
                "this offline store persists to local Parquet files: give SavedDatasetFileStorage"
            )
        uri = FileSource.get_uri_for_file_path(repo_path=self._repo_path, uri=source.path)
        target = Path(str(uri).removeprefix("file://"))
        if not allow_overwrite and target.exists():
            raise SavedDatasetLocationAlreadyExists(location=str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            self.to_parquet(half)
            half.replace(target)
        finally:
            half.unlink(missing_ok=True)

    def close(self) -> None:
        """Free memory and spilled files; the job cannot run any more."""
        self._connection.close()
        if self._spill is not None:
            self._spill.cleanup()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return self._run(self._query).to_arrow_table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def _run(self, query: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._connection.execute(query)
        except duckdb.OutOfMemoryException as error:
            raise FeatureStoreError(
                f"the point-in-time join needs more than its memory limit ({error}); raise memory_limit in "
                "feature_store.yaml, or ask for a shorter window"
            ) from error
        except duckdb.Error as error:
            names = ", ".join(view.name for view in self.views)
            raise FeatureStoreError(f"the point-in-time join of {names} failed: {error}") from error


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

        :param entity_df: examples as a DuckDB query, a pandas frame or an Arrow table. Their time is
            ``event_timestamp``, or else the only column that is a time.
        :param filter_by_created_timestamp: filter even if ``feature_store.yaml`` says not to; Feast cannot
            tell a caller who says no from one who says nothing.
        """
        if entity_df is None:
            raise FeatureStoreError(
                "give entity rows: this offline store has no retrieval by time range alone"
            )
        settings = config.offline_store
        views = plan_views(feature_views, feature_refs, config.repo_path, full_names=full_feature_names)
        spill = None if settings.temp_directory else tempfile.TemporaryDirectory(prefix="airflow-mlops-")
        connection = _connect(settings, settings.temp_directory or str(spill.name if spill else ""))
        try:
            entities = _register(connection, entity_df)
            columns = _describe(connection, entities)
            timestamp = _time_column(columns)
            between = _time_range(connection, entities, timestamp)
            created = filter_by_created_timestamp or settings.filter_by_created_timestamp
            query = compile_join(
                entities, list(columns), timestamp, views, between=between, filter_by_created=created
            )
        except BaseException:
            connection.close()
            if spill is not None:
                spill.cleanup()
            raise
        first, last = between or (None, None)
        return AsofRetrievalJob(
            connection,
            query,
            views,
            RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in columns if name != timestamp],
                min_event_timestamp=first,
                max_event_timestamp=last,
            ),
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            full_feature_names=full_feature_names,
            repo_path=config.repo_path,
            spill=spill,
        )


def plan_views(
    feature_views: Sequence[FeatureView],
    feature_refs: Sequence[str],
    repo_path: Path | None,
    *,
    full_names: bool = False,
) -> tuple[ViewPlan, ...]:
    """Describe the requested views, their files found and checked for the columns that are needed.

    :raises FeatureStoreError: a view's source is not a Parquet file source.
    :raises SourceError: a file or a column is missing.
    """
    return tuple(_plan(view, feature_refs, repo_path, full_names) for view in feature_views)


def _plan(view: FeatureView, refs: Sequence[str], repo_path: Path | None, full_names: bool) -> ViewPlan:
    source = view.batch_source
    if not isinstance(source, FileSource) or "://" in source.path:
        kind = source.path if isinstance(source, FileSource) else type(source).__name__
        raise FeatureStoreError(
            f"feature view {view.name!r} reads from {kind}; this offline store reads local Parquet "
            "files (FileSource). Use the offline store of that source in feature_store.yaml"
        )
    columns = {feast: column for column, feast in source.field_mapping.items()}
    created = source.created_timestamp_column
    used = view.projection.name_to_use()  # type: ignore[no-untyped-call]
    label = view.projection.name_alias or view.name
    names = [ref.split(":", 1)[1] for ref in refs if ref.split(":", 1)[0] == used]
    renamed = view.projection.join_key_map
    owner = f"feature view {view.name!r}"
    try:
        files = find_files(source.path, Path(repo_path) if repo_path else None)
    except SourceError as error:
        raise SourceError(f"{owner}: {error}") from error
    plan = ViewPlan(
        name=label,
        paths=files,
        keys=tuple(
            JoinKey(columns.get(key.name, key.name), renamed.get(key.name, key.name))
            for key in view.entity_columns
            if key.name != "__dummy_id"
        ),
        timestamp=columns.get(source.timestamp_field, source.timestamp_field),
        created=columns.get(created, created) or None,
        ttl=view.ttl or ViewPlan.ttl,
        features=tuple(
            FeatureColumn(columns.get(name, name), f"{label}__{name}" if full_names else name)
            for name in names
        ),
    )
    check_columns(files, plan.columns, owner)
    return plan


def _connect(settings: AsofOfflineStoreConfig, spill: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    try:
        connection.execute(
            "SET TimeZone='UTC'; SET enable_progress_bar=false; SET preserve_insertion_order=false"
        )
        connection.execute(f"SET memory_limit={literal(settings.memory_limit)}")
        connection.execute(f"SET temp_directory={literal(spill)}")
        if settings.threads:
            connection.execute(f"SET threads={int(settings.threads)}")
    except duckdb.Error as error:
        connection.close()
        raise FeatureStoreError(f"offline_store in feature_store.yaml: {error}") from error
    return connection


def _register(connection: duckdb.DuckDBPyConnection, rows: pd.DataFrame | pa.Table | str) -> str:
    if isinstance(rows, str):
        return f"({rows.strip().rstrip(';')}\n)"  # it may end in a comment
    connection.register(_ENTITY_TABLE, rows)
    return _ENTITY_TABLE


def _describe(connection: duckdb.DuckDBPyConnection, entities: str) -> dict[str, str]:
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {entities}").fetchall()
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


def _time_range(
    connection: duckdb.DuckDBPyConnection, entities: str, timestamp: str
) -> tuple[datetime, datetime] | None:
    column = f"{identifier(timestamp)}::TIMESTAMPTZ"
    found = connection.execute(f"SELECT min({column}), max({column}) FROM {entities}").fetchone()
    return (found[0], found[1]) if found and found[0] is not None else None
