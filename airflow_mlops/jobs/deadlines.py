"""How long a job may run, and how long its task may wait for it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_mlops.runners.protocol import JobState


def time_left(execution_timeout: timedelta | None, task: Any) -> timedelta | None:
    """What is left of ``execution_timeout``, which Airflow itself does not hold a deferred task to.

    :param task: the task instance.
    """
    if not execution_timeout:
        return None
    began = getattr(task, "start_date", None) or datetime.now(UTC)
    return max(timedelta(seconds=1), began + execution_timeout - datetime.now(UTC))


def job_deadline(job_timeout: float | None, state: JobState) -> float | None:
    """Unix time at which a job must have ended."""
    if not job_timeout:
        return None
    began = datetime.fromisoformat(state.started_at).timestamp() if state.started_at else time.time()
    # The engine's clock may be ahead.
    return min(began, time.time()) + job_timeout
