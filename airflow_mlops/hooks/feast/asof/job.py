"""
A point-in-time join that is ready to run, as Feast wants it.

This module imports Feast and is imported only by our offline store.
"""

# ruff: noqa: TID253 - imported by the store's module only, which Feast loads
from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata

from airflow_mlops.database import raised_outside
from airflow_mlops.exceptions import FeatureStoreError, SourceUnavailableError
from airflow_mlops.hooks.feast.asof.files import is_s3, s3_errors
from airflow_mlops.hooks.scratch import ScratchFolder
from airflow_mlops.primitives.datasets.point_in_time import compile_join, matched_columns
from airflow_mlops.primitives.sql.words import literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import pandas as pd
    import pyarrow as pa
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.saved_dataset import SavedDatasetStorage

    from airflow_mlops.primitives.datasets.point_in_time import ViewPlan

__all__ = ["AsofRetrievalJob", "JoinRequest", "duckdb_errors"]

_BATCH = 100_000


@dataclass(frozen=True)
class JoinRequest:
    """What a join is made of.

    :param entities: table of the examples in the job's connection.
    :param columns: its columns, without ``row``.
    :param timestamp: the column of the example's time.
    :param row: the column that numbers the examples.
    :param views: the feature views.
    :param between: first and last time of the examples; ``None`` when none has a time.
    :param filter_by_created: whether a feature row counts only from the time it was created.
    :param matched: whether the times of the rows taken are part of the result.
    """

    entities: str
    columns: tuple[str, ...]
    timestamp: str
    row: str
    views: tuple[ViewPlan, ...]
    between: tuple[datetime, datetime] | None = None
    filter_by_created: bool = True
    matched: bool = False

    def sql(self, *, ordered: bool = True, matched: bool | None = None) -> str:
        """The query.

        :param ordered: whether rows come in the order of the examples.
        :param matched: instead of the request's own.
        """
        entities = self.entities if ordered else f"(SELECT * EXCLUDE ({self.row}) FROM {self.entities})"
        return compile_join(
            entities,
            self.columns,
            self.timestamp,
            self.views,
            between=self.between,
            filter_by_created=self.filter_by_created,
            row=self.row if ordered else None,
            matched=self.matched if matched is None else matched,
        )


