"""Where jobs run: one module for each kind of place, one protocol for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import RunnerError

if TYPE_CHECKING:
    from airflow_mlops.runners.base import Runner

__all__ = ["KINDS", "get_runner"]

KINDS = ("docker", "process")


def get_runner(kind: str, **options: Any) -> Runner:
    """Make the runner of a kind; nothing is contacted yet.

    :param kind: ``docker`` or ``process``.
    :param options: JSON values for its constructor.
    :raises RunnerError: for an unknown kind, or an option that it does not have.
    """
    if kind not in KINDS:
        raise RunnerError(f"There is no runner {kind!r}. Known: {', '.join(KINDS)}.")
    try:
        if kind == "docker":
            from airflow_mlops.runners.docker import DockerRunner

            return DockerRunner(**options)
        from airflow_mlops.runners.process import ProcessRunner

        return ProcessRunner(**options)
    except TypeError as error:
        raise RunnerError(f"Options of runner {kind!r} do not fit: {error}.") from error
