"""Whether a trigger that is cancelled was the task's own, or only one triggerer's copy of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger


async def moved_elsewhere(trigger: BaseTrigger) -> bool:
    """Whether the task still waits, so that nobody ended it.

    Airflow calls ``on_kill`` whenever a triggerer finds that a trigger is its own no more: because somebody ended the
    task, and just as well because another triggerer took the trigger over while this one was silent for a while.

    :raises Exception: Airflow does not say.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    task = trigger.task_instance
    if task is None:  # run by hand
        return False
    index = task.map_index if task.map_index is not None else -1
    # In a thread: the question blocks.
    states = await asyncio.to_thread(
        RuntimeTaskInstance.get_task_states,
        task.dag_id,
        map_index=index if index >= 0 else None,
        task_ids=[task.task_id],
        run_ids=[task.run_id],
    )
    return (states.get(task.run_id) or {}).get(state_key(task.task_id, index)) == "deferred"


def state_key(task_id: str, map_index: int) -> str:
    """Under which name Airflow gives the state of a task instance."""
    return task_id if map_index < 0 else f"{task_id}_{map_index}"
