"""Which window of a feature view is copied to the online store next, and how far it has been copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_mlops.exceptions import SpecError

__all__ = ["Materialized", "OnlineWindow", "next_window"]

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Materialized:
    """How far a view was copied.

    :param until: ISO 8601 time, UTC: rows up to it are in the online store.
    :param definition: digest of the view as it was then; with other features, what was copied is worth nothing.
    """

    until: str
    definition: str

    @classmethod
    def from_json(cls, value: Any) -> Materialized | None:
        """Read what :meth:`to_json` gave; ``None`` of anything else."""
        if not isinstance(value, Mapping) or not {"until", "definition"} <= set(value):
            return None
        return cls(str(value["until"]), str(value["definition"]))

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return asdict(self)


@dataclass(frozen=True)
class OnlineWindow:
    """What is copied, and how far the view is then.

    :param start: rows with this event time and later.
    :param end: up to this one.
    :param until: the watermark afterwards; ``None`` where it stays as it is.
    :param why: for the log.
    """

    start: datetime
    end: datetime
    until: datetime | None
    why: str


def next_window(
    last: Materialized | None,
    definition: str,
    *,
    ttl: timedelta,
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    late: timedelta = timedelta(0),
    fresh: datetime | None = None,
) -> OnlineWindow | None:
    """The window to copy, or ``None`` when there is nothing new.

    Copying overwrites what the online store has for an entity, so a window always reaches as far as the last one
    did: the newest row wins, whatever is copied again.

    :param last: how far the view was copied.
    :param definition: digest of the view as it is.
    :param ttl: how long a value counts; zero for ever. Older rows need not be copied.
    :param now: the clock.
    :param start: copy from here on, instead of from the watermark.
    :param end: up to here, instead of up to now.
    :param late: how far before the watermark rows may still have come.
    :param fresh: time of the earliest row that is known to have come since.
    :raises SpecError: the start is after the end.
    """
    end = min(end, now) if end else now
    until = datetime.fromisoformat(last.until) if last else None
    reached = until if until is not None and until <= now else None
    oldest = end - ttl if ttl else _BEGINNING
    if until is None or last is None:
        reason, first = "for the first time", oldest
    elif last.definition != definition:
        reason, first, until = "the view has changed since", oldest, None
    elif until > now:
        reason, first, until = f"the clock went back: copied up to {last.until} by it", oldest, None
    else:
        reason, first = f"since {last.until}", until - late
        if fresh is not None and fresh < first:
            reason, first = f"{reason}, with new rows from {fresh.isoformat()} on", fresh
        first = max(first, oldest)
    if start is not None:
        if start > end:
            raise SpecError(f"start {start.isoformat()} is after end {end.isoformat()}; swap them")
        # What lies before has to be there already, by this definition and this clock.
        joins = start <= (oldest if until is None else until)
        end = max(end, reached) if reached else end
        return OnlineWindow(start, end, end if joins else None, f"from {start.isoformat()} as asked for")
    if until is not None and end <= until:
        return None
    end = max(end, reached) if reached else end
    return OnlineWindow(first, end, end, reason)
