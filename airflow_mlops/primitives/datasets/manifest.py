"""A dataset version: what it holds, where it came from, and the id that follows from both."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from airflow_mlops.exceptions import DataError
from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Chunk", "Column", "Manifest", "Purpose", "Role", "canonical_json"]

Role = Literal["key", "timestamp", "feature", "input", "target", "known_at", "split"]
Purpose = Literal["training", "prediction"]

FORMAT = 1


@dataclass(frozen=True)
class Column:
    """One column of a dataset version.

    :param name: its name in the Parquet files.
    :param type: its Arrow type as text, such as ``double`` or ``timestamp[us, tz=UTC]``.
    :param role: ``key``, ``timestamp``, ``feature`` (from the feature store), ``input`` (another model
        input that the examples bring along), ``target``, ``known_at`` (when the targets were known), or
        ``split`` (says the split, and is no model input).
    :param reference: where a feature comes from, as ``view:feature``.
    """

    name: str
    type: str
    role: Role
    reference: str | None = None


@dataclass(frozen=True)
class Chunk:
    """One Parquet file: the rows of one split and fold within one calendar month.

    :param digest: logical digest of its rows, which is also its name.
    :param split: the split it belongs to.
    :param rows: how many rows.
    :param start: time of its first example, ISO 8601 UTC.
    :param end: time of its last example, ISO 8601 UTC.
    :param fold: the fold of train it belongs to, if train is divided into folds.
    """

    digest: str
    split: str
    rows: int
    start: str
    end: str
    fold: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The chunk as JSON values; a fold only if there is one, so that older versions keep their ids."""
        return {name: value for name, value in asdict(self).items() if name != "fold" or value is not None}


@dataclass(frozen=True)
class Manifest:
    """An immutable dataset version. Nothing in it depends on when, where or by whom it was made.

    :param application: whose data it is.
    :param purpose: ``training`` or ``prediction``.
    :param columns: the columns, in the order of the files.
    :param chunks: the files, in the order of their rows.
    :param window: first and last moment (ISO 8601 UTC); examples lie after the first, up to the last.
    :param as_of: the moment at which targets had to be known; ``None`` for predictions.
    :param split: the split rule and its bounds.
    :param features: feature service and its views as they were compiled; ``None`` without features.
    :param examples: the query that gave the examples, and the meaning of its columns.
    :param sources: the files that were read, with their pins.
    :param assumptions: the stated assumptions and what was observed.
    """

    application: str
    purpose: Purpose
    columns: tuple[Column, ...]
    chunks: tuple[Chunk, ...]
    window: tuple[str, str]
    as_of: str | None = None
    split: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] | None = None
    examples: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Mapping[str, Any], ...] = ()
    assumptions: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def id(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def rows(self) -> int:
        """Number of rows of all splits."""
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def splits(self) -> dict[str, int]:
        """Rows of each split, in order of time."""
        rows: dict[str, int] = {}
        for chunk in self.chunks:
            rows[chunk.split] = rows.get(chunk.split, 0) + chunk.rows
        return rows

    @property
    def folds(self) -> list[dict[str, list[Chunk]]]:
        """What to learn from and what to judge by, in each fold of train; empty without folds.

        Folds in time: fold ``i`` learns from all folds before it. Rows within a gap are in none.
        """
        count = int(self.split.get("folds") or 0)
        rolling = self.split.get("by") == "time"
        folds: list[dict[str, list[Chunk]]] = []
        for number in range(1, count + 1):
            train, validation = [], []
            for chunk in self.chunks:
                if chunk.split != "train" or chunk.fold is None:
                    continue
                if chunk.fold == number:
                    validation.append(chunk)
                elif not rolling or chunk.fold < number:
                    train.append(chunk)
            folds.append({"train": train, "validation": validation})
        return folds

    @property
    def model_inputs(self) -> tuple[str, ...]:
        """Names of the columns that a model may learn from, in order."""
        return self.names("input", "feature")

    def names(self, *roles: Role) -> tuple[str, ...]:
        """Names of the columns with one of these roles, in order."""
        return tuple(column.name for column in self.columns if column.role in roles)

    def to_json(self) -> str:
        """The canonical JSON whose digest is the id."""
        chunks = [chunk.to_json() for chunk in self.chunks]
        return canonical_json({"format": FORMAT, **asdict(self), "chunks": chunks})

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | bytes | str) -> Manifest:
        """Read a version back.

        :raises DataError: it is not a manifest, or of a format that this release does not know.
        """
        try:
            given = json.loads(value) if isinstance(value, (bytes, str)) else dict(value)
            if given.get("format") != FORMAT:
                raise DataError(
                    f"manifest format {given.get('format')!r} is unknown, expected {FORMAT}: "
                    "it was written by another release of airflow-mlops"
                )
            columns = tuple(Column(**column) for column in given["columns"])
            if unknown := {column.role for column in columns} - set(get_args(Role)):
                raise DataError(f"manifest: unknown column role(s) {', '.join(sorted(unknown))}")
            start, end = given["window"]
            return cls(
                application=given["application"],
                purpose=cast("Purpose", given["purpose"]),
                columns=columns,
                chunks=tuple(Chunk(**chunk) for chunk in given["chunks"]),
                window=(start, end),
                as_of=given["as_of"],
                split=given["split"],
                features=given["features"],
                examples=given["examples"],
                sources=tuple(given["sources"]),
                assumptions=tuple(given["assumptions"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"not a dataset manifest: {type(error).__name__}: {error}") from error


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces, no NaN."""
    return json_text(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
