"""Jobs as containers of one Docker Engine, near or far: data goes in and out through the engine alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import EngineUnavailableError, RunnerError
from airflow_mlops.hooks.docker.hook import DockerEngineHook
from airflow_mlops.runners.docker.config import DISK, LABEL, USER, container_config
from airflow_mlops.runners.docker.leases import GpuLeases
from airflow_mlops.runners.docker.stage import stage
from airflow_mlops.runners.files.archive import pack, unpack
from airflow_mlops.runners.files.disk import DiskWatch, judged
from airflow_mlops.runners.files.layout import SHARED, checked_name, checked_path, folders_of, input_tree
from airflow_mlops.runners.files.secrets import secret_files
from airflow_mlops.runners.lines import LOGS_LIMIT, Delivered, FrameReader, hand_over_new
from airflow_mlops.runners.polling import outlast
from airflow_mlops.runners.protocol import ContainerJob, FoundJob, JobState, LogLine

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_mlops.hooks.docker.session import EngineSession
    from airflow_mlops.runners.protocol import OnLog

log = logging.getLogger(__name__)

ROOT = "opt/ml"
#: Seconds between two looks at a job whose output says nothing; its end is noticed at once through the output.
POLL = 5.0
#: Pieces of output that are looked at first when a job is over.
NEWEST = 500
#: Seconds that the last output may take to arrive after the end.
LAST_OUTPUT = 5.0
#: Seconds in which a container ends whose output has ended.
LAST_MOMENT = 0.2


class DockerRunner:
    """
    Runs jobs as containers: limited, without capabilities or new privileges, as user 1000, by default without network.

    :param docker_conn_id: connection of type ``docker``; empty for ``DOCKER_HOST`` or the local engine, and so is
        ``docker_default`` where it does not exist.
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
        self.leases = GpuLeases(self.hook, adopt_after)
        #: Jobs on their way to the engine, and whether somebody removed them meanwhile.
        self._removed: dict[str, bool] = {}

    # Starting ----------------------------------------------------------------------------------

    def submit(self, job: ContainerJob) -> JobState:
        """Create and start the job's container, or adopt the one of its name.

        A ``cleanup`` in the middle of it, as of a signal handler, ends it: no container is started after that.
        """
        self._removed[job.name] = False
        try:
            return self._submit(job)
        finally:
            self._removed.pop(job.name, None)

    def _submit(self, job: ContainerJob) -> JobState:
        adopted = self.hook.inspect(checked_name(job.name))
        if adopted is None:
            image = self.hook.model_code_image(job.image)
            config = container_config(job, image, self.leases.take(job, image))
            # A name is free again only some moments after its container was removed.
            for _ in range(50):
                if self._create(job, config):
                    return self._fill_and_start(job)
                adopted = self.hook.inspect(job.name)
                if adopted is not None:
                    break
                time.sleep(0.1)
            else:
                raise RunnerError(f"Container name {job.name} is taken, but no container has it.")
        return self._adopt(job, adopted)

    def _check_wanted(self, name: str) -> None:
        if self._removed.get(name):
            raise RunnerError(f"Job {name} was removed while it was started, and is not started.")

    def _create(self, job: ContainerJob, config: dict[str, Any]) -> bool:
        try:
            self._check_wanted(job.name)
            return bool(self.hook.create(job.name, config))
        except EngineUnavailableError:
            raise  # the container may be there, and the leases are the next try's
        except RunnerError:
            self.leases.release(job.name)
            raise

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
            self._check_wanted(job.name)
            files = [*input_tree(job), *secret_files(job)]
            # What is shared is mounted, and cannot be written.
            folders = [folder for folder in folders_of(files) if not (job.shared and folder == SHARED)]
            self.hook.put(job.name, pack(files, folders, ROOT, USER))
            if job.resources.gpus:
                self.leases.check(job.name)
            self._check_wanted(job.name)
            self.hook.start(job.name)
        except EngineUnavailableError:
            raise  # the next try finds the container and goes on
        except RunnerError as error:
            # Somebody removed it, as the late end of an earlier try does: nothing is wrong with the job.
            error.retriable = error.retriable or self.hook.inspect(job.name) is None
            self.cleanup(job.name)
            raise
        return self.inspect(job.name)

    def gpus_free(self, name: str, gpus: Any, image: str) -> bool:
        """Whether a submit would not have to wait for GPUs: they are free, or the job is there already.

        :param gpus: as ``Resources.gpus``.
        :param image: the job's image.
        """
        return self.hook.inspect(name) is not None or self.leases.free(name, gpus, self.hook.image(image).id)

    def stage(self, job: ContainerJob) -> None:
        """Keep the job's inputs in a volume, for the jobs that name it as ``shared``."""
        stage(self.hook, replace(job, name=checked_name(job.name)), ROOT)

    # Watching ----------------------------------------------------------------------------------

    def inspect(self, name: str) -> JobState:
        """State of the job's container."""
        info = self.hook.inspect(name)
        return judged(job_state(info), _disk_limit(info), lambda: self.hook.written(name))

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

        async def watch() -> JobState:
            async with self.hook.session() as engine:
                return await self._watch(engine, name, on_log, delivered, deadline)

        return await outlast(watch, deadline)

    async def _watch(
        self, engine: EngineSession, name: str, on_log: OnLog, delivered: Delivered, deadline: float | None
    ) -> JobState:
        follower: asyncio.Task[None] | None = None
        disk = DiskWatch(lambda: asyncio.to_thread(self.hook.written, name))
        try:
            while True:
                info = await engine.inspect(name)
                state = job_state(info)
                left = deadline - time.time() if deadline is not None else POLL
                if state.status in ("exited", "gone") or left <= 0:
                    break
                if state.status == "running" and await disk.is_over(_disk_limit(info)):
                    log.warning("Stopping job %s: it has written more than it may", name)
                    await engine.stop(name, 0)
                    continue
                if follower is None:
                    follower = asyncio.create_task(self._read(engine, name, on_log, delivered, follow=True))
                done, _ = await asyncio.wait({follower}, timeout=min(POLL, left))
                if done:
                    follower.result()
                    follower = None
                    # The output ends a moment before the container.
                    await engine.wait(name, LAST_MOMENT)
            if follower is not None and state.status == "exited":
                await asyncio.wait({follower}, timeout=LAST_OUTPUT)
        finally:
            if follower is not None:
                follower.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await follower
        if state.status == "exited":
            await self._read_rest(engine, name, on_log, delivered)
        return state

    async def _read(
        self, engine: EngineSession, name: str, on_log: OnLog, delivered: Delivered, *, follow: bool
    ) -> None:
        reader = FrameReader(delivered, whole=True)
        async for frames in engine.frames(name, delivered.begin, follow=follow):
            await hand_over_new(reader.read(frames), on_log, delivered)
        # While following, an unfinished line at the end may be a broken connection's: the last reading tells.
        if not follow:
            await hand_over_new(reader.flush(), on_log, delivered)

    async def _read_rest(self, engine: EngineSession, name: str, on_log: OnLog, delivered: Delivered) -> None:
        """Hand over what is left of the output of a job that is over.

        Most often that is nothing, and the newest lines tell: to find a moment, the engine goes through all of them.
        """
        if delivered.begin:
            newest = [frame async for some in engine.frames(name, newest=NEWEST) for frame in some]
            if frames := delivered.reached_by(newest, NEWEST):
                reader = FrameReader(delivered, whole=True)
                await hand_over_new(reader.read(frames), on_log, delivered)
                await hand_over_new(reader.flush(), on_log, delivered)
                return
        await self._read(engine, name, on_log, delivered, follow=False)

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
                # The engine neither stops nor removes a container while somebody reads of it, however it ends.
                with contextlib.closing(stream):
                    unpack(stream, path, destination, self.limit_bytes, name)

    def jobs(self) -> list[FoundJob]:
        """Jobs of this engine: their containers, and leases of GPUs without one."""
        found: dict[str, FoundJob] = {}
        for container in self.hook.containers([f"{LABEL}name"]):
            labels = {
                key.removeprefix(LABEL): value
                for key, value in container["Labels"].items()
                if key.startswith(LABEL)
            }
            created = datetime.fromtimestamp(container["Created"], UTC)
            known = found.get(labels["name"])
            # The youngest counts: a new job may have taken over an old lease.
            if known is None or known.created_at < created:
                found[labels["name"]] = FoundJob(labels["name"], labels, created)
        return sorted(found.values(), key=lambda job: job.name)

    def cleanup(self, name: str) -> None:
        """Remove the container and its volumes, then give its GPUs back."""
        if name in self._removed:
            self._removed[name] = True
        self.hook.remove(name)
        self.leases.release(name)


#: Labels by which an image says where it comes from.
IMAGE_LABEL = "org.opencontainers.image."


def _disk_limit(info: dict[str, Any] | None) -> int | None:
    given = ((info or {}).get("Config", {}).get("Labels") or {}).get(DISK, "")
    return int(given) if given.isdecimal() else None


def job_state(info: dict[str, Any] | None) -> JobState:
    """What the engine's inspection says of a job."""
    if info is None:
        return JobState("gone")
    state = info["State"]
    labels = info["Config"].get("Labels") or {}
    digest = labels.get(f"{LABEL}image-digest") or info["Image"]
    of_image = {key: value for key, value in labels.items() if key.startswith(IMAGE_LABEL)}
    match state["Status"]:
        case "created" if not state["ExitCode"]:
            return JobState("created", image_digest=digest)
        case "running" | "paused" | "restarting":
            return JobState(
                "running", started_at=state["StartedAt"], image_digest=digest, image_labels=of_image
            )
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
        image_labels=of_image,
    )
