"""Runs one job of the process runner and outlives the worker that started it; a script of its own.

``python -I supervisor.py <job folder>``, with the open file that holds the flock of the folder inherited: as long as
this process lives, the job is alive. Only the standard library is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_mlops.primitives.texts.documents import json_text

JOB, LOG, STARTED, EXITED, LOCK = "job.json", "log", "started.json", "exited.json", "lock"
PR_SET_PDEATHSIG = 1


def main(folder: Path) -> int:
    """Start the job in a session of its own; return as soon as it runs, or could not."""
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        os.read(ready, 1)
        return 0
    os.close(ready)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    supervise(folder, tell)
    return 0


def supervise(folder: Path, tell: int) -> None:
    """Run the job to its end and write down how it ended."""
    job = json.loads((folder / JOB).read_text())
    try:
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                job["command"],
                cwd=job["directory"],
                env=job["environment"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  this process has one thread
            )
    except OSError as error:
        write_json(folder / EXITED, {"exit_code": 127, "finished_at": now(), "error": str(error)})
        return

    def forward(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    # Handlers, not SIG_IGN: the job would inherit that.
    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    signal.signal(signal.SIGHUP, lambda *_: None)
    write_json(folder / STARTED, {"pid": process.pid, "identity": identity(process.pid), "started_at": now()})
    os.close(tell)
    # What the job left running dies with it. Its id cannot have been given away before it is reaped.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in elsewhere(job["environment"].get("MLOPS_ROOT", "")):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    code = process.wait()
    write_json(
        folder / EXITED, {"exit_code": code if code >= 0 else 128 - code, "finished_at": now(), "error": ""}
    )


def elsewhere(root: str) -> list[int]:
    """Processes of the job in whatever session: its folder stands in their environment."""
    mark, found = f"MLOPS_ROOT={root}".encode(), []
    for environment in Path("/proc").glob("[0-9]*/environ") if root else ():
        with contextlib.suppress(OSError):
            if mark in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found


def identity(pid: int) -> str:
    """What tells this process from a later one with its number; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return ""


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a file that is never seen half."""
    scratch = path.with_suffix(".tmp")
    with scratch.open("w") as file:
        file.write(json_text(value))
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def now() -> str:
    """This moment, ISO 8601 UTC."""
    return datetime.now(UTC).isoformat()


def _die_with_parent() -> None:
    # Linux only: without a supervisor nobody would know how the job ends.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
