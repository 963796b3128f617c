"""Inputs that several containers of one engine share: copied there once, and mounted read-only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.runners.docker.config import USER, container_config
from airflow_mlops.runners.files.archive import pack
from airflow_mlops.runners.files.layout import SHARED, InputFile, folders_of, shared_files
from airflow_mlops.runners.protocol import Resources

if TYPE_CHECKING:
    from airflow_mlops.hooks.docker.hook import DockerEngineHook
    from airflow_mlops.runners.protocol import ContainerJob

#: Written last: with it, everything is there.
COMPLETE = f"{SHARED}/.complete"


def stage(hook: DockerEngineHook, job: ContainerJob, root: str) -> None:
    """Fill the volume of a container that is never started, unless it is full.

    The volume has no name of its own: it lives as long as this container, or another one that mounts it, so that
    whoever removes containers by their labels leaves no volume behind.

    :param job: its inputs below ``input/data`` are shared, under its name.
    """
    image = hook.model_code_image(job.image)
    config: dict[str, Any] = {
        **container_config(replace(job, network="none", resources=Resources()), image),
        "Volumes": {f"/{root}/{SHARED}": {}},
    }
    if not hook.create(job.name, config) and hook.inspect(job.name) is None:
        raise RunnerError(f"Container {job.name} was removed while its inputs were to be copied.")
    if is_staged(hook, job.name, root):
        return
    files = shared_files(job)
    folders = sorted({*folders_of(files), SHARED})
    hook.put(job.name, pack(files, folders, root, USER))
    hook.put(job.name, pack([InputFile(COMPLETE, b"")], [], root, USER))


def is_staged(hook: DockerEngineHook, name: str, root: str) -> bool:
    """Whether all inputs that are shared under a name are on the engine."""
    found = hook.get(name, f"/{root}/{COMPLETE}")
    if found is None:
        return False
    for _ in found:  # the connection is free again only when it was read
        pass
    return True
