"""What the Kubernetes runner asks of a cluster, one step at a time; every step may be repeated."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import EngineUnavailableError
from airflow_mlops.runners.kubernetes.logs import PodLog, since_time
from airflow_mlops.runners.kubernetes.manifests import (
    CONTAINER,
    NAME,
    STOPPED,
    TOKEN,
    object_name,
    secret_manifest,
    service_manifest,
)
from airflow_mlops.runners.kubernetes.state import Seen, job_state, owner_of
from airflow_mlops.runners.lines import hand_over_new

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_mlops.hooks.kubernetes.session import ClusterSession
    from airflow_mlops.runners.lines import Delivered
    from airflow_mlops.runners.protocol import ContainerJob, OnLog

log = logging.getLogger(__name__)

#: Seconds that a stopped job has for sending its checkpoint, beyond its grace.
UPLOAD = 4


async def look(cluster: ClusterSession, name: str) -> Seen:
    """The Job and its pods at this moment."""
    job = await cluster.get("jobs", object_name(name))
    pods = await cluster.find("pods", labelSelector=f"{NAME}={object_name(name)}") if job else []
    return Seen.of(job, pods)


async def release(
    cluster: ClusterSession,
    job: ContainerJob,
    metadata: dict[str, Any],
    transfer: str,
    files: Mapping[str, bytes],
) -> None:
    """Make what the pods need, then let the cluster make them.

    :param metadata: of the Job.
    :param transfer: address of the job's data.
    :param files: name → content of each of the job's secrets.
    """
    uid, token = metadata["uid"], metadata["annotations"][TOKEN]
    secret = secret_manifest(job, token, uid, transfer, files)
    if await cluster.create("secrets", secret) is None:
        # Of a creator who died; the address in it may be too old.
        await cluster.delete("secrets", secret["metadata"]["name"])
        await cluster.create("secrets", secret)
    if job.distribution.nodes > 1:
        await cluster.create("services", service_manifest(job, uid))
    await cluster.patch("jobs", metadata["name"], {"spec": {"suspend": False}})


async def end(cluster: ClusterSession, name: str, grace: int, within: float) -> None:
    """Stop the pods and make no more; the Job stays to say so.

    :param grace: seconds between SIGTERM and SIGKILL.
    :param within: seconds that the end is waited for at most.
    """
    seen = await look(cluster, name)
    if seen.job is None or owner_of(seen.job) != name or not _is_open(seen):
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    stopped = {"metadata": {"annotations": {STOPPED: now}}, "spec": {"suspend": True}}
    await cluster.patch("jobs", object_name(name), stopped)
    for pod in seen.pods:
        await cluster.delete("pods", pod["metadata"]["name"], gracePeriodSeconds=grace)
    until = time.monotonic() + within
    while time.monotonic() < until:
        if not _is_open(await look(cluster, name)):
            return
        await asyncio.sleep(0.3)


async def remove(cluster: ClusterSession, name: str) -> None:
    """Delete the Job; the cluster deletes what it owns."""
    job = await cluster.get("jobs", object_name(name))
    if job is not None and owner_of(job) == name:
        await cluster.delete("jobs", object_name(name), propagationPolicy="Background")


async def read(
    cluster: ClusterSession, seen: Seen, on_log: OnLog, delivered: Delivered, *, follow: bool
) -> None:
    """Hand over the lines of the first machine that are new."""
    pod = seen.first
    if pod is None:
        return
    reader = PodLog(delivered)
    async for chunk in cluster.log(pod["metadata"]["name"], CONTAINER, since_time(delivered), follow=follow):
        await hand_over_new(reader.feed(chunk), on_log, delivered)
    # While following, an unfinished line at the end may be a broken connection's: the last reading tells.
    if not follow:
        await hand_over_new(reader.flush(), on_log, delivered)


async def read_rest(cluster: ClusterSession, seen: Seen, on_log: OnLog, delivered: Delivered) -> None:
    """The last lines of an ended job; a machine that is gone took them with it."""
    try:
        await read(cluster, seen, on_log, delivered, follow=False)
    except EngineUnavailableError as error:
        await cluster.get("jobs", seen.job["metadata"]["name"] if seen.job else "")  # or the server is away
        log.warning("The last lines of the job cannot be read: %s", error)


def is_held(job: dict[str, Any]) -> bool:
    """Whether its creator has not released it yet."""
    annotations = job["metadata"].get("annotations") or {}
    return bool(job["spec"].get("suspend")) and STOPPED not in annotations


def _is_open(seen: Seen) -> bool:
    return job_state(seen, datetime.now(UTC), float("inf")).status in ("created", "running")
