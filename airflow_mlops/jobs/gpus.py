"""Waiting for GPUs before a job is submitted, so that its inputs are not fetched in vain."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import GpusTakenError
from airflow_mlops.runners.protocol import GpuRunner

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_mlops.runners.protocol import Runner

#: Seconds between two looks of a worker that waits itself.
POLL = 5.0


def check_gpus(runner: Runner, name: str, gpus: Any, image: str | None) -> None:
    """Make sure that a job need not wait for its GPUs, as things stand at this moment.

    :raises GpusTakenError: when others hold them.
    :raises GpusMissingError: when they can never be had there.
    """
    if gpus and image and isinstance(runner, GpuRunner) and not runner.gpus_free(name, gpus, image):
        raise GpusTakenError(f"Job {name} asks for GPUs ({gpus}) that other jobs hold.")


def wait_until_free(runner: Runner, *, name: str, gpus: Any, image: str) -> None:
    """Wait on the worker until a job could have its GPUs."""
    while isinstance(runner, GpuRunner) and not runner.gpus_free(name, gpus, image):
        time.sleep(POLL)


def execute_again(operator: BaseOperator, context: Context) -> Any:
    """Run ``execute`` of a task that has waited, with all that its subclasses put around it.

    Airflow warns of a call that does not come from its own task runner; this one does, after the wait.
    """
    from airflow.sdk.bases.operator import ExecutorSafeguard

    mark = {f"{type(operator).__name__}__sentinel": ExecutorSafeguard.sentinel_value}
    return operator.execute(context, **mark)
