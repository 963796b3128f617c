"""What the next try must know when a worker was killed: where the log of the job ends, and a result that was taken over."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_mlops.jobs.output import KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.runners.protocol import JobState

log = logging.getLogger(__name__)

#: Under this key lies the result of the job.
RESULT = "job_result"


class Bookmark:
    """
    The position in a job's output, in the state store of the task, which outlives its tries.

    Whatever goes wrong with it, the job goes on: then a line is printed twice.

    :param context: of the task that is running.
    :param job: name of the job.
    :param state: its state; a job of the same name that was started anew has a log of its own.
    """

    def __init__(self, context: Context, job: str, state: JobState) -> None:
        self._store: Any = context.get("task_state_store")
        self._of = f"{job} {state.started_at}"

    def load(self) -> dict[str, Any] | None:
        """What was kept last of this very job."""
        try:
            found = self._store.get(KEY) if self._store is not None else None
        except Exception as error:  # noqa: BLE001
            log.warning("Where the log of the last try ended cannot be read, so it is repeated: %s", error)
            return None
        return found["position"] if found and found.get("of") == self._of else None

    def keep(self, position: dict[str, Any] | None) -> None:
        """Remember a position; nothing is done for none."""
        if self._store is None or not position:
            return
        try:
            self._store.set(KEY, {"of": self._of, "position": position})
        except Exception as error:  # noqa: BLE001
            log.warning("Where the log ends cannot be saved, so a retry will repeat it: %s", error)

    async def save(self, position: dict[str, Any]) -> None:
        """As :meth:`keep`, while the job is waited for."""
        self.keep(position)


def keep_result(context: Context, job: str, result: Any) -> None:
    """Keep what a task will return, before its job is removed: a worker may die between that and the return."""
    store: Any = context.get("task_state_store")
    try:
        if store is not None:
            store.set(RESULT, {"of": job, "max_tries": context["ti"].max_tries, "result": result})
    except Exception as error:  # noqa: BLE001  the result is well; only a crash in the next second would cost it
        log.warning("The result cannot be kept for a retry: %s", error)


def kept_result(context: Context, job: str) -> dict[str, Any] | None:
    """What an earlier try kept under ``result``, of this very job; ``None`` when there is nothing.

    Airflow keeps the store after success: what was there before somebody cleared the task is no result any more.
    """
    store: Any = context.get("task_state_store")
    if store is None or context["ti"].try_number == 1:
        return None
    found = store.get(RESULT)
    # Clear raises max_tries, and not every job's name tells: that of a tuning's best trial is always the same.
    ours = found and (found.get("of"), found.get("max_tries")) == (job, context["ti"].max_tries)
    return dict(found) if ours else None
