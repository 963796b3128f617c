"""Waiting for jobs: how often a service is asked, and what when an engine does not answer."""

from __future__ import annotations

import asyncio
import logging
import time
from itertools import islice
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import EngineUnavailableError, MLOpsError
from airflow_mlops.runners.lines import hand_over
from airflow_mlops.runners.protocol import JobState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from airflow_mlops.runners.protocol import LogLine, OnLog

log = logging.getLogger(__name__)

#: Seconds between two looks: at first, and at most while a job waits or is silent.
FIRST, LONGEST = 1.0, 15.0
#: Seconds after the end in which the last lines may still arrive.
LAST_OUTPUT = 3.0
#: Lines that are read and handed over at once: the memory of a burst, and what other tasks of the loop wait for.
AT_ONCE = 1_000
#: Seconds between two tries while the service does not answer.
AWAY = 30.0


async def outlast(watch: Callable[[], Awaitable[JobState]], deadline: float | None) -> JobState:
    """Watch a job in a session with its engine, and begin again when the engine was away.

    At the deadline with the engine away, the state is ``running``, the last that was known.

    :param watch: opens a session and waits for the end, or the deadline.
    :param deadline: Unix time.
    """
    pause = FIRST
    while True:
        begun = time.monotonic()
        try:
            return await watch()
        except EngineUnavailableError as error:
            if time.monotonic() - begun > AWAY:
                pause = FIRST
            left = deadline - time.time() if deadline is not None else pause
            if left <= 0:
                return JobState("running")
            log.warning("%s Trying again in %.0f s.", error, min(pause, left))
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, AWAY)


async def poll(
    inspect: Callable[[], JobState],
    read: Callable[[str], Iterable[LogLine]],
    on_log: OnLog,
    since: str,
    deadline: float | None,
) -> JobState:
    """Look until the job is over or the deadline has passed; a service that is away is waited for.

    Both functions are called in a thread.

    :param inspect: the job's state.
    :param read: the lines behind a cursor, however many; they are taken some at a time.
    """
    pause, state, output = FIRST, JobState("running"), _Output(read, on_log, since)
    while True:
        try:
            state = await asyncio.to_thread(inspect)
            # A job that runs may speak faster than it is read.
            until = deadline if state.status == "running" else None
            heard = await output.hand_over(until) if state.status in ("running", "exited") else False
            if state.status in ("exited", "gone"):
                while state.status == "exited":
                    await asyncio.sleep(LAST_OUTPUT)
                    if not await output.hand_over():
                        break
                return state
            # Who speaks is listened to; who waits in a queue may wait for hours.
            pause = FIRST if heard else min(pause * 1.5, LONGEST)
        except MLOpsError as error:
            if not error.retriable:
                raise
            pause = min(2 * pause, AWAY)
            log.warning("%s Looking again in %.0f s.", error, pause)
        left = deadline - time.time() if deadline is not None else pause
        if left <= 0:
            return state
        await asyncio.sleep(min(pause, left))


class _Output:
    """What a job says, from a cursor on."""

    def __init__(self, read: Callable[[str], Iterable[LogLine]], on_log: OnLog, since: str) -> None:
        self._read = read
        self._on_log = on_log
        self._cursor = since

    async def hand_over(self, until: float | None = None) -> bool:
        """Hand over what is new; whether there was something.

        :param until: Unix time after which the rest waits.
        """
        before, lines = self._cursor, iter(await asyncio.to_thread(self._read, self._cursor))
        while some := await asyncio.to_thread(lambda: list(islice(lines, AT_ONCE))):
            for line in some:
                await hand_over(line, self._on_log)
                self._cursor = line.at
            if until is not None and time.time() >= until:
                break
        return self._cursor != before
