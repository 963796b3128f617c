"""Jobs as containers of one Docker Engine, near or far: data goes in and out through the engine alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import EngineUnavailable, RunnerError
from airflow_mlops.hooks.docker import DockerEngineHook
from airflow_mlops.runners.archive import pack, unpack
from airflow_mlops.runners.base import ContainerJob, JobState, LogLine
from airflow_mlops.runners.layout import checked_name, checked_path, folders_of, input_tree
from airflow_mlops.runners.lines import LOGS_LIMIT, Delivered, FrameReader, hand_over

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_mlops.hooks.docker import EngineImage
    from airflow_mlops.hooks.docker_session import EngineSession
    from airflow_mlops.runners.base import OnLog

log = logging.getLogger(__name__)

#: In front of every label that the runner sets.
LABEL = "ai.airflow-mlops."
ROOT = "opt/ml"
#: The user that model code runs as, whatever the image says.
USER = 1000
#: Seconds between two looks at a job whose output says nothing; its end is noticed at once through the output.
POLL = 5.0
#: Seconds that the last output may take to arrive after the end.
LAST_OUTPUT = 5.0
LONGEST_PAUSE = 30.0


class DockerRunner:
    """
    Runs jobs as containers: limited, without capabilities or new privileges, as user 1000, by default without network.

    :param docker_conn_id: connection of type ``docker``; where there is none, ``DOCKER_HOST`` or the local engine.
    :param limit_bytes: bytes that :meth:`collect` takes over at most, for each path.
    :param adopt_after: seconds after which a container that was created but never started is taken for one whose
        creator died; a younger one is waited for.
    """

    kind = "docker"

    def __init__(
        self,
        docker_conn_id: str | None = "docker_default",
        limit_bytes: int = 4 * 1024**3,
        adopt_after: float = 30.0,
    ) -> None:
        self.hook = DockerEngineHook(docker_conn_id)
        self.limit_bytes = limit_bytes
        self.adopt_after = adopt_after

    # Starting ----------------------------------------------------------------------------------

    def submit(self, job: ContainerJob) -> JobState:
        """Create and start the job's container, or adopt the one of its name."""
        adopted = self.hook.inspect(checked_name(job.name))
        if adopted is None:
            image = self.hook.model_code_image(job.image)
            # A name is free again only some moments after its container was removed.
            for _ in range(50):
                if self.hook.create(job.name, container_config(job, image)):
                    return self._fill_and_start(job)
                adopted = self.hook.inspect(job.name)
                if adopted is not None:
                    break
                time.sleep(0.1)
            else:
                raise RunnerError(f"Container name {job.name} is taken, but no container has it.")
        return self._adopt(job, adopted)

    def _adopt(self, job: ContainerJob, info: dict[str, Any]) -> JobState:
        owner = (info["Config"].get("Labels") or {}).get(f"{LABEL}name")
        if owner != job.name:
            raise RunnerError(
                f"Container {job.name} exists, but airflow-mlops did not make it (no label {LABEL}name). Cure: "
                f"docker rm {job.name}, when nobody needs it."
            )
        while info["State"]["Status"] == "created":
            age = (datetime.now(UTC) - datetime.fromisoformat(info["Created"])).total_seconds()
            if age >= self.adopt_after:
                log.info("Job %s was created but never started: starting it", job.name)
                return self._fill_and_start(job)
            time.sleep(min(0.5, self.adopt_after - age))
            found = self.hook.inspect(job.name)
            if found is None:
                return JobState("gone")
            info = found
        state = job_state(info)
        log.info("Adopted job %s, which is %s", job.name, state.status)
        return state

    def _fill_and_start(self, job: ContainerJob) -> JobState:
        try:
            files = input_tree(job)
            self.hook.put(job.name, pack(files, folders_of(files), ROOT, USER))
            self.hook.start(job.name)
        except EngineUnavailable:
            raise  # the next try finds the container and goes on
        except RunnerError:
            self.hook.remove(job.name)
            raise
        return self.inspect(job.name)

    # Watching ----------------------------------------------------------------------------------

    def inspect(self, name: str) -> JobState:
        """State of the job's container."""
        return job_state(self.hook.inspect(name))

    def logs(self, name: str, since: str = "") -> list[LogLine]:
        """Lines after the cursor."""
        return asyncio.run(self._logs(name, since))

    async def _logs(self, name: str, since: str) -> list[LogLine]:
        lines: deque[LogLine] = deque(maxlen=LOGS_LIMIT)
        async with self.hook.session() as engine:
            await self._read(engine, name, lines.append, Delivered(since), follow=False)
        return list(lines)

    def wait(self, name: str, on_log: OnLog, since: str = "", deadline: float | None = None) -> JobState:
        """Block until the job is over, or the deadline."""
        return asyncio.run(self.wait_async(name, on_log, since, deadline))

    async def wait_async(
        self, name: str, on_log: OnLog, since: str = "", deadline: float | None = None
    ) -> JobState:
        """Wait until the job is over, or the deadline; an engine that is away is waited for.

        At the deadline with the engine away, the state is ``running``, the last that was known.
        """
        delivered = Delivered(since)
        pause = 1.0
        while True:
            seen = time.monotonic()
            try:
                async with self.hook.session() as engine:
                    return await self._watch(engine, name, on_log, delivered, deadline)
            except EngineUnavailable as error:
                if time.monotonic() - seen > LONGEST_PAUSE:
                    pause = 1.0
                left = deadline - time.time() if deadline is not None else pause
                if left <= 0:
                    return JobState("running")
                log.warning("%s Trying again in %.0f s.", error, min(pause, left))
                await asyncio.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _watch(
        self, engine: EngineSession, name: str, on_log: OnLog, delivered: Delivered, deadline: float | None
    ) -> JobState:
        follower: asyncio.Task[None] | None = None
        try:
            while True:
                state = job_state(await engine.inspect(name))
                left = deadline - time.time() if deadline is not None else POLL
                if state.status in ("exited", "gone") or left <= 0:
                    break
                if follower is None:
                    follower = asyncio.create_task(self._read(engine, name, on_log, delivered, follow=True))
                done, _ = await asyncio.wait({follower}, timeout=min(POLL, left))
                if done:
                    follower.result()
                    follower = None
                    # The output ends a moment before the state says so.
                    await asyncio.sleep(0.1)
            if follower is not None and state.status == "exited":
                await asyncio.wait({follower}, timeout=LAST_OUTPUT)
        finally:
            if follower is not None:
                follower.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await follower
        if state.status == "exited":
            await self._read(engine, name, on_log, delivered, follow=False)
        return state

    async def _read(
        self, engine: EngineSession, name: str, on_log: OnLog, delivered: Delivered, *, follow: bool
    ) -> None:
        reader = FrameReader(delivered)
        async for stream, frame in engine.frames(name, delivered.begin, follow=follow):
            for line in reader.feed(stream, frame):
                await hand_over(line, on_log)
                delivered.add(line)
        # While following, an unfinished line at the end may be a broken connection's: the last reading tells.
        if not follow:
            for line in reader.flush():
                await hand_over(line, on_log)
                delivered.add(line)

    # Ending ------------------------------------------------------------------------------------

    def stop(self, name: str, grace: int = 4) -> None:
        """SIGTERM, then SIGKILL after ``grace`` seconds."""
        self.hook.stop(name, grace)

    async def stop_async(self, name: str, grace: int = 4) -> None:
        """As :meth:`stop`, for the triggerer."""
        async with self.hook.session() as engine:
            await engine.stop(name, grace)

    def collect(self, name: str, paths: tuple[str, ...], destination: Path) -> None:
        """Copy what the job wrote into ``destination``."""
        for path in map(checked_path, paths):
            stream = self.hook.get(name, f"/{ROOT}/{path}")
            if stream is not None:
                unpack(stream, path, destination, self.limit_bytes, name)

    def cleanup(self, name: str) -> None:
        """Remove the container and its volumes."""
        self.hook.remove(name)


