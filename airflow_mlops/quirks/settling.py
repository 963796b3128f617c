"""The first seconds of a trigger, in which it does not fire."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

#: Seconds in which the scheduler hears from its executor what the supervisor of a worker knows.
MARGIN = 3.0


async def settled(trigger: BaseTrigger, began: float) -> None:
    """Return when the trigger may fire.

    A supervisor may notice the end of its worker, which has deferred the task, only at its next look, up to
    ``[workers] min_heartbeat_interval`` seconds later. Where the task is queued again by then, Airflow 3.3 takes that
    end for the end of the new worker, and fails the task.

    :param began: monotonic moment of its beginning.
    """
    if trigger.task_instance is not None:  # else run by hand
        await asyncio.sleep(max(0.0, began + settling() - time.monotonic()))


def settling() -> float:
    """Seconds in which no trigger fires."""
    from airflow.sdk.configuration import conf

    return float(conf.getint("workers", "min_heartbeat_interval", fallback=5)) + MARGIN
