"""Jobs as Jobs of a Kubernetes cluster: data goes in and out through an object store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import EngineUnavailableError, MLOpsError, RunnerError
from airflow_mlops.hooks.connections.secrets import secret_documents
from airflow_mlops.hooks.kubernetes.hook import KubernetesClusterHook
from airflow_mlops.runners.files.layout import checked_name
from airflow_mlops.runners.files.staging import Staging
from airflow_mlops.runners.kubernetes.cluster import (
    UPLOAD,
    end,
    is_held,
    look,
    read,
    read_rest,
    release,
    remove,
)
from airflow_mlops.runners.kubernetes.manifests import (
    NAME,
    OURS,
    TOKEN,
    TRANSFER,
    PodOptions,
    job_manifest,
    object_name,
)
from airflow_mlops.runners.kubernetes.state import Seen, found_job, job_state, logs_are_there, owner_of
from airflow_mlops.runners.lines import LOGS_LIMIT, Delivered
from airflow_mlops.runners.polling import outlast
from airflow_mlops.runners.protocol import ContainerJob, FoundJob, JobState, LogLine

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_mlops.hooks.kubernetes.session import ClusterSession
    from airflow_mlops.runners.protocol import OnLog

log = logging.getLogger(__name__)

#: Seconds between the first two looks at a job that waits to start, and between later ones, which come more rarely.
FIRST_POLL, SLOWEST_POLL = 0.2, 3.0
#: Seconds between two looks at a job that runs; its end shows in its output at once.
POLL = 5.0
#: Seconds between the end of the output and the next look.
AFTER_OUTPUT = 0.3
#: Seconds that the last output may take to arrive after the end.
LAST_OUTPUT = 5.0
#: Seconds that a Job may take to go away before a new one of its name.
DELETION = 60
#: Seconds between SIGTERM and SIGKILL of a job that is stopped, if nothing else is said.
GRACE = 4
#: Seconds beyond a job's own time after which the cluster ends its pods: nobody watches them any more.
FORGOTTEN = 3600


class KubernetesRunner:
    """
    Runs a job as a Kubernetes Job: limited, without capabilities or new privileges, as user 1000.

    :param kubernetes_conn_id: connection of type ``kubernetes``; where the default one does not exist, the account of
        Airflow's own pod, or the kube config of its machine.
    :param namespace: of all objects; empty for the connection's.
    :param staging: ``s3://conn_id@bucket/prefix``, through which data goes in and out.
    :param limit_bytes: bytes that :meth:`collect` takes over at most, for each path.
    :param time_limit: seconds that a job may take, from its submit to its end; its access to its data ends soon after.
    :param start_timeout: seconds that a job may wait for a machine, its image and its volumes.
    :param adopt_after: seconds after which a Job that was created but never released is taken for one whose creator
        died; a younger one is waited for.
    :param pod: options of the pods, as :class:`~airflow_mlops.runners.kubernetes.manifests.PodOptions` has them.
    """

    kind = "kubernetes"

    def __init__(
        self,
        kubernetes_conn_id: str = KubernetesClusterHook.default_conn_name,
        namespace: str = "",
        staging: str = "",
        limit_bytes: int = 4 * 1024**3,
        time_limit: float = 24 * 3600.0,
        start_timeout: float = 1800.0,
        adopt_after: float = 30.0,
        pod: dict[str, Any] | None = None,
    ) -> None:
        self.hook = KubernetesClusterHook(kubernetes_conn_id, namespace)
        self.pod = PodOptions(**(pod or {}))
        self.staging = staging
        self.limit_bytes = limit_bytes
        self.time_limit = time_limit
        self.start_timeout = start_timeout
        self.adopt_after = adopt_after

    # Starting ----------------------------------------------------------------------------------

    def submit(self, job: ContainerJob) -> JobState:
        """Create and release the Job, or adopt the one of its name."""
        name = checked_name(job.name)
        manifest = job_manifest(job, self.pod, token_hex(4), round(self.time_limit) + FORGOTTEN)
        until = time.monotonic() + DELETION
        while time.monotonic() < until:
            found = self.hook.run(lambda cluster: look(cluster, name))
            if found.job is None:
                created = self.hook.run(lambda cluster: cluster.create("jobs", manifest))
                if created is not None:
                    return self._fill_and_start(job, created)
            elif found.job["metadata"].get("deletionTimestamp"):
                time.sleep(1)
            else:
                return self._adopt(job, found)
        raise EngineUnavailableError(
            f"Job {object_name(name)} has been going away for {DELETION} s. Cure: look at its finalizers."
        )

    def _adopt(self, job: ContainerJob, found: Seen) -> JobState:
        while found.job is not None:
            if owner_of(found.job) != job.name:
                raise RunnerError(
                    f"Kubernetes Job {object_name(job.name)} exists, but airflow-mlops did not make it for this job (no "
                    f"annotation {NAME}). Cure: kubectl delete job {object_name(job.name)}, when nobody needs it."
                )
            state = self._state(found)
            if not is_held(found.job):
                log.info("Adopted job %s, which is %s", job.name, state.status)
                return state
            created = datetime.fromisoformat(found.job["metadata"]["creationTimestamp"])
            age = (datetime.now(UTC) - created).total_seconds()
            if age >= self.adopt_after:
                log.info("Job %s was created but never released: releasing it", job.name)
                return self._fill_and_start(job, found.job)
            time.sleep(min(0.5, self.adopt_after - age))
            found = self.hook.run(lambda cluster: look(cluster, job.name))
        return JobState("gone")

    def _fill_and_start(self, job: ContainerJob, created: dict[str, Any]) -> JobState:
        metadata = created["metadata"]
        try:
            named = replace(job, name=_attempt(job.name, metadata))
            transfer = self._staging(job.name).stage(named, grace=GRACE + UPLOAD).environment[TRANSFER]
            files = secret_documents(job.secrets)
            self.hook.run(lambda cluster: release(cluster, job, metadata, transfer, files))
        except MLOpsError as error:
            if not error.retriable:
                self.cleanup(job.name)
            raise  # where it may help, the next try finds the Job and goes on
        return self.inspect(job.name)

    # Watching ----------------------------------------------------------------------------------

    def inspect(self, name: str) -> JobState:
        """State of the job's Job and pods."""
        return self._state(self.hook.run(lambda cluster: look(cluster, name)))

    def _state(self, seen: Seen) -> JobState:
        return job_state(seen, datetime.now(UTC), self.start_timeout)

    def logs(self, name: str, since: str = "") -> list[LogLine]:
        """Lines after the cursor, of the first machine."""
        return self.hook.run(lambda cluster: self._logs(cluster, name, since))

    async def _logs(self, cluster: ClusterSession, name: str, since: str) -> list[LogLine]:
        lines: deque[LogLine] = deque(maxlen=LOGS_LIMIT)
        await read(cluster, await look(cluster, name), lines.append, Delivered(since), follow=False)
        return list(lines)

    def wait(self, name: str, on_log: OnLog, since: str = "", deadline: float | None = None) -> JobState:
        """Block until the job is over, or the deadline."""
        return asyncio.run(self.wait_async(name, on_log, since, deadline))

    async def wait_async(
        self, name: str, on_log: OnLog, since: str = "", deadline: float | None = None
    ) -> JobState:
        """Wait until the job is over, or the deadline; an API server that is away is waited for.

        At the deadline with the server away, the state is ``running``, the last that was known.
        """
        delivered = Delivered(since)

        async def watch() -> JobState:
            async with self.hook.session() as cluster:
                return await self._watch(cluster, name, on_log, delivered, deadline)

        return await outlast(watch, deadline)

    async def _watch(
        self, cluster: ClusterSession, name: str, on_log: OnLog, delivered: Delivered, deadline: float | None
    ) -> JobState:
        follower: asyncio.Task[None] | None = None
        pause = FIRST_POLL
        try:
            while True:
                seen = await look(cluster, name)
                state = self._state(seen)
                left = deadline - time.time() if deadline is not None else POLL
                if state.status in ("exited", "gone") or left <= 0:
                    break
                if follower is None and logs_are_there(seen.first):
                    follower = asyncio.create_task(read(cluster, seen, on_log, delivered, follow=True))
                if follower is None:
                    await asyncio.sleep(min(pause, left))
                    pause = min(1.5 * pause, SLOWEST_POLL)
                    continue
                done, _ = await asyncio.wait({follower}, timeout=min(POLL, left))
                if done:
                    follower.result()
                    follower = None
                    await asyncio.sleep(AFTER_OUTPUT)
            if follower is not None and state.status == "exited":
                await asyncio.wait({follower}, timeout=LAST_OUTPUT)
        finally:
            if follower is not None:
                follower.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await follower
        if state.status == "exited":
            await read_rest(cluster, seen, on_log, delivered)
        return state

    def jobs(self) -> list[FoundJob]:
        """All Jobs of the namespace that any airflow-mlops made."""
        found = self.hook.run(lambda cluster: cluster.find("jobs", labelSelector=OURS))
        return [found_job(job) for job in found if owner_of(job)]

    # Ending ------------------------------------------------------------------------------------

    def stop(self, name: str, grace: int = GRACE) -> None:
        """SIGTERM, then SIGKILL after ``grace`` seconds and those that a checkpoint takes on its way."""
        self.hook.run(lambda cluster: end(cluster, name, grace + UPLOAD, grace + UPLOAD + 1))

    async def stop_async(self, name: str, grace: int = GRACE) -> None:
        """As :meth:`stop`, for the triggerer."""
        async with self.hook.session() as cluster:
            await end(cluster, name, grace + UPLOAD, grace + UPLOAD + 1)

    def discard(self, name: str, within: float) -> None:
        """End the job and remove it: nobody wants its checkpoint, so there is no time to send one."""
        self.hook.run(lambda cluster: end(cluster, name, GRACE, min(within, GRACE + 1)))
        self.cleanup(name)

    def collect(self, name: str, paths: tuple[str, ...], destination: Path) -> None:
        """Copy what the job handed over into ``destination``."""
        seen = self.hook.run(lambda cluster: look(cluster, name))
        if seen.job is None:
            return
        staging, attempt = self._staging(name), _attempt(name, seen.job["metadata"])
        if not staging.collect(attempt, paths, destination) and self._state(seen).exit_code == 0:
            raise staging.silent(name)

    def cleanup(self, name: str) -> None:
        """Remove the Job, and with it all that it owns, and what is staged of its data."""
        self.hook.run(lambda cluster: remove(cluster, name))
        if self.staging:
            self._all_staging.cleanup(name)

    @cached_property
    def _all_staging(self) -> Staging:
        return Staging(self.staging, self.limit_bytes, self.time_limit)

    def _staging(self, name: str) -> Staging:
        """Room for each attempt below the job's: a machine that was lost may still send what nobody waits for."""
        return self._all_staging.below(f"jobs/{name}")


def _attempt(name: str, metadata: dict[str, Any]) -> str:
    return f"{name}-{metadata['annotations'][TOKEN]}"
