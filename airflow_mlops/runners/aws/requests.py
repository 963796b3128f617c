"""What a job asks of AWS, in the words of its services."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import RunnerError

if TYPE_CHECKING:
    from airflow_mlops.runners.protocol import ContainerJob

MEBI = 1024**2
#: Memory of a container that names no limit: Batch wants one.
MEMORY = 4096
_USER = "1000:1000"


def refuse(job: ContainerJob, place: str) -> None:
    """Refuse what a place of AWS cannot do, before anything is started.

    :param place: its name, for the message.
    """
    if job.secrets:
        raise RunnerError(
            f"Job {job.name} has secrets ({', '.join(job.secrets)}), which {place} would show in its console. Cure: "
            "remove training.secrets, and let the model code read them from AWS Secrets Manager by its job role."
        )
    if not job.image:
        raise RunnerError(f"Job {job.name} has no image. Cure: say code.image.")


def gpu_count(job: ContainerJob) -> int:
    """GPUs of each machine.

    :raises RunnerError: they are not given by their number.
    """
    gpus = job.resources.gpus
    if isinstance(gpus, int):
        return gpus
    raise RunnerError(
        f"Job {job.name} asks for GPUs as {gpus!r}, but AWS counts them. Cure: write resources.gpus as a number; which "
        "kind they are is decided by the queue's or the job's instance type."
    )


def container_properties(
    job: ContainerJob, image: str, job_role: str | None, execution_role: str | None
) -> dict[str, Any]:
    """The container of a Batch job definition: everything of the job but its data and its command."""
    limits, gpus = job.resources, gpu_count(job)
    needs = [
        {"type": "VCPU", "value": str(max(1, math.ceil(limits.cpus or 1)))},
        {"type": "MEMORY", "value": str(math.ceil(limits.memory / MEBI) if limits.memory else MEMORY)},
    ]
    if gpus:
        needs.append({"type": "GPU", "value": str(gpus)})
    roles = {"jobRoleArn": job_role, "executionRoleArn": execution_role}
    return {
        "image": image,
        "user": _USER,
        "privileged": False,
        "resourceRequirements": needs,
        "environment": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
        "linuxParameters": {
            "initProcessEnabled": True,
            "sharedMemorySize": max(1, math.ceil(limits.shm / MEBI)),
        },
        **{key: role for key, role in roles.items() if role},
    }


def tags(job: ContainerJob) -> dict[str, str]:
    """The job's labels as AWS takes them."""
    found = {**job.labels, "name": job.name, "command": job.command}
    return {f"airflow-mlops:{key}": tag(value) for key, value in found.items() if value}


def tag(value: str) -> str:
    """A text as the value of a tag: at most 256 characters, of those that AWS allows."""
    return re.sub(r"[^\w\s+\-=.:/@]", "_", value)[:256]
