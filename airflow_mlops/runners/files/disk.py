"""What a job has written to the disk of its machine: looked at while it runs, as no storage driver but few can bound it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.runners.files.layout import input_tree
from airflow_mlops.runners.protocol import ContainerJob, JobState

__all__ = ["DiskWatch", "allowed", "folder_size", "judged"]

log = logging.getLogger(__name__)

#: Seconds between two looks, and how many times longer than a look took the pause after it is at least.
LOOK_EVERY, REST = 5.0, 10.0
#: Exit code of a job that was killed, as one is that has written too much.
KILLED = 137


class DiskWatch:
    """
    Looks at a job now and then, at most for a tenth of the time.

    :param written: bytes that the job has written so far, its inputs with them; ``None`` when nobody knows.
    """

    def __init__(self, written: Callable[[], Awaitable[int | None]]) -> None:
        self._written = written
        self._due = 0.0

    async def is_over(self, limit: int | None) -> bool:
        """Whether the job has written more than it may.

        :param limit: bytes; ``None`` for no limit.
        """
        began = time.monotonic()
        if limit is None or began < self._due:
            return False
        try:
            found = await self._written()
        except (RunnerError, OSError) as error:
            log.warning("What a job has written cannot be measured, trying again: %s", error)
            found = None
        now = time.monotonic()
        self._due = now + max(LOOK_EVERY, REST * (now - began))
        return found is not None and found > limit


def allowed(job: ContainerJob) -> int | None:
    """Bytes that may lie on the disk for a job: its inputs, which are copied there, and ``Resources.disk``."""
    if job.resources.disk is None:
        return None
    sizes = (
        len(file.content) if isinstance(file.content, bytes) else Path(file.content).stat().st_size
        for file in input_tree(job)
    )
    return job.resources.disk + sum(sizes)


def judged(state: JobState, limit: int | None, written: Callable[[], int | None]) -> JobState:
    """The state, with its cause when the job was killed for what it had written."""
    if limit is None or (state.status, state.exit_code) != ("exited", KILLED):
        return state
    found = written()
    if found is None or found <= limit:
        return state
    words = (
        f"{_mib(found)} lay on its disk, its inputs with them, and {_mib(limit)} may. Cure: write less, or raise "
        "resources.disk in the YAML"
    )
    return replace(state, cause="over_disk", error=words)


def folder_size(folder: Path) -> int:
    """Bytes on the disk of a folder's files, links not followed; what vanishes meanwhile does not count."""
    total = 0
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return 0
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                total += folder_size(Path(entry.path))
            else:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return total


def _mib(size: int) -> str:
    return f"{size / 1024**2:,.0f} MiB"
