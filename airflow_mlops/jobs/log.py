"""What a worker prints of a job: nothing unmasked, and what the triggerer may not have printed."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import MLOpsError, RunnerError
from airflow_mlops.jobs.output import KEY, JobOutput, trigger_log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_mlops.runners.protocol import Runner

#: Seconds that reading the rest of a job's output may take.
REST = 600.0


def hidden_texts(
    secrets: Mapping[str, str] | None, name: str, log: Any, *, retried: bool = False
) -> Sequence[str] | None:
    """Texts that no line of a job may show; ``None`` where they cannot be found out: then no line may be shown.

    :param secrets: name → Airflow connection.
    :param name: of the job.
    :param retried: a retry may find them out.
    :raises RunnerError: Airflow does not say, and there is a retry.
    """
    from airflow_mlops.hooks.connections.secrets import mask_secrets

    try:
        return mask_secrets(secrets or {})
    except RunnerError as error:
        if retried and error.retriable:
            raise
        log.warning("No more output of job %s is shown: %s", name, error)
        return None


def print_rest(
    runner: Runner, name: str, position: Mapping[str, Any] | None, hidden: Sequence[str], limit: int, log: Any
) -> dict[str, Any]:
    """Print the output of a job that is over from a position on; what cannot be read is a line in the log.

    :return: the position behind it.
    """
    # With the trigger's logger, a line that it has printed too is equal to this one, and Airflow shows it once.
    rest = JobOutput(trigger_log(), name, limit=limit, position=dict(position or {}), hidden=hidden)
    try:
        runner.wait(name, rest, rest.cursor, time.time() + REST)
    except MLOpsError as error:
        log.warning("The end of the output of %s cannot be read: %s", name, error)
    return rest.position


def saved_position(context: Context, task_id: str) -> dict[str, Any] | None:
    """Where the triggerer was in the job's output; none where it did not say, and the log begins again."""
    with contextlib.suppress(Exception):
        found = context["ti"].xcom_pull(task_ids=task_id, key=KEY)
        return dict(found) if found else None
    return None
