"""Jobs that a task instance had before somebody cleared it: they run on where Airflow has lost them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_mlops.runners.protocol import FoundJob, Runner

__all__ = ["end_older_jobs", "older_jobs"]

#: Labels that say of which task instance a job is.
TASK = ("airflow", "store", "dag_id", "run_id", "task_id", "map_index")


def end_older_jobs(runner: Runner, owner: Mapping[str, str], log: Any) -> None:
    """Stop and remove the jobs that this task instance has under another name.

    After a Clear, a triggerer that is late, or comes back, finds the task waiting again, and takes that for the wait for
    the old job, which it leaves alone.

    :param owner: the labels ``airflow``, ``store``, ``dag_id``, ``run_id``, ``task_id``, ``map_index`` and ``job``.
    """
    from airflow_mlops.jobs.ending import discard
    from airflow_mlops.runners.protocol import ListsJobs

    if not isinstance(runner, ListsJobs):
        return
    for job in runner.jobs():
        if _task(job) == tuple(owner[key] for key in TASK) and _root(job) != owner["job"]:
            log.warning("Stopping job %s, which this task started before it was cleared", job.name)
            discard(runner, job.name)


def older_jobs(jobs: Iterable[FoundJob]) -> set[str]:
    """Names of jobs whose task instance has started another one in a later try."""
    tasks: dict[tuple[str, ...], list[FoundJob]] = defaultdict(list)
    for job in jobs:
        tasks[_task(job)].append(job)
    older = set()
    for task, found in tasks.items():
        newest = max(found, key=_try)
        if all(task):
            older |= {job.name for job in found if _root(job) != _root(newest) and _try(job) < _try(newest)}
    return older


def _task(job: FoundJob) -> tuple[str, ...]:
    return tuple(job.labels.get(key, "") for key in TASK)


def _root(job: FoundJob) -> str:
    return job.labels.get("job") or job.name


def _try(job: FoundJob) -> int:
    number = job.labels.get("try", "")
    return int(number) if number.isdecimal() else 0
