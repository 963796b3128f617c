"""
Why a model is trained again, and how every reason is answered exactly once.

Reasons are events on the application's retraining asset, or follow from how the DAG run came to be.
Airflow may hand a run only some of the pending events, so a run never trusts what it was handed: it
drains all events since a watermark, takes those that nobody has answered, and looks again at its end.
A reason that a failed run had taken is free again for the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

ReasonKind = Literal["on_demand", "schedule", "new_code", "drift", "performance"]

#: Events committed late carry an earlier time than the watermark: look back this far, ids do the rest.
OVERLAP = timedelta(minutes=15)
#: Answered ids that are remembered. More than could ever arrive within the overlap.
REMEMBERED = 2000


@dataclass(frozen=True)
class Reason:
    """One reason to train.

    :param id: deterministic; two reasons of one id are the same reason.
    :param kind: what sort of reason.
    :param at: ISO 8601 time of the event.
    :param evidence: figures, window, who: JSON values.
    """

    id: str
    kind: ReasonKind
    at: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The reason as JSON values."""
        return {"id": self.id, "kind": self.kind, "at": self.at, "evidence": dict(self.evidence)}


@dataclass(frozen=True)
class Answers:
    """What is known of reasons that were answered already: the consumer's whole memory.

    :param watermark: ISO 8601 time of the newest event ever drained.
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


def drain_from(answers: Answers) -> str | None:
    """Time from which events must be read, ``None`` for all of them."""
    if answers.watermark is None:
        return None
    return (datetime.fromisoformat(answers.watermark) - OVERLAP).isoformat()


def reason_from_event(
    event_id: int | str, at: datetime, extra: Mapping[str, Any] | None, default: ReasonKind = "on_demand"
) -> Reason | None:
    """Read an asset event.

    An event without a known ``reason`` is a person's or a system's wish: on demand, or whatever ``default`` says. One that only wakes
    the DAG (``reason: rearm``) is no reason of its own. What a watcher noticed is in the event's ``payload``.
    """
    extra = dict(extra or {})
    if extra.get("from_trigger") and isinstance(extra.get("payload"), Mapping):
        extra = dict(extra["payload"])
    kind = extra.pop("reason", default)
    if kind == "rearm":
        return None
    if kind not in get_args(ReasonKind):
        extra["said"] = kind
        kind = "on_demand"
    return Reason(
        str(extra.get("alarm_id") or extra.get("id") or f"event:{event_id}"), kind, at.isoformat(), extra
    )


def take(
    answers: Answers, run_id: str, events: Iterable[Reason], own: Iterable[Reason] = ()
) -> tuple[list[Reason], Answers]:
    """Take all reasons that nobody has answered.

    :param answers: the memory.
    :param run_id: the training run that takes them; taking twice gives the same reasons.
    :param events: reasons read from events.
    :param own: reasons that follow from the run itself (started by a person or the clock).
    :returns: the reasons, oldest first, and the memory to be stored.
    """
    drained = {reason.id: reason for reason in (*events, *own)}
    answered = set(answers.answered)
    reasons = sorted(
        (reason for reason in drained.values() if reason.id not in answered),
        key=lambda reason: (reason.at, reason.id),
    )
    newest = max((r.at for r in drained.values()), default=None, key=datetime.fromisoformat)
    watermark = max(filter(None, (answers.watermark, newest)), default=None, key=datetime.fromisoformat)
    taken = {**answers.taken, run_id: tuple(reason.id for reason in reasons)}
    return reasons, Answers(_not_past_open(watermark, reasons), answers.answered, taken)


def _not_past_open(watermark: str | None, reasons: list[Reason]) -> str | None:
    """A watermark that leaves the open reasons in sight, should their run fail."""
    oldest = min((reason.at for reason in reasons), default=None, key=datetime.fromisoformat)
    return min(filter(None, (watermark, oldest)), default=None, key=datetime.fromisoformat)


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
        lines.append(f"{value['kind']}{': ' + str(detail) if detail else ''}")
    return "; ".join(lines)
