"""Jobs as processes of this machine: for development, and where no container engine is."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import EngineUnavailableError, RunnerError
from airflow_mlops.runners.files.archive import copy
from airflow_mlops.runners.files.disk import DiskWatch, allowed, folder_size, judged
from airflow_mlops.runners.files.layout import (
    SHARED,
    checked_name,
    checked_path,
    folders_of,
    input_tree,
    shared_files,
)
from airflow_mlops.runners.files.secrets import SECRETS, secret_files
from airflow_mlops.runners.lines import LOGS_LIMIT, FileReader, hand_over
from airflow_mlops.runners.process.supervisor import EXITED, JOB, LOCK, LOG, STARTED, identity, write_json
from airflow_mlops.runners.protocol import ContainerJob, FoundJob, JobState, LogLine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_mlops.runners.protocol import OnLog

#: Seconds that the removal of a job's folder may take.
REMOVAL = 5.0
#: Seconds between two looks at a job.
POLL = 0.3
#: Lines after which the event loop's other tasks have a turn.
TURN = 200
#: What a job's environment takes over from the worker's; never a secret of Airflow.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
#: Seconds that another worker, which starts the same job, is waited for.
START_WAIT = 300.0
TREE, SCRATCH = "ml", "tmp"


class ProcessRunner:
    """
    Runs jobs as processes of the worker's machine and user, each in ``<root>/<name>/``.

    A job outlives the worker, not the machine. It is not isolated: the network, the worker's files and all of the
    machine's memory are within its reach, so run only code that you trust. ``Resources.memory``, ``shm`` and
    ``pids`` are not enforced (a limit of address space would stop numpy and pyarrow, which reserve far more than
    they use); ``disk`` is what its folder may hold, and what it writes elsewhere is not seen; ``cpus`` becomes the number of threads that numerical libraries are asked to use. What it prints is kept
    whole in its folder until it is cleaned up.

    A job whose supervisor died without a word (the machine was restarted) is ``gone``; a new submit starts it anew.

    :param root: folder for job folders, on a local file system.
    :param limit_bytes: bytes that :meth:`collect` takes over at most, for each path.
    """

    kind = "process"

    def __init__(self, root: str, limit_bytes: int = 4 * 1024**3) -> None:
        self.root = Path(root)
        self.limit_bytes = limit_bytes

    # Starting ----------------------------------------------------------------------------------

    def submit(self, job: ContainerJob) -> JobState:
        """Start the job, or adopt the one of its name.

        Who holds the lock of the folder fills it and starts the job; the supervisor inherits the lock.
        """
        folder, deadline = self._folder(job.name), time.monotonic() + START_WAIT
        while True:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(folder) as lock:
                if lock is not None:
                    if not (folder / EXITED).exists():
                        self._start(job, folder, lock)
                    return self.inspect(job.name)
            state = self.inspect(job.name)
            if state.status in ("running", "exited"):
                return state
            if time.monotonic() > deadline:
                raise EngineUnavailableError(
                    f"Job {job.name}: another worker has been starting it in {folder} for {START_WAIT:.0f} s. Cure: "
                    f"`fuser {folder / LOCK}` says which process that is; let it go on, or end it. A retry adopts the job."
                )
            time.sleep(0.1)

    def _start(self, job: ContainerJob, folder: Path, lock: int) -> None:
        try:
            command = command_of(job)
            files = [*input_tree(job), *secret_files(job, 0o600)]
            _end(folder)
            _empty(folder)
            tree = folder / TREE
            for path in ("", *folders_of(files)):
                (tree / path).mkdir(0o700 if path == SECRETS else 0o755, parents=True)
            if job.shared:
                (tree / SHARED).rmdir()
                (tree / SHARED).symlink_to(self._folder(job.shared) / TREE / SHARED)
            for file in files:
                if isinstance(file.content, bytes):
                    write_private(tree / file.path, file.content, file.mode)
                else:
                    shutil.copyfile(file.content, tree / file.path)
            (folder / SCRATCH).mkdir()
            content = {
                "command": command,
                "directory": job.directory or str(tree),
                "environment": environment(job, folder),
            }
            write_json(folder / JOB, {**content, "labels": dict(job.labels), "disk": allowed(job)})
            supervisor = Path(__file__).with_name("supervisor.py")
            subprocess.run(
                [sys.executable, "-I", str(supervisor), str(folder)],
                pass_fds=(lock,),
                stdin=subprocess.DEVNULL,
                env={key: os.environ[key] for key in ENVIRONMENT if key in os.environ},
                check=True,
                timeout=60,
            )
        except (OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise RunnerError(f"Job {job.name} could not be started in {folder}: {error}.") from error
        except RunnerError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def stage(self, job: ContainerJob) -> None:
        """Keep the job's inputs in a folder of its name, for the jobs that name it as ``shared``."""
        folder = self._folder(job.name) / TREE / SHARED
        if folder.is_dir():
            return
        half = folder.with_name(f".{folder.name}.{os.getpid()}")
        half.mkdir(parents=True, exist_ok=True)
        for file in shared_files(job):
            target = half / PurePosixPath(file.path).relative_to(SHARED)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.content, target)
            target.chmod(0o444)
        # Another process may have been quicker: what it put there says the same.
        with contextlib.suppress(OSError):
            half.rename(folder)

    def _folder(self, name: str) -> Path:
        return self.root.absolute() / checked_name(name)

    # Watching ----------------------------------------------------------------------------------

    def inspect(self, name: str) -> JobState:
        """State of the job, out of its folder."""
        folder = self._folder(name)
        if not folder.is_dir():
            return JobState("gone")
        # Who writes the job's file holds the lock: a free one afterwards says that nobody will start it.
        prepared = (folder / JOB).exists()
        alive = _is_locked(folder)
        # Read after the lock was looked at: what ends in between has written how.
        started, exited = _read_json(folder / STARTED), _read_json(folder / EXITED)
        started_at = started.get("started_at")
        if exited:
            state = JobState(
                "exited",
                exited["exit_code"],
                started_at=started_at,
                finished_at=exited["finished_at"],
                error=exited["error"],
            )
            return judged(state, _disk_limit(folder), lambda: folder_size(folder))
        if (started or prepared) and not alive:
            return JobState(
                "gone", started_at=started_at, error="its supervisor died: was the machine restarted?"
            )
        return JobState("running" if started else "created", started_at=started_at)

    def logs(self, name: str, since: str = "") -> list[LogLine]:
        """Lines after the cursor."""
        reader = FileReader(self._folder(name) / LOG, since)
        lines = deque(reader.read(), maxlen=LOGS_LIMIT)
        lines.extend(reader.flush())
        return list(lines)

    def wait(self, name: str, on_log: OnLog, since: str = "", deadline: float | None = None) -> JobState:
        """Block until the job is over, or the deadline."""
        return asyncio.run(self.wait_async(name, on_log, since, deadline))

    async def wait_async(
        self, name: str, on_log: OnLog, since: str = "", deadline: float | None = None
    ) -> JobState:
        """Wait until the job is over, or the deadline, looking several times a second."""
        folder = self._folder(name)
        reader = FileReader(folder / LOG, since)
        disk = DiskWatch(lambda: asyncio.to_thread(folder_size, folder))
        while True:
            state = self.inspect(name)
            if state.status == "running" and await disk.is_over(_disk_limit(folder)):
                _signal(folder, signal.SIGKILL)
                continue
            for number, line in enumerate(reader.read()):
                await hand_over(line, on_log)
                if number % TURN == TURN - 1:
                    await asyncio.sleep(0)
            left = deadline - time.time() if deadline is not None else POLL
            if state.status in ("exited", "gone"):
                for line in reader.flush():
                    await hand_over(line, on_log)
                return state
            if left <= 0:
                return state
            await asyncio.sleep(min(POLL, left))

    # Ending ------------------------------------------------------------------------------------

    def stop(self, name: str, grace: int = 4) -> None:
        """SIGTERM to all processes of the job, then SIGKILL after ``grace`` seconds."""
        folder = self._folder(name)
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5)):
            if self.inspect(name).status != "running" or not _signal(folder, number):
                return
            limit = time.monotonic() + seconds
            while self.inspect(name).status == "running" and time.monotonic() < limit:
                time.sleep(0.05)

    async def stop_async(self, name: str, grace: int = 4) -> None:
        """As :meth:`stop`, for the triggerer."""
        await asyncio.to_thread(self.stop, name, grace)

    def collect(self, name: str, paths: tuple[str, ...], destination: Path) -> None:
        """Copy what the job wrote into ``destination``."""
        for path in map(checked_path, paths):
            copy(self._folder(name) / TREE, path, destination, self.limit_bytes, name)

    def jobs(self) -> list[FoundJob]:
        """Jobs of this machine; a folder that is only being filled is none yet."""
        found = []
        for file in sorted(self.root.glob(f"*/{JOB}")):
            with contextlib.suppress(FileNotFoundError):  # somebody is removing it
                created = datetime.fromtimestamp(file.stat().st_mtime, UTC)
                found.append(FoundJob(file.parent.name, _read_json(file).get("labels") or {}, created))
        return found

    def cleanup(self, name: str) -> None:
        """Remove the job's folder, ending the job first."""
        folder = self._folder(name)
        self.stop(name, grace=0)
        _end(folder)
        # The supervisor may be writing its last word, which makes a folder that is being emptied not empty.
        until = time.monotonic() + REMOVAL
        while folder.exists() and time.monotonic() < until:
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                time.sleep(0.05)


