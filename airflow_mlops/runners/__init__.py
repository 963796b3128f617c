"""Where jobs run: one module for each kind of place, one protocol for all."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import RunnerError

if TYPE_CHECKING:
    from airflow_mlops.runners.protocol import Runner

__all__ = ["KINDS", "get_runner"]

#: Module and class of each kind of runner; imported when a job needs it.
KINDS = {
    "docker": ("docker.runner", "DockerRunner"),
    "process": ("process.runner", "ProcessRunner"),
    "docker_nodes": ("docker.nodes", "DockerNodesRunner"),
    "kubernetes": ("kubernetes.runner", "KubernetesRunner"),
    "aws_batch": ("aws.batch", "AwsBatchRunner"),
    "sagemaker": ("aws.sagemaker", "SageMakerRunner"),
}


def get_runner(kind: str, **options: Any) -> Runner:
    """Make the runner of a kind; nothing is contacted yet.

    :param kind: one of :data:`KINDS`.
    :param options: JSON values for its constructor.
    :raises RunnerError: for an unknown kind, or an option that it does not have.
    """
    if kind not in KINDS:
        raise RunnerError(f"There is no runner {kind!r}. Known: {', '.join(KINDS)}.")
    module, name = KINDS[kind]
    made = getattr(import_module(f"{__name__}.{module}"), name)
    try:
        runner: Runner = made(**options)
    except TypeError as error:
        raise RunnerError(f"Options of runner {kind!r} do not fit: {error}.") from error
    return runner
