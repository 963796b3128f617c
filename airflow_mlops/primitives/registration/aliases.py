"""Which version of a model is the champion, and which one waits to take its place."""

from __future__ import annotations

from collections.abc import Iterable

#: Tag of a version that became champion: ``pending`` before the alias was moved, ``done`` after.
PROMOTED_TAG = "airflow_mlops.promoted"
PENDING, DONE = "pending", "done"


def may_lead(version: int, champion: int | None) -> bool:
    """Whether a version may become the champion: it only moves forward, so that a late retry changes nothing."""
    return champion is None or version >= champion


def challenger(versions: Iterable[int], champion: int | None) -> int | None:
    """The newest version, when it is newer than the champion: it was registered, and waits for its turn.

    An older version than the champion has lost, and is no challenger.

    :param versions: all versions of the model.
    """
    newest = max(versions, default=None)
    return newest if newest is not None and newest > (champion or 0) else None
