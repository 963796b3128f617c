"""Waits for a job in the triggerer, so that no worker slot is held while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseXCom
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.jobs.ending import discard_async
from airflow_mlops.jobs.output import BEHIND, KEY, LOG_LIMIT, JobOutput, watch
from airflow_mlops.quirks.ownership import ended
from airflow_mlops.quirks.reachability import airflow_answers
from airflow_mlops.quirks.settling import settled
from airflow_mlops.runners import get_runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_mlops.runners.protocol import JobState, Runner

#: Seconds between two tries of a wait that failed.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
#: Errors in a row that time does not cure, after which a worker waits instead.
HOPELESS = 10
#: Seconds of a wait that went well before it failed.
WELL = 60.0
#: Seconds for which an API server that is away is waited for, and between two looks at it.
LONGEST_OUTAGE, LOOK_AGAIN = 600.0, 5.0
#: Seconds that a killed job has between SIGTERM and SIGKILL.
GRACE = 4


class JobTrigger(BaseTrigger):
    """
    Fire once, when the job has ended, was silent for too long, or the deadline has passed; or when it cannot be watched
    from here, as without the files or programs that the way to its engine needs.

    The event is ``{"status": "exited" | "gone" | "stalled" | "timeout" | "error", "state": {…}, "position": {…}, "rest":
    true}``: ``state`` as :meth:`JobState.to_dict() <airflow_mlops.runners.protocol.JobState.to_dict>`, for ``error`` with a
    ``message``. Every line of the job's output goes to the task's log as it comes. Where that log is, is an XCom of
    the task, so that another triggerer goes on there. The job is stopped and removed only when somebody ends the task
    by hand, never when the triggerer ends.

    :param runner: kind of the runner.
    :param options: options of the runner.
    :param name: name of the job.
    :param secrets: its secrets, name → Airflow connection, to be masked in what it prints.
    :param deadline: Unix time at which waiting ends.
    :param stall_timeout: seconds without a line of output after which waiting ends.
    :param log_limit: bytes of output that go to the task's log at most.
    :param position: where the log of an earlier try ended.
    :param progress: MLflow run to which the figures of progress are logged: arguments of
        :class:`~airflow_mlops.hooks.mlflow.progress.MetricSink`.
    """

    def __init__(
        self,
        *,
        runner: str,
        options: dict[str, Any],
        name: str,
        secrets: dict[str, str] | None = None,
        deadline: float | None = None,
        stall_timeout: float | None = None,
        log_limit: int = LOG_LIMIT,
        position: dict[str, Any] | None = None,
        progress: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.runner = runner
        self.options = options
        self.name = name
        self.secrets = secrets
        self.deadline = deadline
        self.stall_timeout = stall_timeout
        self.log_limit = log_limit
        self.position = position
        self.progress = progress
        self._made: Runner | None = None
        self._output: JobOutput | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What is stored of the trigger: JSON values, nothing secret."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "runner": self.runner,
            "options": self.options,
            "name": self.name,
            "secrets": self.secrets,
            "deadline": self.deadline,
            "stall_timeout": self.stall_timeout,
            "log_limit": self.log_limit,
            "position": self.position,
            "progress": self.progress,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the job, however often something fails on the way that may pass."""
        began, pause, hopeless = time.monotonic(), FIRST_PAUSE, 0
        known = await asyncio.to_thread(airflow_answers)
        while True:
            tried = time.monotonic()
            try:
                status, state = await self._watch()
            except Exception as error:  # noqa: BLE001  a failed trigger would fail a task whose job is well
                if time.monotonic() - tried > WELL:
                    pause, hopeless = FIRST_PAUSE, 0
                passes = isinstance(error, MLOpsError) and error.retriable
                hopeless = 0 if passes else hopeless + 1
                if hopeless >= HOPELESS:
                    await settled(self, began)
                    await self._airflow_is_back(known)
                    yield self._event("error", None, f"{type(error).__name__}: {error}")
                    return
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
                await settled(self, began)
                await self._airflow_is_back(known)
                yield self._event(status, state)
                return

    async def on_kill(self) -> None:
        """Stop the job and remove it, if the task was ended and the job still runs.

        One that has ended is left alone, whatever the task's state is: nobody can make its result again. The
        maintenance DAG removes it when its task is over.
        """
        from airflow_mlops.hooks.mlflow.progress import MetricSink

        if not await ended(self):
            self.log.info("Job %s goes on: another triggerer or a worker has it now", self.name)
            return
        runner = await self._get_runner()
        state = await asyncio.to_thread(runner.inspect, self.name)
        if state.status in ("exited", "gone"):
            self.log.info("Job %s has ended, and is left to the maintenance DAG", self.name)
            return
        self.log.info("Stopping job %s: the task was ended by hand", self.name)
        try:
            await discard_async(runner, self.name, GRACE)
        finally:
            await MetricSink.of(self.progress).end("KILLED", "The task was ended by hand.")

    async def _airflow_is_back(self, known: bool) -> None:
        """Hold the event back while no worker could report: a task that wakes then fails, and uses up a try.

        :param known: the API server has answered here before; some triggerers cannot reach it, and wait for nothing.
        """
        until = time.monotonic() + LONGEST_OUTAGE
        while known and time.monotonic() < until and not await asyncio.to_thread(airflow_answers):
            self.log.warning(
                "Nobody can take over job %s: waiting for Airflow's API server, which does not answer",
                self.name,
            )
            await asyncio.sleep(LOOK_AGAIN)

    async def _watch(self) -> tuple[str, JobState]:
        runner = await self._get_runner()
        memory = _XCom(self.task_instance) if self.task_instance is not None else None
        if self._output is None:
            hidden: tuple[str, ...] = ()
            if self.secrets:
                from airflow_mlops.hooks.connections.secrets import mask_secrets_async

                hidden = await mask_secrets_async(self.secrets)
            position = (await memory.load() if memory else None) or self.position
            self._output = JobOutput(
                self.log, self.name, limit=self.log_limit, position=position, hidden=hidden, behind=BEHIND
            )
        return await watch(
            runner,
            self.name,
            self._output,
            deadline=self.deadline,
            stall_timeout=self.stall_timeout,
            memory=memory,
            progress=self.progress,
        )

    async def _get_runner(self) -> Runner:
        # In a thread: the first runner of a triggerer imports its packages.
        if self._made is None:
            self._made = await asyncio.to_thread(get_runner, self.runner, **self.options)
        return self._made

    def _event(self, status: str, state: JobState | None, message: str = "") -> TriggerEvent:
        position = self._output.settled if self._output else self.position or {}
        content = {
            "status": status,
            "state": state.to_dict() if state else None,
            "position": position,
            # What comes behind the position may not be in the task's log yet: the worker prints it.
            "rest": True,
            **({"message": message} if message else {}),
        }
        return TriggerEvent(content)  # type: ignore[no-untyped-call]


class _XCom:
    """Keeps the position as an XCom of the task that waits: Airflow removes it when the task is tried again."""

    def __init__(self, task: Any) -> None:
        self._task = {key: getattr(task, key) for key in ("dag_id", "run_id", "task_id", "map_index")}

    async def load(self) -> dict[str, Any]:
        # A log that begins again is better than a job that nobody waits for.
        with contextlib.suppress(Exception):
            found = await BaseXCom.aget_one(key=KEY, **self._task)
            return dict(found or {})
        return {}

    async def save(self, position: dict[str, Any]) -> None:
        await BaseXCom.aset(KEY, position, **self._task)
