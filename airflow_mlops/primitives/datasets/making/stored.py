"""A published dataset version as one table again, with the splits of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.assumptions import CheckContext
from airflow_mlops.primitives.datasets.examples import ROW
from airflow_mlops.primitives.datasets.making.chunks import FOLD, SPLIT
from airflow_mlops.primitives.sql.words import parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.datasets.manifest import Manifest

__all__ = ["StoredVersion", "open_version"]


@dataclass(frozen=True)
class StoredVersion:
    """The rows of a version.

    :param manifest: the version.
    :param relation: what stands behind FROM.
    :param columns: Arrow type of each column, with ``__row``, ``__split`` and ``__fold``.
    :param files: its Parquet files.
    """

    manifest: Manifest
    relation: str
    columns: Mapping[str, str]
    files: tuple[Path, ...]

    @property
    def order(self) -> str:
        """Column that gives the rows an order."""
        return ROW

    @property
    def shown(self) -> list[str]:
        """Columns that tell a person which row it is."""
        return list(self.manifest.names("key", "timestamp"))

    def context(self, **known: Any) -> CheckContext:
        """What assumptions may need to know.

        :param known: further arguments of :class:`CheckContext`.
        """
        manifest = self.manifest
        return CheckContext(
            timestamp=next(iter(manifest.names("timestamp")), None),
            keys=tuple(manifest.names("key")),
            targets=tuple(manifest.names("target")),
            split=SPLIT,
            features=tuple(manifest.model_inputs),
            moment=datetime.fromisoformat(manifest.window[1]),
            **known,
        )


def open_version(
    connection: DuckDBPyConnection, manifest: Manifest, paths: Callable[[str], Sequence[Path]]
) -> StoredVersion:
    """Make the rows of a version a table of a connection; nothing is copied.

    :param paths: split → its Parquet files, in the order of the manifest's chunks.
    """
    given = {split: iter(paths(split)) for split in manifest.splits}
    chunks = [(next(given[chunk.split]), chunk) for chunk in manifest.chunks]
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE _chunks ({SPLIT} VARCHAR, {FOLD} INTEGER, _file VARCHAR, _first BIGINT)"
    )
    first = 0
    for path, chunk in chunks:
        connection.execute(
            "INSERT INTO _chunks VALUES (?, ?, ?, ?)", [chunk.split, chunk.fold, str(path), first]
        )
        first += chunk.rows
    files = tuple(dict.fromkeys(path for path, _ in chunks))
    types = {column.name: column.type for column in manifest.columns}
    columns = {**types, ROW: "int64", SPLIT: "string", FOLD: "int32"}
    source = parquet(tuple(map(str, files)), filename=True, file_row_number=True)
    relation = (
        f"(SELECT t.* EXCLUDE (filename, file_row_number), c._first + t.file_row_number AS {ROW}, c.{SPLIT}, c.{FOLD} "
        f"FROM {source} t JOIN _chunks c ON t.filename = c._file)"
    )
    return StoredVersion(manifest, relation, columns, files)