def container_config(job: ContainerJob, image: EngineImage) -> dict[str, Any]:
    """What the engine is told to create."""
    limits = job.resources
    labels = {
        **job.labels,
        "name": job.name,
        "command": job.command,
        "image": job.image,
        "image-digest": image.digest,
    }
    return {
        "Image": image.id,
        "Cmd": [job.command],
        "User": f"{USER}:{USER}",
        "Env": ["PYTHONUNBUFFERED=1"],
        # The contract's, whatever the image says.
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {f"{LABEL}{key}": value for key, value in labels.items()},
        "HostConfig": {
            "NetworkMode": job.network,
            "NanoCpus": round((limits.cpus or 0) * 1e9),
            "Memory": limits.memory or 0,
            "MemorySwap": limits.memory or 0,
            "ShmSize": limits.shm,
            "PidsLimit": limits.pids,
            "Init": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            # A driver whose lines can be read again, and that cannot fill the engine's disk.
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "64m", "max-file": "2"}},
        },
    }


def job_state(info: dict[str, Any] | None) -> JobState:
    """What the engine's inspection says of a job."""
    if info is None:
        return JobState("gone")
    state = info["State"]
    digest = (info["Config"].get("Labels") or {}).get(f"{LABEL}image-digest") or info["Image"]
    match state["Status"]:
        case "created" if not state["ExitCode"]:
            return JobState("created", image_digest=digest)
        case "running" | "paused" | "restarting":
            return JobState("running", started_at=state["StartedAt"], image_digest=digest)
        case "removing":
            return JobState("gone", image_digest=digest)
    started = state["StartedAt"]
    return JobState(
        status="exited",
        exit_code=state["ExitCode"],
        out_of_memory=bool(state["OOMKilled"]),
        # The engine writes year 1 for never.
        started_at=None if started.startswith("0001") else started,
        finished_at=state["FinishedAt"],
        error=state["Error"],
        image_digest=digest,
    )
