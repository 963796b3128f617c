"""Runs a job's command between bringing its data and sending its results, and passes on signals and exit code."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from airflow_mlops.contract.container.channels import Channels
from airflow_mlops.contract.protocol.distribution import program_of_this_process
from airflow_mlops.contract.protocol.failures import JobError, StopRequested
from airflow_mlops.contract.protocol.paths import TRANSFER_VARIABLE, Paths
from airflow_mlops.contract.protocol.results import write_failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

#: Part of the time between SIGTERM and SIGKILL that the command has; the rest is for sending its checkpoint.
_COMMANDS_SHARE = 0.5


class Carrier(Protocol):
    """Brings a job's data and takes its results."""

    @property
    def grace(self) -> float: ...

    def fetch(self) -> None: ...

    def deliver(self, exit_code: int, problem: str = "") -> None: ...


def is_needed(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this container's data has yet to be brought."""
    return bool(environment.get(TRANSFER_VARIABLE)) or Channels.are_at(Paths.from_environment().root)


def replace_this_process() -> NoReturn:
    """Become the supervisor of a new process of this program: one that is killed can still hand over what it wrote."""
    package = str(Path(__file__).parents[3])
    code = f"import sys; sys.path.append({package!r}); from airflow_mlops.contract.container.supervision import run; sys.exit(run(sys.argv[1:]))"
    sys.stdout.flush()
    sys.stderr.flush()
    become([sys.executable, "-c", code, sys.executable, *program_of_this_process()])


def run(command: Sequence[str]) -> int:
    """Run a command line with its data around it; where nothing is to be brought, become it.

    :returns: the command's exit code; 75 when the store does not answer.
    """
    root = Paths.from_environment().root
    if not is_needed():
        become(command)
    supervisor = _Supervisor(command)
    carrier: Carrier | None = None
    try:
        carrier = _carrier(root)
        carrier.fetch()
        exit_code, problem = supervisor.wait(carrier.grace), ""
    except _Stopped:
        os._exit(StopRequested.exit_code)  # files that are on their way need not come any more
    except JobError as error:
        supervisor.ended = True
        exit_code, problem = error.exit_code, str(error)
        _say(problem)
        with contextlib.suppress(OSError):
            write_failure(root / "output/failure", problem)
    if carrier is None or not _is_first_node(root):
        return exit_code
    return _deliver(carrier, exit_code, problem)


def _carrier(root: Path) -> Carrier:
    address = os.environ.get(TRANSFER_VARIABLE)
    if not address:
        return Channels(root)
    from airflow_mlops.contract.container.transfer import Transfer

    return Transfer.at(address, root)


def _deliver(carrier: Carrier, exit_code: int, problem: str) -> int:
    try:
        carrier.deliver(exit_code, problem)
    except (JobError, OSError) as error:
        _say(f"The results cannot be handed over: {error}")
        return exit_code or getattr(error, "exit_code", 1)
    return exit_code


def become(command: Sequence[str]) -> NoReturn:
    """Let a command line take the place of this process."""
    try:
        os.execvp(command[0], list(command))  # noqa: S606  the image's own entrypoint
    except OSError as error:
        _say(f"{command[0]} cannot be run: {error}")
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


class _Stopped(BaseException):
    """SIGTERM came before the command was started."""


class _Supervisor:
    """The command as a child of process 1: signals go down, the exit code comes up, orphans are reaped."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._pid = 0
        self.ended = False
        self._grace = 30.0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGALRM, lambda *_: self._send(signal.SIGKILL))

    def wait(self, grace: float) -> int:
        """Start the command and wait for its end."""
        self._grace = grace
        environment = {key: value for key, value in os.environ.items() if key != TRANSFER_VARIABLE}
        try:
            process = subprocess.Popen(self._command, env=environment)
        except OSError as error:
            raise JobError(f"{self._command[0]} cannot be run: {error}.") from error
        self._pid = process.pid
        while True:
            pid, status = os.wait()
            if pid == self._pid:
                break
        self.ended = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        code = process.returncode = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        if self.ended:
            return
        if not self._pid:
            raise _Stopped
        signal.setitimer(signal.ITIMER_REAL, self._grace * _COMMANDS_SHARE)
        self._send(number)

    def _send(self, number: int) -> None:
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)


def _is_first_node(root: Path) -> bool:
    """Of several machines that train together, the first one sends the results."""
    given = os.environ
    if "AWS_BATCH_JOB_NODE_INDEX" in given:
        return given["AWS_BATCH_JOB_NODE_INDEX"] == given.get("AWS_BATCH_JOB_MAIN_NODE_INDEX", "0")
    with contextlib.suppress(OSError, ValueError, KeyError):
        hosts = json.loads((root / "input/config/resourceconfig.json").read_text(encoding="utf-8"))
        return bool(hosts["current_host"] == hosts["hosts"][0])
    return (given.get("MLOPS_NODE_RANK") or given.get("JOB_COMPLETION_INDEX") or "0") == "0"


def _say(text: str) -> None:
    print(text.rstrip(), file=sys.stderr, flush=True)
