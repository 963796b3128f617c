"""The first seconds of a trigger, in which it does not fire."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

#: Seconds. The scheduler hears from its executor that the worker of a deferred task has ended, on a busy machine some
#: seconds late. Where the task is queued or runs again by then, Airflow 3.3 takes it for killed and fails it.
SETTLING = 5.0


async def settled(trigger: BaseTrigger, began: float) -> None:
    """Return when the trigger may fire.

    :param began: monotonic moment of its beginning.
    """
    if trigger.task_instance is not None:  # else run by hand
        await asyncio.sleep(max(0.0, began + SETTLING - time.monotonic()))
