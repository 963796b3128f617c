"""Batches of predictions: which examples come next, and what a batch is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.primitives.texts.documents import json_text


@dataclass(frozen=True)
class PredictionBatch:
    """What is recorded of one published batch (``predictions/<window_id>/meta.json``).

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

    def to_json(self) -> bytes:
        """Readable JSON."""
        return json_text(asdict(self), indent=1, sort_keys=True).encode()


def batch_folder(application: str, window: str) -> str:
    """Key of the folder of a window's batch; ``meta.json`` in it makes the batch exist."""
    return f"{application}/predictions/{window}"


def predictions_key(batch: Mapping[str, Any]) -> str:
    """Key of the file that a batch's metadata name; batches of old releases name none."""
    return f"{batch_folder(batch['application'], batch['window_id'])}/{batch.get('file') or 'predictions.parquet'}"


def window_id(start: str, end: str) -> str:
    """Name of a window that sorts by time: ``20130301T000000Z-20130401T000000Z``, with microseconds where there are some."""
    return f"{_compact(start)}-{_compact(end)}"


def _compact(time: str) -> str:
    moment = datetime.fromisoformat(time).astimezone(UTC)
    # Behind the Z, so that a whole second sorts before its fractions.
    return moment.strftime("%Y%m%dT%H%M%SZ%f" if moment.microsecond else "%Y%m%dT%H%M%SZ")


def next_start(batches: Iterable[Mapping[str, Any]], dataset_end: str) -> str:
    """Time after which examples have not been predicted.

    :param batches: metadata of the published batches.
    :param dataset_end: end of the champion's training window; counts until there is a first batch.
    """
    ends = [str(batch["window"][1]) for batch in batches]
    return max(ends, key=datetime.fromisoformat) if ends else dataset_end


def overtaken_by(batches: Iterable[Mapping[str, Any]], start: str, end: str) -> str | None:
    """Name of a batch that has predicted examples of the window since it was planned; ``None`` when there is none.

    :param batches: metadata of the published batches; the window's own is none of those.
    """
    after, own = datetime.fromisoformat(start), window_id(start, end)
    later = (
        str(batch["window_id"]) for batch in batches if datetime.fromisoformat(batch["window"][1]) > after
    )
    return next((name for name in later if name != own), None)
