"""Waiting for jobs: how often a service is asked, and what when an engine does not answer."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import EngineUnavailable, MLOpsError
from airflow_mlops.runners.base import JobState
from airflow_mlops.runners.lines import hand_over

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_mlops.runners.base import LogLine, OnLog

log = logging.getLogger(__name__)

#: Seconds between two looks: at first, and at most while a job waits or is silent.
FIRST, LONGEST = 1.0, 15.0
#: Seconds after the end in which the last lines may still arrive.
LAST_OUTPUT = 3.0
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
        except EngineUnavailable as error:
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
    read: Callable[[str], list[LogLine]],
    on_log: OnLog,
    since: str,
    deadline: float | None,
) -> JobState:
    """Look until the job is over or the deadline has passed; a service that is away is waited for.

    Both functions are called in a thread.

    :param inspect: the job's state.
    :param read: the lines behind a cursor.
    """
    cursor, pause, state = since, FIRST, JobState("running")

    async def print_new() -> bool:
        nonlocal cursor
        lines = await asyncio.to_thread(read, cursor)
        for line in lines:
            await hand_over(line, on_log)
            cursor = line.at
        return bool(lines)

    while True:
        try:
            state = await asyncio.to_thread(inspect)
            heard = await print_new() if state.status in ("running", "exited") else False
            if state.status in ("exited", "gone"):
                while state.status == "exited":
                    await asyncio.sleep(LAST_OUTPUT)
                    if not await print_new():
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
