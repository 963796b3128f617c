"""Batches of predictions: which examples come next, and what a batch is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.primitives.texts.documents import json_text
from airflow_mlops.primitives.texts.records import Fields

#: Name of the predictions in batches of releases that did not name the file yet.
UNNAMED = "predictions.parquet"


@dataclass(frozen=True)
class PredictionBatch:
    """What is recorded of one published batch: one window of predictions by one model version.

    Releases that wrote no ``file`` or ``report`` named the file :data:`UNNAMED` and had no report.

    :param window: first (exclusive) and last (inclusive) example time, ISO 8601.
    :param rows: number of predictions, equal to the number of examples.
    :param dataset_id: dataset version with the inputs (split ``predict``).
    :param model_version: version in the MLflow registry.
    :param reference_dataset_id: dataset version that this model version was trained on.
    :param reference: the model's evaluation on its own test split.
    :param run_id: MLflow run that trained the model.
    :param report: address of the report on assumptions that the rows do not keep; empty where they keep all.
    :param file: name of the file with the predictions, beside ``meta.json``: its SHA-256 digest.
    """

    window_id: str
    window: tuple[str, str]
    rows: int
    application: str
    dataset_id: str
    model: str
    model_version: str
    reference_dataset_id: str
    run_id: str
    predicted_at: str
    reference: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    report: str = ""

    @property
    def metrics(self) -> Sequence[Mapping[str, Any]]:
        """Metrics of the model on its own test split, as ``metrics.json`` has them."""
        return self.reference.get("metrics") or ()

    @property
    def start(self) -> datetime:
        """Time of the first example, exclusive."""
        return datetime.fromisoformat(self.window[0])

    @property
    def end(self) -> datetime:
        """Time of the last example, inclusive."""
        return datetime.fromisoformat(self.window[1])

    def to_json(self) -> bytes:
        """Readable JSON."""
        return json_text(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, document: Any, where: str = "A batch of predictions") -> PredictionBatch:
        """Read what :meth:`to_json` wrote, in this or an earlier release.

        :param document: the parsed JSON.
        :param where: its address, for errors.
        :raises DataError: a field is missing or has another type.
        """
        read = Fields(document, where)
        return cls(
            window_id=read.text("window_id"),
            window=read.times("window"),
            rows=read.whole("rows"),
            application=read.text("application"),
            dataset_id=read.text("dataset_id"),
            model=read.text("model"),
            model_version=read.text("model_version"),
            reference_dataset_id=read.text("reference_dataset_id"),
            run_id=read.text("run_id"),
            predicted_at=read.time("predicted_at"),
            reference=read.mapping("reference", {}),
            file=read.text("file", ""),
            report=read.text("report", ""),
        )


def window_id(start: str, end: str) -> str:
    """Name of a window that sorts by time: ``20130301T000000Z-20130401T000000Z``, with microseconds where there are some."""
    return f"{_compact(start)}-{_compact(end)}"


def _compact(time: str) -> str:
    moment = datetime.fromisoformat(time).astimezone(UTC)
    # Behind the Z, so that a whole second sorts before its fractions.
    return moment.strftime("%Y%m%dT%H%M%SZ%f" if moment.microsecond else "%Y%m%dT%H%M%SZ")


def next_start(batches: Iterable[PredictionBatch], dataset_end: str) -> str:
    """Time after which examples have not been predicted.

    :param batches: the published batches.
    :param dataset_end: end of the champion's training window; counts until there is a first batch.
    """
    last = max(batches, key=lambda batch: batch.end, default=None)
    return dataset_end if last is None else last.window[1]


def overtaken_by(batches: Iterable[PredictionBatch], start: str, end: str) -> str | None:
    """Name of a batch that has predicted examples of the window since it was planned; ``None`` when there is none.

    :param batches: the published batches; the window's own is none of those.
    """
    after, own = datetime.fromisoformat(start), window_id(start, end)
    later = (batch.window_id for batch in batches if batch.end > after)
    return next((name for name in later if name != own), None)
