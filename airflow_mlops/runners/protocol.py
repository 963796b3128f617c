"""What a job is, and what every runner does with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

JobStatus = Literal["created", "running", "exited", "gone"]
#: Why a job ended without its own doing: it lost its machine; could not be started; no machine took it in time; it
#: used more than a limit other than memory, wrote more than it may, or used more time. Empty when its exit code says all.
Cause = Literal["", "preempted", "not_started", "not_scheduled", "over_limit", "over_disk", "over_time"]


@dataclass(frozen=True)
class Resources:
    """Limits of one job.

    :param cpus: CPU cores, fractions allowed; ``None`` for no limit.
    :param memory: bytes of memory, swap included; ``None`` for no limit.
    :param shm: bytes of ``/dev/shm``.
    :param pids: most processes and threads.
    :param disk: bytes that the job may write to its machine's disk, beside its inputs; ``None`` for no limit.
    :param gpus: a number of GPUs, ``"all"``, a list of their UUIDs, or ``{"type": …, "count": …}``; 0 for none.
    """

    cpus: float | None = None
    memory: int | None = None
    shm: int = 64 * 1024**2
    pids: int = 512
    disk: int | None = None
    gpus: int | str | tuple[str, ...] | Mapping[str, Any] = 0


@dataclass(frozen=True)
class Distribution:
    """How many processes train together.

    :param nodes: machines, each with a copy of the job.
    :param processes_per_node: processes of the launcher on each; ``"gpu"`` for one a GPU.
    """

    nodes: int = 1
    processes_per_node: int | str = 1


@dataclass(frozen=True)
class ContainerJob:
    """One command of one model-code image, with everything that it needs.

    :param name: deterministic and unique; a second submit of the same name adopts the first job.
    :param command: the word given to the entrypoint: ``describe``, ``train``, ...
    :param image: image reference, best with digest (Docker runner).
    :param entrypoint: command line in front of ``command`` (process runner).
    :param directory: working directory of ``entrypoint`` (process runner).
    :param config: the content of ``input/config/mlops.json``.
    :param inputs: path below ``/opt/ml`` → local file or folder that is copied there before the start.
    :param labels: what the job belongs to; keys without prefix, the runner adds its own.
    :param network: Docker network; ``none`` unless the model code must reach something.
    :param secrets: name → Airflow connection; the runner hands each over as ``input/secrets/<name>.json``, readable
        by the model code alone, and never in its environment, labels or command.
    :param distribution: processes that train together.
    :param shared: name under which a runner was given ``input/data`` (:class:`StagingRunner`); then ``inputs`` has
        nothing there.
    """

    name: str
    command: str
    image: str = ""
    entrypoint: tuple[str, ...] = ()
    directory: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    network: str = "none"
    secrets: Mapping[str, str] = field(default_factory=dict)
    distribution: Distribution = field(default_factory=Distribution)
    shared: str = ""


@dataclass(frozen=True)
class JobState:
    """What is known of a job at one moment.

    :param status: ``gone`` when neither the job nor its result exists any more.
    :param exit_code: set once exited, unless ``cause`` says why there is none.
    :param out_of_memory: the kernel killed a process of the job for memory.
    :param started_at: ISO 8601 UTC; ``None`` when never started.
    :param finished_at: ISO 8601 UTC.
    :param error: the engine's own words, when it could not start the job.
    :param image_digest: the digest that was run (Docker), for the lineage.
    :param cause: the runner's judgement where there may be no exit code; ``error`` has the words and the cure.
    :param node: where the job is, when its runner chose among several; said by ``submit``.
    :param image_labels: the image's own labels ``org.opencontainers.image.*``, where the runner can see them: the
        commit that it was built from, its base.
    """

    status: JobStatus
    exit_code: int | None = None
    out_of_memory: bool = False
    started_at: str | None = None
    finished_at: str | None = None
    error: str = ""
    image_digest: str = ""
    cause: Cause = ""
    node: str = ""
    image_labels: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON values."""
        return asdict(self)