def write_private(path: Path, content: bytes, mode: int) -> None:
    """Write a file that nobody could read before it had its permissions."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def command_of(job: ContainerJob) -> list[str]:
    """Command line of a job; ``python`` in front is the worker's own interpreter.

    :raises RunnerError: when there is none, or its folder is missing.
    """
    if not job.entrypoint:
        raise RunnerError(
            f"Job {job.name} has no entrypoint. Cure: say code.process.command, as [python, model_code.py]."
        )
    if job.directory and not Path(job.directory).is_dir():
        raise RunnerError(
            f"Job {job.name} should run in {job.directory}, which is no folder. Cure: correct code.process.directory."
        )
    program, *arguments = job.entrypoint
    return [sys.executable if program == "python" else program, *arguments, job.command]


def environment(job: ContainerJob, folder: Path) -> dict[str, str]:
    """What a job's process finds in its environment: nothing of Airflow's."""
    given = {key: os.environ[key] for key in ENVIRONMENT if key in os.environ}
    given |= {
        "MLOPS_ROOT": str(folder / TREE),
        "TMPDIR": str(folder / SCRATCH),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if job.resources.cpus:
        threads = str(max(1, math.ceil(job.resources.cpus)))
        given |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    return given


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int | None]:
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock
    finally:
        os.close(lock)


def _is_locked(folder: Path) -> bool:
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _disk_limit(folder: Path) -> int | None:
    given = _read_json(folder / JOB).get("disk")
    return given if isinstance(given, int) else None


def _signal(folder: Path, number: int) -> bool:
    started = _read_json(folder / STARTED)
    pid = started.get("pid")
    # The number may belong to somebody else by now.
    if not pid or identity(pid) != started["identity"]:
        return False
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _end(folder: Path) -> None:
    # What is left of a job whose supervisor was killed.
    _signal(folder, signal.SIGKILL)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
