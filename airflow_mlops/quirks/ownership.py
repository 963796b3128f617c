"""Whether a task was ended, so that the job behind it may be stopped; and when nobody may touch that job."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

__all__ = ["OVER", "ended", "ended_within", "is_ended", "state_key"]

#: States of a task instance after which nobody comes back for its job, unless a user clears it: that is a new job then.
OVER = ("success", "failed", "skipped", "upstream_failed", "removed")
#: States of a task instance that was cleared: its next try is a new job.
CLEARED = (None, "restarting")
#: Seconds that a worker which is being ended waits for Airflow's answer: it has five in all.
PATIENCE = 1.0


def is_ended(state: str | None) -> bool:
    """Whether nobody will ask for the job of a task instance in this state.

    In all other states somebody has the job or will have it: another triggerer (``deferred``), the worker that takes
    its result (``scheduled``, ``queued``, ``running``), the next try, which adopts it (``up_for_retry``).
    """
    return state in OVER or state in CLEARED


async def ended(trigger: BaseTrigger) -> bool:
    """Whether the task of a cancelled trigger was ended, and the job may be stopped if it still runs.

    Airflow calls ``on_kill`` whenever a triggerer finds that a trigger is its own no more: because a user ended the
    task, and just as well because another triggerer took the trigger over while this one was silent for a while. By
    then that one may have fired, and a worker may be taking the result.

    :raises Exception: Airflow does not say.
    """
    task = trigger.task_instance
    # In a thread: the question blocks.
    return task is None or is_ended(await asyncio.to_thread(_state, task))  # without a task it is run by hand


def ended_within(task: Any, seconds: float = PATIENCE) -> bool:
    """As :func:`ended`, for a worker that is asked to end; ``True`` where Airflow does not say in time.

    Airflow ends a worker because a user ended the task, because a silent worker was given up and the next try began,
    and because the worker's machine is shut down. The question is asked in a thread, since the main one may have
    been stopped amid another question, which holds the line to Airflow.
    """
    found: list[bool] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            found.append(is_ended(_state(task)))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else True


def state_key(task_id: str, map_index: int) -> str:
    """Under which name Airflow gives the state of a task instance."""
    return task_id if map_index < 0 else f"{task_id}_{map_index}"


def _state(task: Any) -> str | None:
    """State of a task instance now; ``removed`` for one that is no more."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    index = task.map_index if task.map_index is not None else -1
    states: Mapping[str, Any] = RuntimeTaskInstance.get_task_states(
        task.dag_id,
        map_index=index if index >= 0 else None,
        task_ids=[task.task_id],
        run_ids=[task.run_id],
    )
    state = (states.get(task.run_id) or {}).get(state_key(task.task_id, index), "removed")
    return None if state is None else str(getattr(state, "value", state))
