"""Several processes that train together: torchrun, on one machine or at the rendezvous that the runner gives."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.contract.protocol.failures import ParameterError, StopRequested

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

    from airflow_mlops.contract.protocol.paths import Paths

#: Which machine of the training this is, and where machine 0 is (host, or host:port).
NODE_RANK, RENDEZVOUS = "MLOPS_NODE_RANK", "MLOPS_RENDEZVOUS"
PORT = 29400
#: Seconds that a machine waits for machine 0.
MEETING_SECONDS = 900
#: Folder in which each process leaves its exit code: the launcher has but one for all of them.
_RANKS = "MLOPS_RANKS"
#: Seconds that stopped processes have for their checkpoint; an engine kills after four.
_STOP_SECONDS = 3.6


@dataclass(frozen=True)
class Topology:
    """Where this machine stands in a distributed training.

    :param nodes: machines.
    :param processes: processes on each; ``gpu`` for one a GPU.
    :param node_rank: number of this machine, from 0.
    :param rendezvous: ``host:port`` of machine 0; empty for one machine.
    """

    nodes: int = 1
    processes: int | str = 1
    node_rank: int = 0
    rendezvous: str = ""

    @property
    def distributed(self) -> bool:
        """Whether there is more than one process."""
        return self.nodes > 1 or self.processes != 1

    def arguments(self) -> list[str]:
        """Arguments of torchrun."""
        # By number: a container without network cannot look up its own name.
        where = ["--standalone", "--local-addr", "127.0.0.1"]
        if self.nodes > 1:
            where = ["--node-rank", str(self.node_rank), "--rdzv-backend", "c10d", "--rdzv-id", "mlops"]
            where += ["--rdzv-endpoint", self.rendezvous]
            # Said and not guessed: the name of machine 0 may be unknown for a while after it has started, and the
            # others may wait long for their machines.
            where += ["--rdzv-conf", f"is_host={int(self.node_rank == 0)},read_timeout={MEETING_SECONDS}"]
        return ["--nnodes", str(self.nodes), "--nproc-per-node", str(self.processes), *where]


def read_topology(paths: Paths, environment: Mapping[str, str] = os.environ) -> Topology:
    """The topology that ``mlops.json`` asks for, placed by what the runner, AWS Batch, Kubernetes or SageMaker say.

    :raises ParameterError: what they say cannot be meant.
    """
    asked = _read(paths.config).get("distributed") or {}
    if not isinstance(asked, dict):
        raise ParameterError(f"{paths.config}: distributed: expected an object, got {asked!r}.")
    nodes, processes = asked.get("nodes", 1), asked.get("processes_per_node", 1)
    if not _is_count(nodes) or not (processes == "gpu" or _is_count(processes)):
        raise ParameterError(
            f"{paths.config}: distributed: expected nodes and processes_per_node as whole numbers (or gpu), got {asked}."
        )
    if nodes == 1:
        return Topology(1, processes)
    rank, host = _place(paths, environment)
    if not host:
        raise ParameterError(
            f"A training on {nodes} machines needs {NODE_RANK} and {RENDEZVOUS}; this runner gave none. "
            "Cure: choose a place (run_on) with several machines, or nodes: 1."
        )
    return Topology(nodes, processes, rank, host if ":" in host else f"{host}:{PORT}")


def launch(topology: Topology, program: Sequence[str]) -> int:
    """Run a program in all processes of this machine, and return the exit code of the contract.

    :param program: what follows the interpreter: a script or ``-m`` and a module, and its arguments.
    :returns: 0, or the exit code of the process that failed first; 143 when stopped by SIGTERM.
    :raises ParameterError: the image has no torch.
    """
    if importlib.util.find_spec("torch") is None:
        raise ParameterError(
            "Distributed training is launched by torchrun, and this image has no torch. Cure: add torch to the image, "
            "or remove training.distributed from the YAML."
        )
    with tempfile.TemporaryDirectory(prefix="mlops-ranks-") as ranks:
        environment = {"OMP_NUM_THREADS": _threads(topology.processes), **os.environ, _RANKS: ranks}
        if topology.nodes == 1:
            environment = {"GLOO_SOCKET_IFNAME": "lo", **environment}
        command = [sys.executable, "-m", "torch.distributed.run", *topology.arguments(), *program]
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        with _forward_sigterm(process, ranks) as stopped:
            code = process.wait()
            _end_rest(ranks, _STOP_SECONDS + 1 if stopped else 0)
        if stopped:
            return StopRequested.exit_code
        return _outcome(Path(ranks)) if code else 0


def is_worker(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of those that :func:`launch` started."""
    return _RANKS in environment and "RANK" in environment


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """Number of this process among all of the training, from 0; only 0 writes results."""
    return int(environment["RANK"]) if is_worker(environment) else 0


