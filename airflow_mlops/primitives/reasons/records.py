"""Reasons to train, and the events that tell of them: the records that producers and the consumer share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast, get_args

from airflow_mlops.contract.protocol.documents import json_text
from airflow_mlops.contract.protocol.storable import storable, storable_text
from airflow_mlops.primitives.texts.records import Fields

__all__ = [
    "ID_LIMIT",
    "Alarm",
    "CodeChange",
    "Reason",
    "ReasonKind",
    "alarm_event",
    "alarm_ids",
    "reason_from_event",
    "reasons_of",
]

ReasonKind = Literal["on_demand", "schedule", "new_code", "drift", "performance"]
_KINDS: tuple[str, ...] = get_args(ReasonKind)

#: Characters of an id.
ID_LIMIT = 120
#: Ids of this kind are ours to give.
_OWN = ("schedule:", "on_demand:", "event:", "said:")


@dataclass(frozen=True)
class Reason:
    """One reason to train.

    :param id: deterministic; two reasons of one id are the same reason.
    :param kind: what sort of reason.
    :param at: ISO 8601 time of the event.
    :param evidence: figures, window, who: JSON values that every system keeps.
    :param event: number of the event in Airflow, where it is known.
    :param altered: the event said something that cannot be kept as it was.
    """

    id: str
    kind: ReasonKind
    at: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    event: int | None = field(default=None, compare=False)
    altered: bool = field(default=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The reason as JSON values, as tasks hand it on."""
        return {"id": self.id, "kind": self.kind, "at": self.at, "evidence": dict(self.evidence)}

    @classmethod
    def from_json(cls, document: Any, where: str = "A reason") -> Reason:
        """Read what :meth:`to_json` wrote; ``id``, ``at`` and ``evidence`` may be absent.

        :raises DataError: it is no reason.
        """
        read = Fields(document, where, "pass on what CollectReasonsOperator returned")
        kind = cast("ReasonKind", read.choice("kind", _KINDS))
        return cls(read.text("id", ""), kind, read.text("at", ""), read.mapping("evidence", {}))


def reasons_of(value: Any) -> list[Reason]:
    """The reasons that a task handed on; none for ``None`` and an empty text.

    :raises DataError: it is something else.
    """
    if isinstance(value, str | Mapping) and value:
        value = [value]  # said by the record, which knows what a reason is
    return [Reason.from_json(one, f"reasons: entry {number}") for number, one in enumerate(value or (), 1)]


@dataclass(frozen=True)
class Alarm:
    """The evidence that a new model is needed, as monitoring writes and tells it.

    :param alarm_id: the same for the same model version, training data and window.
    :param reason: ``drift`` or ``performance``.
    :param message: one line for people.
    :param window_id: the window of predictions that it is about.
    :param window: its first (exclusive) and last (inclusive) example time, ISO 8601.
    :param model: name of the registered model.
    :param model_version: version in the MLflow registry.
    :param reference_dataset_id: dataset version that this model version was trained on.
    :param figures: what was measured, by name.
    """

    alarm_id: str
    reason: ReasonKind
    message: str
    window_id: str
    window: tuple[str, str]
    model: str
    model_version: str
    reference_dataset_id: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The alarm as JSON values."""
        return {
            "alarm_id": self.alarm_id,
            "reason": self.reason,
            "message": self.message,
            "window_id": self.window_id,
            "window": list(self.window),
            "model": self.model,
            "model_version": self.model_version,
            "reference_dataset_id": self.reference_dataset_id,
            "figures": dict(self.figures),
        }

    @classmethod
    def from_json(cls, document: Any, where: str = "An alarm") -> Alarm:
        """Read what :meth:`to_json` wrote.

        :raises DataError: a field is missing or has another type.
        """
        read = Fields(document, where)
        return cls(
            alarm_id=read.text("alarm_id"),
            reason=cast("ReasonKind", read.choice("reason", _KINDS)),
            message=read.text("message"),
            window_id=read.text("window_id"),
            window=read.times("window"),
            model=read.text("model"),
            model_version=read.text("model_version"),
            reference_dataset_id=read.text("reference_dataset_id"),
            figures=read.mapping("figures", {}),
        )


def alarm_event(alarms: Sequence[Alarm]) -> dict[str, Any]:
    """The ``extra`` of an event that tells of alarms: the newest one's fields, and all of them in ``alarms``.

    :param alarms: oldest first, at least one.
    :return: JSON values that every system keeps; the ids are in it however long the alarms are.
    """
    told = [alarm.to_json() for alarm in alarms]
    extra: dict[str, Any] = storable({**told[-1], "alarms": told})
    if isinstance(extra["alarms"], list):
        return extra
    return {**extra, "alarms": [{"alarm_id": alarm.alarm_id} for alarm in alarms]}


def alarm_ids(extra: Any) -> list[str]:
    """Ids of the alarms that an event tells of; none for an event that tells of something else."""
    if not isinstance(extra, Mapping):
        return []
    told = extra.get("alarms")
    alarms = [one for one in (extra, *(told if isinstance(told, list) else ())) if isinstance(one, Mapping)]
    return [one["alarm_id"] for one in alarms if isinstance(one.get("alarm_id"), str)]


@dataclass(frozen=True)
class CodeChange:
    """New model code behind a name, as the watcher of images and branches tells it.

    :param code: the name: an image with its tag, or a repository with its ref.
    :param digest: digest or commit that is behind it now.
    :param before: the one that was seen before.
    :param number: how often it has changed so far: code may go back and forth between the same two.
    """

    code: str
    digest: str
    before: str
    number: int

    def to_json(self) -> dict[str, Any]:
        """The payload of the event, JSON values."""
        return {
            "reason": "new_code",
            "id": f"{self.code}: {self.before} -> {self.digest} ({self.number})",
            "code": self.code,
            "digest": self.digest,
            "before": self.before,
            "message": f"{self.code} is now {self.digest[:19]}, before {self.before[:19]}",
        }


def reason_from_event(
    event_id: int | str, at: datetime, extra: Mapping[str, Any] | None, default: ReasonKind = "on_demand"
) -> Reason | None:
    """Read an asset event, whatever was posted.

    An event without a known ``reason`` is a person's or a system's wish: on demand, or whatever ``default`` says. One that only wakes
    the DAG (``reason: rearm``) is no reason of its own. What a watcher noticed is in the event's ``payload``.

    :param event_id: the event's number; anything else when it is not known.
    """
    said = dict(extra) if isinstance(extra, Mapping) else {}
    if said.get("from_trigger") and isinstance(said.get("payload"), Mapping):
        said = dict(said["payload"])
    at = at.astimezone(UTC)
    kept = storable(said)  # first: what follows must take whatever was posted
    own = kept.get("alarm_id") or kept.get("id")
    id_ = _given_id(own) if own else f"event:{at.isoformat()}:{_digest(kept)}"
    altered = kept != said
    kind = kept.pop("reason", default)
    if kind == "rearm":
        return None
    known: ReasonKind = "on_demand"
    if isinstance(kind, str) and kind in _KINDS:
        known = cast("ReasonKind", kind)
    else:
        kept["said"] = kind
    return Reason(id_, known, at.isoformat(), kept, event_id if isinstance(event_id, int) else None, altered)


def _given_id(said: Any) -> str:
    """The id that an event gives itself: bounded, and none that a run of ours may have."""
    text = said if isinstance(said, str) else json_text(said, sort_keys=True, default=str)
    return storable_text(f"said:{text}" if text.startswith(_OWN) else text, ID_LIMIT)


def _digest(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_text(said, sort_keys=True, default=str).encode()).hexdigest()[:12]