class LogLine(NamedTuple):
    """One line of a job's output, without its newline.

    :param at: cursor: RFC 3339 timestamp of the engine with nanoseconds, or a byte offset as text.
    """

    at: str
    text: str


OnLog = Callable[[LogLine], Awaitable[None] | None]


@dataclass(frozen=True)
class FoundJob:
    """A job as :meth:`ListsJobs.jobs` finds it.

    :param labels: what it was given as :attr:`ContainerJob.labels`.
    :param created_at: with time zone, by the clock of its place.
    """

    name: str
    labels: Mapping[str, str]
    created_at: datetime


@runtime_checkable
class ListsJobs(Protocol):
    """What a runner can do besides that can say which jobs there are."""

    def jobs(self) -> list[FoundJob]:
        """All jobs that any airflow-mlops started in this place, in whatever state, or that left something there."""
        ...


class Runner(Protocol):
    """Starts, watches, stops and collects jobs in one kind of place.

    Every method is idempotent and addresses the job by its deterministic name. Errors are
    :class:`~airflow_mlops.exceptions.RunnerError` and its children.
    """

    kind: str

    def submit(self, job: ContainerJob) -> JobState:
        """Start the job, or adopt the one of this name that exists already (running or exited)."""
        ...

    def inspect(self, name: str) -> JobState:
        """State of the job; ``gone`` when there is none."""
        ...

    def logs(self, name: str, since: str = "") -> list[LogLine]:
        """Lines after the cursor; at most the last 10,000, each cut at 8 KiB."""
        ...

    def wait(self, name: str, on_log: OnLog, since: str = "", deadline: float | None = None) -> JobState:
        """Block until the job has exited or is gone, handing every line over as it comes.

        :param deadline: Unix time at which waiting ends; the job's state at that time is returned then
            (``running``), and nothing is stopped.
        """
        ...

    async def wait_async(
        self, name: str, on_log: OnLog, since: str = "", deadline: float | None = None
    ) -> JobState:
        """As :meth:`wait`, for the triggerer. Survives an engine that is away for a while."""
        ...

    def stop(self, name: str, grace: int = 4) -> None:
        """SIGTERM, then SIGKILL after ``grace`` seconds. No error when it is gone."""
        ...

    async def stop_async(self, name: str, grace: int = 4) -> None:
        """As :meth:`stop`, for the triggerer."""
        ...

    def collect(self, name: str, paths: tuple[str, ...], destination: Path) -> None:
        """Copy files and folders below ``/opt/ml`` into ``destination`` (``output`` → ``destination/output``).

        A path that the job did not write is left out. Links, devices, absolute names and names with
        ``..`` are refused (:class:`~airflow_mlops.exceptions.ContractError`), and so is more than the
        runner's byte limit.
        """
        ...

    def cleanup(self, name: str) -> None:
        """Remove everything that the job left behind. No error when it is gone."""
        ...


@runtime_checkable
class DiscardsJobs(Protocol):
    """A runner of a place that may take longer to end a job than a task has that somebody ends."""

    def discard(self, name: str, within: float) -> None:
        """End the job and remove it, its checkpoint too. No error when it is gone.

        :param within: seconds that its end is waited for; after that its place ends it by itself.
        """
        ...


@runtime_checkable
class GpuRunner(Protocol):
    """A runner whose ``submit`` books GPUs itself, and refuses while others hold them."""

    def gpus_free(self, name: str, gpus: Any, image: str) -> bool:
        """Whether a submit would not have to wait for GPUs: they are free, or the job is there already.

        :param gpus: as ``Resources.gpus``.
        :param image: the job's image.
        :raises GpusMissingError: when they can never be had here.
        """
        ...


@runtime_checkable
class StagingRunner(Protocol):
    """A runner that can keep inputs for several jobs, which then need not be given to each."""

    def stage(self, job: ContainerJob) -> None:
        """Keep the job's inputs below ``input/data`` under its name, unless they are there; it is never started.

        Other jobs name it as ``shared``. ``cleanup`` of its name removes them.
        """
        ...
