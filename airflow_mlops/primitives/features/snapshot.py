"""A snapshot of a feature table: the files that are published, and how far its source was read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, cast, get_args

from airflow_mlops.exceptions import SpecError, StoreError
from airflow_mlops.primitives.features.watermark import Watermark
from airflow_mlops.primitives.texts.documents import json_text

__all__ = ["PUBLISHED_AT", "Batch", "FeatureSnapshot", "Part", "Partition", "TableRule"]

Partition = Literal["day", "month", "year"]

FORMAT = 1
#: How many publications a snapshot remembers.
BATCHES = 50
#: Name of a ``created`` column that the publication fills itself.
PUBLISHED_AT = "published_at"

_LABELS = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}


@dataclass(frozen=True)
class TableRule:
    """What the columns of a feature table mean, and how it is cut into files.

    :param timestamp: the time from which a row holds.
    :param keys: the columns that name what it is about.
    :param created: the time at which the row came to be known; :data:`PUBLISHED_AT` has the publication fill it.
    :param partition: calendar unit (UTC) of a folder.
    """

    timestamp: str
    keys: tuple[str, ...]
    created: str | None = None
    partition: Partition = "month"

    def __post_init__(self) -> None:
        if not self.keys or self.partition not in get_args(Partition):
            raise SpecError(
                f"publish: expected keys and a partition of {', '.join(get_args(Partition))}; got keys "
                f"{list(self.keys)} and partition {self.partition!r}"
            )

    @property
    def filled(self) -> bool:
        """Whether the publication itself says when a row came to be known."""
        return self.created == PUBLISHED_AT

    @property
    def folder_column(self) -> str:
        """Name of the partition column, as it stands in the folders' names."""
        return f"event_{self.partition}"

    @property
    def label(self) -> str:
        """Format of a partition's value."""
        return _LABELS[self.partition]

    def to_json(self) -> dict[str, Any]:
        """The rule as JSON values."""
        return {
            "timestamp": self.timestamp,
            "keys": list(self.keys),
            "created": self.created,
            "partition": self.partition,
        }


@dataclass(frozen=True)
class Part:
    """One published file.

    :param file: its name below ``data/``.
    :param rows: how many rows.
    :param first: time of its first row, ISO 8601 UTC.
    :param last: time of its last row.
    :param columns: how many of the table's columns it has; those that came later are absent from it.
    """

    file: str
    rows: int
    first: str
    last: str
    columns: int


@dataclass(frozen=True)
class Batch:
    """One publication: what was staged, and what became of it.

    :param staged: the staged rows, by which a retry finds its own publication again.
    :param rows: rows that were staged.
    :param new_rows: rows among them that were published, the others being there already.
    :param partitions: partitions that they went to.
    :param at: when, ISO 8601 UTC.
    :param files: how many files they became.
    :param first: time of the first new row; empty without one.
    """

    staged: str
    rows: int
    new_rows: int
    partitions: tuple[str, ...]
    at: str
    files: int = 0
    first: str = ""


@dataclass(frozen=True)
class FeatureSnapshot:
    """The published state of a feature table; the next one has all of its files and more.

    :param name: name of the feature pipeline.
    :param rule: what its columns mean.
    :param columns: word of each column's type, in order.
    :param parts: the files, by name.
    :param watermark: how far the source was read.
    :param batches: the last publications, oldest first.
    """

    name: str
    rule: TableRule
    columns: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    watermark: Watermark | None = None
    batches: tuple[Batch, ...] = ()

    @cached_property
    def id(self) -> str:
        """Digest of what can be read: the same files and columns have the same id."""
        content = [self.name, self.rule.to_json(), list(self.columns.items()), [p.file for p in self.parts]]
        return hashlib.sha256(json_text(content, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def rows(self) -> int:
        """How many rows are published."""
        return sum(part.rows for part in self.parts)

    @property
    def stored_columns(self) -> tuple[str, ...]:
        """The columns that at least one file has; none before the first row."""
        return tuple(self.columns)[: max((part.columns for part in self.parts), default=0)]

    def batch(self, staged: str) -> Batch | None:
        """The publication of staged rows, if it is remembered."""
        return next((batch for batch in reversed(self.batches) if batch.staged == staged), None)

    def overlapping(self, first: str, last: str) -> tuple[Part, ...]:
        """Files with rows between two moments."""
        return tuple(part for part in self.parts if part.first <= last and part.last >= first)

    def with_batch(
        self,
        columns: Mapping[str, str],
        parts: Sequence[Part],
        watermark: Watermark | None,
        batch: Batch,
    ) -> FeatureSnapshot:
        """The snapshot after a publication."""
        files = {part.file: part for part in (*self.parts, *parts)}
        return replace(
            self,
            columns=dict(columns),
            parts=tuple(files[name] for name in sorted(files)),
            watermark=watermark,
            batches=(*self.batches, batch)[-BATCHES:],
        )

    def check_rule(self, rule: TableRule) -> None:
        """Make sure that the columns still mean what they meant.

        :raises SpecError: naming what was changed.
        """
        for name, value in rule.to_json().items():
            there = self.rule.to_json()[name]
            if value != there:
                raise SpecError(
                    f"publish: features {self.name} have {name} {there!r} since they were first published, and now "
                    f"{value!r}. What is published stays as it is. Cure: put {there!r} back, or publish under "
                    "another name"
                )

    def to_json(self) -> dict[str, Any]:
        """The snapshot as JSON values. ``files`` is what a reader needs: names below ``data/``."""
        parts = self.parts
        return {
            "format": FORMAT,
            "snapshot": self.id,
            "features": self.name,
            **self.rule.to_json(),
            "partition_column": self.rule.folder_column,
            "columns": [{"name": name, "type": word} for name, word in self.columns.items()],
            "files": [part.file for part in parts],
            "parts": {part.file: [part.rows, part.first, part.last, part.columns] for part in parts},
            "rows": self.rows,
            "first": min((part.first for part in parts), default=None),
            "last": max((part.last for part in parts), default=None),
            "watermark": None if self.watermark is None else self.watermark.to_json(),
            "batches": [
                [b.staged, b.rows, b.new_rows, list(b.partitions), b.at, b.files, b.first]
                for b in self.batches
            ],
        }

    def to_bytes(self) -> bytes:
        """The document, one line for each key, the same bytes for the same snapshot."""
        lines = [f"{json_text(key)}: {json_text(value)}" for key, value in self.to_json().items()]
        return ("{" + ",\n ".join(lines) + "}\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> FeatureSnapshot:
        """Read the document.

        :param where: its address, for messages.
        :raises StoreError: it is damaged, or of a later version.
        """
        try:
            value = json.loads(data)
            if value["format"] != FORMAT:
                raise StoreError(
                    f"{where} has format {value['format']}, and this version reads format {FORMAT}. Cure: upgrade "
                    "airflow-mlops"
                )
            return cls(
                name=value["features"],
                rule=TableRule(
                    value["timestamp"],
                    tuple(value["keys"]),
                    value["created"],
                    cast("Partition", value["partition"]),
                ),
                columns={column["name"]: column["type"] for column in value["columns"]},
                parts=tuple(Part(name, *value["parts"][name]) for name in value["files"]),
                watermark=Watermark.from_json(value["watermark"]),
                batches=tuple(
                    Batch(s, r, n, tuple(p), at, *rest) for s, r, n, p, at, *rest in value["batches"]
                ),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{where} is no snapshot ({error!r}). Cure: restore it from a backup") from error
