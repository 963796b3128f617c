"""
Why a model is trained again, and how every reason is answered exactly once.

Reasons are events on the application's retraining asset, or follow from how the DAG run came to be.
Airflow may hand a run only some of the pending events, so a run takes more than it was handed: it
drains all events since a watermark, takes those that nobody has answered, and looks again at its end.
A reason that a failed run had taken is free again for the next one.

An event is known by its own id, or by its time and content: Airflow hands events over without their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_mlops.primitives.reasons.records import Reason

#: Events committed late, or stamped by a clock that is wrong, carry an earlier time than the watermark: look back this
#: far, ids do the rest.
OVERLAP = timedelta(days=7)
#: Answered ids that are remembered, and runs that were never closed. More than could ever arrive within the overlap.
REMEMBERED, UNCLOSED = 2000, 50


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
