"""Waits for a job in the triggerer, so that no worker slot is held while it runs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_mlops.runners import get_runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_mlops.runners.base import JobState, LogLine, Runner

LONGEST_PAUSE = 30.0
#: Seconds that a killed job has between SIGTERM and SIGKILL.
GRACE = 4


class JobTrigger(BaseTrigger):
    """
    Fire once, when the job has ended or the deadline has passed.

    The event is ``{"status": "exited" | "gone" | "timeout", "state": {…}, "cursor": …}``: ``state`` as
    :meth:`JobState.to_dict() <airflow_mlops.runners.base.JobState.to_dict>`. Every line of the job's output goes to
    the task's log as it comes. The job is stopped and removed only when somebody ends the task by hand, never when
    the triggerer ends.

    :param runner: kind of the runner.
    :param options: options of the runner.
    :param name: name of the job.
    :param deadline: Unix time at which waiting ends.
    """

    def __init__(
        self, *, runner: str, options: dict[str, Any], name: str, deadline: float | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.runner = runner
        self.options = options
        self.name = name
        self.deadline = deadline
        self._made: Runner | None = None
        self._cursor = ""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What is stored of the trigger: JSON values, nothing secret."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "runner": self.runner,
            "options": self.options,
            "name": self.name,
            "deadline": self.deadline,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the job, however often something fails on the way."""
        pause = 1.0
        while True:
            try:
                runner = await self._get_runner()
                state = await runner.wait_async(self.name, self._print, self._cursor, self.deadline)
            except Exception as error:  # noqa: BLE001  a failed trigger would fail a task whose job is well
                left = self.deadline - time.time() if self.deadline is not None else pause
                if left <= 0:
                    yield self._event("timeout", None)
                    return
                self.log.warning(
                    "Watching job %s failed, trying again in %.0f s: %s", self.name, pause, error
                )
                await asyncio.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                yield self._event(state.status if state.status in ("exited", "gone") else "timeout", state)
                return

    async def on_kill(self) -> None:
        """Stop the job and remove it: somebody ended the task, and nobody will ask for it again."""
        self.log.info("Stopping job %s: the task was ended by hand", self.name)
        runner = await self._get_runner()
        await runner.stop_async(self.name, GRACE)
        await asyncio.to_thread(runner.cleanup, self.name)

    async def _get_runner(self) -> Runner:
        # In a thread: the first runner of a triggerer imports its packages.
        if self._made is None:
            self._made = await asyncio.to_thread(get_runner, self.runner, **self.options)
        return self._made

    def _print(self, line: LogLine) -> None:
        self.log.info("%s", line.text)
        self._cursor = line.at

    def _event(self, status: str, state: JobState | None) -> TriggerEvent:
        content = {"status": status, "state": state.to_dict() if state else None, "cursor": self._cursor}
        return TriggerEvent(content)  # type: ignore[no-untyped-call]
