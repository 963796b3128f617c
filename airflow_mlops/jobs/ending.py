"""Ends jobs that nobody asks for any more, in the time that somebody who ended a task leaves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from airflow_mlops.runners.protocol import DiscardsJobs

if TYPE_CHECKING:
    from airflow_mlops.runners.protocol import Runner

#: Seconds for the end of a job, on a worker and in the triggerer: Airflow kills the former after five in all, and
#: cancels the latter after thirty (``[triggerer] on_kill_timeout``). Removing what the job left takes some of them.
ON_WORKER, IN_TRIGGERER = 1.5, 15.0


def discard(runner: Runner, name: str, within: float | None = None) -> None:
    """Stop a job and remove it.

    :param within: seconds that its end is waited for, where that may take longer; by default what a worker has.
    """
    if isinstance(runner, DiscardsJobs):
        runner.discard(name, ON_WORKER if within is None else within)
        return
    runner.stop(name)
    runner.cleanup(name)


async def discard_async(runner: Runner, name: str, grace: int = 4, within: float | None = None) -> None:
    """As :func:`discard`, for the triggerer.

    :param grace: seconds between SIGTERM and SIGKILL, where that is ours to say.
    :param within: by default what a triggerer has.
    """
    if isinstance(runner, DiscardsJobs):
        await asyncio.to_thread(runner.discard, name, IN_TRIGGERER if within is None else within)
        return
    await runner.stop_async(name, grace)
    await asyncio.to_thread(runner.cleanup, name)
