"""The query that gives the examples, and what its columns mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ExamplesQuery"]


@dataclass(frozen=True)
class ExamplesQuery:
    """Where examples come from and what their columns mean.

    :param keys: columns that, with the time, identify an example.
    :param timestamp: the time at which the question is asked.
    :param targets: what is to be predicted.
    :param known_at: the time at which the targets were known.
    :param sql: a DuckDB query; this or ``parquet``.
    :param parquet: a Parquet file, folder or pattern.
    :param partitions: folders ``column=value`` of ``parquet`` that become columns: column → type.
    :param folder: relative paths are below it.
    :param tables: Delta, Iceberg or Parquet tables that the query names, by the name it uses.
    :param connection: Airflow connection of ``s3://`` addresses.
    :param keep_unlabelled: examples without target are learned from as well.
    :param newest: only so many of the newest examples to learn from, for a trial.
    """

    keys: tuple[str, ...]
    timestamp: str
    targets: tuple[str, ...] = ()
    known_at: str | None = None
    sql: str | None = None
    parquet: str | None = None
    partitions: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    connection: str | None = None
    keep_unlabelled: bool = False
    newest: int | None = None

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any]) -> ExamplesQuery:
        """Read the ``examples`` of a YAML file.

        :raises SpecError: a key is missing or unknown.
        """
        known = (
            *("sql", "parquet", "keys", "timestamp", "targets", "targets_known_at", "folder"),
            *("tables", "connection", "keep_unlabelled", "partitions", "newest"),
        )
        if unknown := [key for key in value if key not in known]:
            raise SpecError(f"examples: unknown key(s) {', '.join(unknown)}; known are {', '.join(known)}")
        if bool(value.get("sql")) == bool(value.get("parquet")):
            raise SpecError("examples: give exactly one of sql and parquet")
        if not value.get("keys") or not value.get("timestamp"):
            raise SpecError("examples: keys and timestamp are needed")
        return cls(
            keys=tuple(value["keys"]),
            timestamp=value["timestamp"],
            targets=tuple(value.get("targets") or ()),
            known_at=value.get("targets_known_at"),
            sql=(value.get("sql") or "").strip().rstrip(";") or None,
            parquet=value.get("parquet"),
            partitions=value.get("partitions") or {},
            folder=Path(value["folder"]) if value.get("folder") else None,
            tables=value.get("tables") or {},
            connection=value.get("connection"),
            keep_unlabelled=bool(value.get("keep_unlabelled")),
            newest=value.get("newest"),
        )

    @property
    def name(self) -> str:
        """The source in one line, for messages."""
        return self.parquet or " ".join((self.sql or "").split())

    def to_json(self) -> dict[str, Any]:
        """What decides about values, without folder and connection, as JSON values."""
        tables = {
            name: {k: v for k, v in table.items() if v is not None} for name, table in self.tables.items()
        }
        return {
            "sql": self.sql,
            "parquet": self.parquet,
            "keys": list(self.keys),
            "timestamp": self.timestamp,
            "targets": list(self.targets),
            "targets_known_at": self.known_at,
            **({"partitions": dict(self.partitions)} if self.partitions else {}),
            **({"tables": tables} if tables else {}),
            **({"keep_unlabelled": True} if self.keep_unlabelled else {}),
            **({"newest": self.newest} if self.newest else {}),
        }