class AsofRetrievalJob(RetrievalJob):
    """A join that is ready to run.

    :param connection: a DuckDB connection of its own, with the table of the examples.
    :param request: what is joined.
    :param metadata: what Feast wants to know about the request.
    :param on_demand: views that are computed after the join.
    :param spill: folder for what does not fit into memory, deleted by :meth:`close`.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        request: JoinRequest,
        metadata: RetrievalMetadata,
        *,
        on_demand: list[OnDemandFeatureView],
        full_feature_names: bool,
        repo_path: Path | None,
        spill: ScratchFolder,
    ) -> None:
        self._connection = connection
        self._request = request
        self._metadata = metadata
        self._on_demand = on_demand
        self._full_feature_names = full_feature_names
        self._repo_path = repo_path
        self._spill = spill

    @property
    def views(self) -> tuple[ViewPlan, ...]:
        """The feature views as they were compiled, with the files that are read."""
        return self._request.views

    @property
    def matched(self) -> dict[str, str]:
        """View → column of the result with the timestamp of its row, when those are asked for."""
        return {view.name: next(iter(matched_columns(view))) for view in self.views}

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
        """The DuckDB query over the job's table of examples; the session's time zone must be UTC."""
        return self._request.sql()

    def to_reader(
        self, rows: int | None = None, *, ordered: bool = True, matched: bool | None = None
    ) -> pa.RecordBatchReader:
        """The joined rows as a stream of Arrow batches, without on-demand views.

        :param rows: of one batch; 100,000 by default.
        :param ordered: whether they come in the order of the examples; without, one sort is saved.
        :param matched: whether to add the times of the rows taken; by default as the store is configured.
        """
        return self._run(self._request.sql(ordered=ordered, matched=matched)).to_arrow_reader(rows or _BATCH)

    def to_parquet(self, destination: Path, *, ordered: bool = True, matched: bool | None = None) -> int:
        """Write the joined rows, on-demand views included, and say how many there are.

        The rows are streamed and never lie in memory as a whole. On-demand views are computed batch by
        batch, and stored in the types that they declare.

        :param ordered: whether rows come in the order of the examples; without, one sort is saved.
        :param matched: whether to add the times of the rows taken; by default as the store is configured.
        """
        if self._on_demand:
            return self._write_on_demand(destination, ordered=ordered, matched=matched)
        query = self._request.sql(ordered=ordered, matched=matched)
        copy = f"COPY ({query}) TO {literal(str(destination))} (FORMAT parquet, COMPRESSION zstd)"
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
        self._spill.cleanup()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return self._run(self._request.sql()).to_arrow_table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def _write_on_demand(self, destination: Path, *, ordered: bool, matched: bool | None) -> int:
        import pyarrow.parquet as pq

        types = _declared_types(self._on_demand, full_names=self._full_feature_names)
        rows, writer = 0, None
        reader = self.to_reader(ordered=ordered, matched=matched)
        try:
            with self._errors():
                for batch in _tables(reader):
                    table = _typed(_Batch(self, batch).to_arrow(), types)
                    writer = writer or pq.ParquetWriter(destination, table.schema, compression="zstd")
                    writer.write_table(table)
                    rows += table.num_rows
        finally:
            if writer is not None:
                writer.close()
        return rows

    def _run(self, query: str) -> duckdb.DuckDBPyConnection:
        with self._errors():
            return self._connection.execute(query)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        remote = any(is_s3(path) for view in self.views for path in view.paths)
        doing = f"the point-in-time join of {', '.join(view.name for view in self.views)}"
        with (
            duckdb_errors(doing, self._spill.name),
            s3_errors(f"reading for {doing}") if remote else nullcontext(),
        ):
            yield


class _Batch(RetrievalJob):
    """Some rows of a join, to compute the on-demand views of them as Feast does."""

    def __init__(self, job: AsofRetrievalJob, table: pa.Table) -> None:
        self._job = job
        self._table = table

    @property
    def full_feature_names(self) -> bool:
        return self._job.full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._job.on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata:
        return self._job.metadata

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None
    ) -> None:
        raise NotImplementedError

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return self._table

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        raise NotImplementedError


@contextmanager
def duckdb_errors(doing: str, spill: str) -> Iterator[None]:
    """Say what went wrong in DuckDB, and what helps.

    :param doing: what is done, such as ``the point-in-time join of weather``.
    :param spill: the folder that it spills to.
    """
    try:
        yield
    except duckdb.Error as error:
        text = str(error)
        first = text.partition("\n")[0]
        if any(sign in text for sign in ("AWS Error", "PermissionError")):
            raise  # s3_errors knows more
        if (outside := raised_outside(error)) is not None:
            raise type(outside)(f"{doing}: {outside}") from error
        if (
            "No space left" in text
            or "max_temp_directory_size" in text
            or (spill in text and "IO Error" in text)
        ):
            raise FeatureStoreError(
                f"{doing} does not fit into memory and cannot spill to {spill}: {first} Free space there, or name "
                "another folder by temp_directory in feature_store.yaml"
            ) from error
        if "No files found that match" in text:
            raise SourceUnavailableError(
                f"{doing}: {first}. It was there a moment ago: try again when its writer is done"
            ) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            raise FeatureStoreError(
                f"{doing} needs more than its memory limit ({first}); raise memory_limit in feature_store.yaml, or "
                "ask for a shorter window"
            ) from error
        raise FeatureStoreError(f"{doing} failed: {text}") from error


def _tables(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The batches as tables; an empty one if there is none."""
    import pyarrow as pa

    empty = True
    for batch in reader:
        empty = False
        yield pa.Table.from_batches([batch])
    if empty:
        yield reader.schema.empty_table()


def _declared_types(views: list[OnDemandFeatureView], *, full_names: bool) -> dict[str, pa.DataType]:
    """Column → type of the features of on-demand views: what pandas makes of them differs between batches."""
    from feast.types import from_feast_to_pyarrow_type

    types = {}
    for view in views:
        label = view.projection.name_to_use()  # type: ignore[no-untyped-call]
        for feature in view.features:
            name = f"{label}__{feature.name}" if full_names else feature.name
            types[name] = from_feast_to_pyarrow_type(feature.dtype)
    return types


def _typed(table: pa.Table, types: dict[str, pa.DataType]) -> pa.Table:
    for number, name in enumerate(table.column_names):
        if name in types and table.schema.field(number).type != types[name]:
            table = table.set_column(number, name, table.column(number).cast(types[name]))
    return table.replace_schema_metadata(None)
