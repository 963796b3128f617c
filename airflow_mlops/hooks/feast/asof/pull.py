"""
The rows of one feature view from the files that our offline store reads, for copying them to the online store.

Feast's DuckDB store would read every file of a folder, published or not, and S3 by an extension that DuckDB fetches
from the Internet. This module imports Feast and is imported by it.
"""

# ruff: noqa: TID253 - Feast loads the offline store by name when it needs it, nobody else does
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob

from airflow_mlops.database import connect, raised_outside
from airflow_mlops.exceptions import FeatureStoreError, SourceError
from airflow_mlops.hooks.feast.asof.files import ViewFiles
from airflow_mlops.primitives.sql.words import identifier, literal, parquet

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd
    import pyarrow as pa
    from feast.data_source import DataSource
    from feast.repo_config import RepoConfig

__all__ = ["PullJob", "pull_rows"]

#: The key that Feast gives the rows of a view without entities.
_NOBODY = ", '' AS __dummy_id"


@dataclass
class PullJob(RetrievalJob):
    """Rows of one source that are ready to be read.

    :param query: DuckDB's; the session's time zone is UTC.
    :param files: how the files are opened.
    :param memory_limit: what DuckDB may hold in memory before it uses the disk.
    """

    query: str
    files: ViewFiles = field(repr=False)
    where: str
    memory_limit: str = "2GB"

    @property
    def full_feature_names(self) -> bool:
        """Names are those of the source."""
        return False

    @property
    def on_demand_feature_views(self) -> list[Any]:
        """None: they are computed when they are asked for."""
        return []

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:  # noqa: ARG002
        """Refused: a training set is what can be kept."""
        raise FeatureStoreError(
            "rows for the online store are not persisted; ask for historical features instead"
        )

    def to_sql(self) -> str:
        """The DuckDB query; the session's time zone must be UTC."""
        return self.query

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        with connect(memory=self.memory_limit) as connection:
            self.files.register(connection)
            try:
                return connection.execute(self.query).to_arrow_table()
            except duckdb.Error as error:
                if (outside := raised_outside(error)) is not None:
                    raise outside from error
                raise SourceError(f"{self.where}: its rows cannot be read: {error}") from error

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame


def pull_rows(
    config: RepoConfig,
    source: DataSource,
    keys: list[str],
    features: list[str],
    timestamp: str,
    created: str | None,
    between: tuple[datetime | None, datetime | None],
    *,
    latest: bool,
) -> PullJob:
    """Rows of a source in a window of time; of rows with equal times, the one that the training-set join takes.

    :param keys: join keys; rows that lack one are nobody's.
    :param latest: only the newest row of each key.
    :raises SourceError: the files or their columns are not there.
    """
    if not isinstance(source, FileSource):
        raise FeatureStoreError(
            f"{source.name} is a {type(source).__name__}; this offline store reads Parquet files (FileSource)"
        )
    settings: Any = config.offline_store
    files = ViewFiles(settings.aws_conn_id, Path(config.repo_path) if config.repo_path else None)
    found = files.find(source.path, source.s3_endpoint_override or None)
    columns = list(dict.fromkeys([*keys, *features, timestamp, *([created] if created else [])]))
    absent = _absent(files, found, columns, source)
    names = [
        f"NULL::{absent[name]} AS {identifier(name)}" if name in absent else identifier(name)
        for name in columns
    ]
    time = f"{identifier(timestamp)}::TIMESTAMPTZ"
    conditions = ["FALSE" if key in absent else f"{identifier(key)} IS NOT NULL" for key in keys]
    conditions += [
        f"{time} {sign} {literal(moment)}::TIMESTAMPTZ"
        for sign, moment in zip((">=", "<="), between, strict=True)
        if moment is not None
    ]
    query = (
        f"SELECT {', '.join(names)}{_NOBODY if not keys else ''} "
        f"FROM {parquet(found, union_by_name=True)} WHERE {' AND '.join(conditions) or 'TRUE'}"
    )
    if latest:
        order = [f"{time} DESC"]
        if created and created not in absent:
            order.append(f"{identifier(created)}::TIMESTAMPTZ DESC NULLS LAST")
        partition = f"PARTITION BY {', '.join(identifier(key) for key in keys)} " if keys else ""
        order += ["file_index DESC", "file_row_number DESC"]
        query += f" QUALIFY row_number() OVER ({partition}ORDER BY {', '.join(order)}) = 1"
    return PullJob(query, files, f"{source.name} ({source.path})", str(settings.memory_limit))


def _absent(
    files: ViewFiles, found: tuple[str, ...], columns: list[str], source: FileSource
) -> dict[str, str]:
    """DuckDB type of each column that came later than all of the files.

    :raises SourceError: a file lacks a column that should be there.
    """
    footers = files.footers(found)
    for name, footer in zip(found, footers, strict=True):
        there = {*footer.types, *files.columns(name)}
        if missing := [column for column in columns if column not in there]:
            raise SourceError(
                f"{source.name}: {name} lacks the column(s) {', '.join(missing)}; it has {', '.join(footer.types)}. "
                "Write the file again with them"
            )
    nowhere = [column for column in columns if not any(column in footer.types for footer in footers)]
    return {column: files.columns(found[0])[column] for column in nowhere}
