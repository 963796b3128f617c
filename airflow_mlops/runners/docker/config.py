"""What a Docker Engine is told to create for a job: limited, unprivileged, and nothing secret in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.hooks.docker.gpus import device_requests
from airflow_mlops.runners.files.disk import allowed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_mlops.hooks.docker.hook import EngineImage
    from airflow_mlops.runners.protocol import ContainerJob

#: In front of every label that the runner sets.
LABEL = "ai.airflow-mlops."
#: Label of a job that has GPUs, and of its leases: their UUIDs.
GPUS = f"{LABEL}gpus"
#: Label of a lease: the name of the job that holds it.
LEASE = f"{LABEL}lease"
#: Label of a job that may write so many bytes, its inputs with them.
DISK = f"{LABEL}disk"
#: The user that model code runs as, whatever the image says.
USER = 1000


def container_config(job: ContainerJob, image: EngineImage, gpus: Sequence[str] = ()) -> dict[str, Any]:
    """Body of the engine's ``POST /containers/create``.

    :param gpus: UUIDs of the GPUs that the job holds a lease of.
    :raises RunnerError: for a network that is somebody else's.
    """
    if job.network == "host" or ":" in job.network:
        raise RunnerError(
            f"Job {job.name}: network {job.network!r} would be that of the machine or of another container. Cure: "
            "none, bridge, or a network of its own (docker network create) in training.docker.network."
        )
    limits = job.resources
    # Images made for GPUs ask for all of them, and some engines would listen.
    environment = ["PYTHONUNBUFFERED=1", *([] if gpus else ["NVIDIA_VISIBLE_DEVICES=void"])]
    return {
        "Image": image.id,
        "Cmd": [job.command],
        "User": f"{USER}:{USER}",
        "Env": environment,
        # The contract's, whatever the image says.
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {
            **job_labels(job, image),
            **({GPUS: ",".join(gpus)} if gpus else {}),
            **({DISK: str(limit)} if (limit := allowed(job)) is not None else {}),
        },
        "HostConfig": {
            "NetworkMode": job.network,
            "NanoCpus": round((limits.cpus or 0) * 1e9),
            "Memory": limits.memory or 0,
            "MemorySwap": limits.memory or 0,
            "ShmSize": limits.shm,
            "PidsLimit": limits.pids,
            "DeviceRequests": device_requests(gpus),
            "VolumesFrom": [f"{job.shared}:ro"] if job.shared else [],
            "Init": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            # A driver whose lines can be read again, and that cannot fill the engine's disk.
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "64m", "max-file": "2"}},
        },
    }


def lease_config(job: ContainerJob, image: EngineImage, gpu: str) -> dict[str, Any]:
    """Body for a container that is never started: whoever could create it has the GPU."""
    return {
        "Image": image.id,
        "Cmd": ["lease"],
        "Labels": {**job_labels(job, image), GPUS: gpu, LEASE: job.name},
        "HostConfig": {"NetworkMode": "none"},
    }


def job_labels(job: ContainerJob, image: EngineImage) -> dict[str, str]:
    """What a container belongs to; those who tidy up go by it."""
    labels = {
        **job.labels,
        "name": job.name,
        "command": job.command,
        "image": job.image,
        "image-digest": image.digest,
    }
    return {f"{LABEL}{key}": value for key, value in labels.items()}