def world_size(environment: Mapping[str, str] = os.environ) -> int:
    """Processes of the training."""
    return int(environment.get("WORLD_SIZE", "1")) if is_worker(environment) else 1


def leave_exit_code(code: int) -> None:
    """Tell the launcher how this process ended."""
    with contextlib.suppress(OSError):
        of = os.environ.get("LOCAL_WORLD_SIZE", "0")
        Path(os.environ[_RANKS], f"{time.time_ns()}-{rank()}").write_text(f"{code} {of}")


def program_of_this_process() -> list[str]:
    """How this program was started, for starting it again."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None:
        return list(sys.argv)
    name = spec.name.removesuffix(".__main__")
    return ["-m", name, *sys.argv[1:]]


def _outcome(ranks: Path) -> int:
    """What the processes of a launcher that failed came to: the first failure among them, else 1.

    Where all of them have done their work, it is 0: torch may crash while it is taken down, when results are written.
    """
    words = [file.read_text().split() for file in sorted(ranks.iterdir())]
    left = [(int(code), int(of)) for code, of in filter(None, words)]
    if failed := next((code for code, _ in left if code), 0):
        return failed
    if left and len(left) == left[0][1]:
        print("torchrun failed after all of its processes had succeeded: they count.", file=sys.stderr)
        return 0
    return 1


def _threads(processes: int | str) -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return str(max(1, cores // processes)) if isinstance(processes, int) else "1"


@contextlib.contextmanager
def _forward_sigterm(process: subprocess.Popen[bytes], ranks: str) -> Any:
    stopped: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if not stopped:
            signal.setitimer(signal.ITIMER_REAL, _STOP_SECONDS)
            # torchrun hands it on at once; twice, it would not wait for its processes.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        stopped.append(number)

    def kill(_number: int, _frame: FrameType | None) -> None:
        # It would give them half a minute, which nobody has.
        _kill_all(ranks)
        process.kill()

    before = [signal.signal(signal.SIGTERM, forward), signal.signal(signal.SIGALRM, kill)]
    try:
        yield stopped
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGALRM, before[1])


def _end_rest(ranks: str, within: float) -> None:
    """Wait for what the launcher has left behind, and kill it then."""
    until = time.monotonic() + within
    while time.monotonic() < until and _started(ranks):
        time.sleep(0.05)
    _kill_all(ranks)


def _kill_all(ranks: str) -> None:
    for pid in _started(ranks):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _started(ranks: str) -> list[int]:
    """What the launcher has started. It gives each process a session of its own, so that no group has them all.

    :param ranks: their folder, which stands in the environment of each.
    """
    mark, found = f"{_RANKS}={ranks}".encode(), []
    # Empty where there is no Linux; there the launcher alone is told.
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found


def _place(paths: Paths, environment: Mapping[str, str]) -> tuple[int, str]:
    """Number of this machine, and the address of machine 0."""
    if RENDEZVOUS in environment:
        given = environment.get(NODE_RANK) or environment.get("JOB_COMPLETION_INDEX") or "0"
        return int(given), environment[RENDEZVOUS]
    if "AWS_BATCH_JOB_NODE_INDEX" in environment:
        main = environment.get("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS")
        # Machine 0 is the main one, whatever its index.
        index = int(environment["AWS_BATCH_JOB_NODE_INDEX"])
        of_main = int(environment.get("AWS_BATCH_JOB_MAIN_NODE_INDEX", "0"))
        number = 0 if index == of_main else index + (index < of_main)
        # The main node is not told its own address.
        return number, main or socket.gethostbyname(socket.gethostname())
    hosts = _read(paths.config.with_name("resourceconfig.json"))
    if hosts.get("hosts"):
        return hosts["hosts"].index(hosts["current_host"]), str(hosts["hosts"][0])
    return 0, ""


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # whoever needs it says what is wrong with it
    return content if isinstance(content, dict) else {}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
