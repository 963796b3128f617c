"""
Why a model is trained again, and how every reason is answered exactly once.

Reasons are events on the application's retraining asset, or follow from how the DAG run came to be.
Airflow may hand a run only some of the pending events, so a run takes more than it was handed: it
drains all events since a watermark, takes those that nobody has answered, and looks again at its end.
A reason that a failed run had taken is free again for the next one.

An event is known by its own id, or by its time and content: Airflow hands events over without their numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast, get_args

from airflow_mlops.contract.protocol.documents import json_text
from airflow_mlops.contract.protocol.storable import storable, storable_text

ReasonKind = Literal["on_demand", "schedule", "new_code", "drift", "performance"]

#: Events committed late, or stamped by a clock that is wrong, carry an earlier time than the watermark: look back this
#: far, ids do the rest.
OVERLAP = timedelta(days=7)
#: Answered ids that are remembered, and runs that were never closed. More than could ever arrive within the overlap.
REMEMBERED, UNCLOSED = 2000, 50
#: Characters of an id, and of all reasons in words.
ID_LIMIT, WORDS_LIMIT = 120, 2000
#: Characters of a tag with ids that every back end of MLflow keeps.
TAG_LIMIT = 4_000
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

    def to_dict(self) -> dict[str, Any]:
        """The reason as JSON values."""
        return {"id": self.id, "kind": self.kind, "at": self.at, "evidence": dict(self.evidence)}


@dataclass(frozen=True)
class Answers:
    """What is known of reasons that were answered already: the consumer's whole memory.

    :param watermark: ISO 8601 time of the event that was committed last of those ever drained; never in the future.
    :param answered: ids, oldest first.
    :param taken: run id → ids that the run has taken and not answered yet.
    """

    watermark: str | None = None
    answered: tuple[str, ...] = ()
    taken: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, value: Any) -> Answers:
        """Read what :meth:`to_dict` wrote; anything else is an empty memory."""
        if not isinstance(value, Mapping):
            return cls()
        taken = {str(run): tuple(ids) for run, ids in (value.get("taken") or {}).items()}
        return cls(value.get("watermark"), tuple(value.get("answered") or ()), taken)

    def to_dict(self) -> dict[str, Any]:
        """The memory as JSON values."""
        return {
            "watermark": self.watermark,
            "answered": list(self.answered),
            "taken": {run: list(ids) for run, ids in self.taken.items()},
        }


def drain_from(answers: Answers, now: datetime | None = None) -> str | None:
    """Time from which events must be read, ``None`` for all of them.

    :param now: the time; a watermark behind it, of a clock that was ahead, counts as now.
    """
    if answers.watermark is None:
        return None
    return (min(datetime.fromisoformat(answers.watermark), now or datetime.now(UTC)) - OVERLAP).isoformat()


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
    if isinstance(kind, str) and kind in get_args(ReasonKind):
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


def take(
    answers: Answers,
    run_id: str,
    events: Iterable[Reason],
    own: Iterable[Reason] = (),
    *,
    now: datetime | None = None,
) -> tuple[list[Reason], Answers]:
    """Take all reasons that nobody has answered.

    :param answers: the memory.
    :param run_id: the training run that takes them; taking twice gives the same reasons.
    :param events: reasons read from events, drained or handed over.
    :param own: reasons that follow from the run itself (started by a person or the clock).
    :param now: the time, which no watermark passes.
    :returns: the reasons, oldest first, and the memory to be stored.
    """
    found = [*events]
    reasons = sorted(
        (one for one in {one.id: one for one in (*found, *own)}.values() if one.id not in answers.answered),
        key=lambda reason: (reason.at, reason.id),
    )
    taken = {run: ids for run, ids in answers.taken.items() if run != run_id}
    taken = {**dict([*taken.items()][-UNCLOSED:]), run_id: tuple(reason.id for reason in reasons)}
    watermark = _moved(answers.watermark, found, now or datetime.now(UTC))
    return reasons, Answers(_not_past_open(watermark, reasons), answers.answered, taken)


def _moved(watermark: str | None, events: list[Reason], now: datetime) -> str | None:
    """The watermark after these events: the time of the one that was committed last, if that is over."""
    numbered = [reason for reason in events if reason.event is not None]
    if numbered:
        watermark = max(numbered, key=lambda reason: reason.event or 0).at
    elif events and watermark is None:
        watermark = max(events, key=lambda reason: datetime.fromisoformat(reason.at)).at
    if watermark is None or datetime.fromisoformat(watermark) <= now:
        return watermark
    return now.astimezone(UTC).isoformat()


def _not_past_open(watermark: str | None, reasons: list[Reason]) -> str | None:
    """A watermark that leaves the open reasons in sight, should their run fail."""
    oldest = min((reason.at for reason in reasons), default=None, key=datetime.fromisoformat)
    return min(filter(None, (watermark, oldest)), default=None, key=datetime.fromisoformat)


def unclosed(answers: Answers, run_id: str) -> dict[str, tuple[str, ...]]:
    """Other runs that took reasons and never said what became of them: run id → ids of its reasons."""
    return {run: ids for run, ids in answers.taken.items() if run != run_id and ids}


def answer(answers: Answers, run_id: str, *, succeeded: bool, reasons: Iterable[str] = ()) -> Answers:
    """Close a run: its reasons are answered, or free again when it failed.

    :param reasons: ids that the run works on, in case it was closed before: a person cleared a failed task of it.
    """
    taken = dict(answers.taken)
    ids = dict.fromkeys((*taken.pop(run_id, ()), *reasons))
    if not succeeded:
        return Answers(answers.watermark, answers.answered, taken)
    known = set(answers.answered)
    answered = (*answers.answered, *(i for i in ids if i not in known))
    return Answers(answers.watermark, answered[-REMEMBERED:], taken)


def unanswered(answers: Answers, run_id: str, events: Iterable[Reason]) -> list[Reason]:
    """Reasons that came while the run worked: neither answered, nor taken by this run."""
    seen = {*answers.answered, *answers.taken.get(run_id, ())}
    return [reason for reason in events if reason.id not in seen]


def describe(reasons: Iterable[Reason | Mapping[str, Any]]) -> str:
    """One line for people: why this run trains."""
    lines = []
    for reason in reasons:
        value = reason.to_dict() if isinstance(reason, Reason) else reason
        evidence = value["evidence"]
        detail = evidence.get("message") or evidence.get("why") or evidence.get("who") or ""
        lines.append(" ".join(f"{value['kind']}{': ' + str(detail) if detail else ''}".split()))
    return storable_text("; ".join(lines), WORDS_LIMIT)


def short_ids(ids: Iterable[str]) -> str:
    """Ids of reasons as a tag carries them: 12 characters of each one's SHA-256, with spaces between.

    More than a tag holds are one digest of all of them.
    """
    ids = list(ids)
    text = " ".join(_short(one) for one in ids)
    return text if len(text) <= TAG_LIMIT else f"all:{_short(' '.join(sorted(map(_short, ids))))}"


def carries(tag: str, ids: Iterable[str]) -> bool:
    """Whether a tag made by :func:`short_ids` names all of these ids."""
    return set(short_ids(ids).split()) <= set(tag.split())


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
