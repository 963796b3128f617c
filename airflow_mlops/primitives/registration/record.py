"""The record of a training: all that is needed to do it again, and to tell whether the same came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_mlops.exceptions import TrackingError

#: Artifact of the run, and of every version that is registered from it.
RECORD_FILE = "lineage.json"
#: Metrics of the training itself, as the model code wrote them.
TRAINING_METRICS_FILE = "training/metrics.json"
FORMAT = 1

_SECTIONS = ("code", "job", "data", "environment", "model", "run")


@dataclass(frozen=True)
class TrainingRecord:
    """
    What went into a training, and what came out, as JSON values.

    :param application: the application.
    :param code: ``name`` and ``version`` by the model code's own account; ``image``, ``image_digest``,
        ``base_digest``, ``git_commit``, and ``labels`` of the image; or ``entrypoint``, ``directory``,
        ``directory_digest`` and ``directory_files`` (path → SHA-256) of a process.
    :param job: ``runner``, ``limits``, ``network``: how it was run.
    :param config: what ``mlops.json`` said to the model code: ``parameters``, ``seed``, ``paradigm``, ``columns``.
    :param data: ``store``, ``dataset_id`` (SHA-256 of the manifest), ``manifest`` (address), ``window``, ``as_of``,
        ``split``, ``splits`` (rows of each), ``features``.
    :param environment: what the model code says that it ran with: ``python``, ``packages``, ``lock_file``,
        ``lock_sha256``; empty when it says nothing.
    :param model: ``files``: path → SHA-256 as the model code wrote it; ``completed``: likewise, of what was added to it
        or changed before it went to MLflow.
    :param run: ``experiment``, ``run_id`` of MLflow, and ``dag_id``, ``dag_run``, ``task_id``, ``try``, ``url`` of Airflow.
    :param reasons: why it was trained, in words.
    :param reason_ids: ids of these reasons, in short.
    """

    application: str
    code: Mapping[str, Any]
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    job: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    reasons: str = ""
    reason_ids: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, value: Any, where: str) -> TrainingRecord:
        """Read what :meth:`to_dict` gave.

        :param where: what the record belongs to, for the message.
        :raises TrackingError: it is no record, or of a format that this release does not know.
        """
        if not isinstance(value, Mapping) or value.get("format") != FORMAT:
            got = value.get("format") if isinstance(value, Mapping) else type(value).__name__
            raise TrackingError(
                f"{RECORD_FILE} of {where} must be a record of format {FORMAT}, got {got!r}: it was written by another "
                "release of airflow-mlops, or by somebody else."
            )
        wrong = [key for key in (*_SECTIONS, "config") if not isinstance(value.get(key, {}), Mapping)]
        if wrong or not all(isinstance(value.get(key), Mapping) for key in ("code", "config", "data")):
            raise TrackingError(
                f"{RECORD_FILE} of {where} was changed: {', '.join(wrong) or 'a part'} is no object."
            )
        known = cls.__dataclass_fields__
        return cls(**{key: item for key, item in value.items() if key in known})

    @property
    def stored_files(self) -> dict[str, str]:
        """Path → SHA-256 of the model's files as MLflow should have them; empty when the record does not say."""
        model = self.model
        return (
            {**(model.get("files") or {}), **(model.get("completed") or {})} if "completed" in model else {}
        )

    @property
    def code_name(self) -> str:
        """The model code in one word."""
        return str(self.code.get("image") or " ".join(self.code.get("entrypoint") or ()))
