"""
Events of an asset that a task reads, in spite of an Airflow that cannot show some of them.

Up to Airflow 3.3 the API server answers 500 for all events asked for as soon as one of them started a DAG run that
has no start yet (apache/airflow#71360): a cleared run that waits in the queue, or one marked failed there.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

__all__ = ["newest_event", "read_events"]

_log = logging.getLogger(__name__)
_NEVER = datetime(9999, 1, 1, tzinfo=UTC).isoformat()


def read_events(context: Context, asset: Any, since: str | None = None) -> tuple[list[Any], bool]:
    """Events of an inlet, oldest first, and whether these are all of them.

    Where Airflow cannot show one, those before the first and those behind the last such event are read.

    :param since: ISO 8601 time of the oldest event that matters.
    :raises AirflowRuntimeError: when Airflow shows no event at all.
    """

    def ask(limit: int | None = None, *, oldest_first: bool = True) -> list[Any]:
        events = context["inlet_events"][asset].ascending(oldest_first)
        events = events.after(since) if since else events
        return list(events.limit(limit) if limit else events)

    try:
        return ask(), True
    except AirflowRuntimeError as error:
        _raise_unless_readable(context, asset, error)
    found = {event.id: event for event in _as_many_as_possible(ask)}
    found |= {event.id: event for event in _as_many_as_possible(lambda n: ask(n, oldest_first=False))}
    return sorted(found.values(), key=lambda event: (event.timestamp, event.id)), False


def newest_event(context: Context, asset: Any) -> Any:
    """The newest event of an inlet; ``None`` when there is none, or Airflow cannot show it.

    :raises AirflowRuntimeError: when Airflow shows no event at all.
    """
    try:
        return next(iter(context["inlet_events"][asset].ascending(False).limit(1)), None)
    except AirflowRuntimeError as error:
        _raise_unless_readable(context, asset, error)
        return None


def _raise_unless_readable(context: Context, asset: Any, error: AirflowRuntimeError) -> None:
    """Raise the error again if Airflow cannot even say that no event is there."""
    try:
        list(context["inlet_events"][asset].after(_NEVER))
    except AirflowRuntimeError:
        raise error from None
    _log.warning(
        "Airflow cannot show every event of %s, because a DAG run that one of them started has not started itself "
        "(apache/airflow#71360). Going on without these. Cure: let runs that wait in the queue start, delete those "
        "that never will, or update Airflow.",
        asset.name,
    )


def _as_many_as_possible(ask: Callable[[int], list[Any]]) -> list[Any]:
    """The longest answer to ``ask(limit)`` that is no error; each error costs Airflow's client some seconds."""
    best: list[Any] = []
    readable, failing = 0, None
    while failing is None or failing - readable > 1:
        limit = (readable + failing) // 2 if failing else 2 * readable or 1
        try:
            best = ask(limit)
        except AirflowRuntimeError:
            failing = limit
        else:
            readable = limit
            if len(best) < limit:
                break
    return best
