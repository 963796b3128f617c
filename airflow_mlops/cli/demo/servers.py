"""Real servers on this machine: started in a session of their own, stopped by their own process group."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError

from airflow_mlops.exceptions import CommandError
from airflow_mlops.primitives.texts.documents import json_text

_SCRIPTS = Path(sys.executable).parent


class ServerError(CommandError):
    """A server did not start, or ended before its time."""


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


#: How many times longer than it may do nothing a start may take, whatever it does.
LONGEST = 6


@dataclass
class Server:
    """A process with its children, a log file, and a health check.

    :param name: how people call it.
    :param command: command line.
    :param environment: the whole environment of the process.
    :param log: file for its output.
    :param healthy: whether it serves; must not raise.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    healthy: Callable[[], bool]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start without waiting."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.log.parent,
            )

    def wait(self, seconds: float, tick: Callable[[], None] = lambda: None) -> None:
        """Wait until it serves.

        :param seconds: for which it may do nothing: neither write to its log nor use the processor. A start on a busy
            machine takes as long as it takes.
        :raises ServerError: with the end of its log, when it has ended or the time is over.
        """
        deadline, before = time.monotonic() + seconds, self._work()
        longest = time.monotonic() + LONGEST * seconds
        while not self.healthy():
            ended = self.process is None or self.process.poll() is not None
            now = self._work()
            # A second of work in each half minute is more than what does nothing uses to look around.
            if now[0] != before[0] or now[1] - before[1] > seconds / 30:
                deadline, before = time.monotonic() + seconds, now
            if ended or time.monotonic() > min(deadline, longest):
                why = (
                    "ended at its start" if ended else f"does not answer, and did little for {seconds:.0f} s"
                )
                raise ServerError(f"{self.name} {why}. The end of {self.log}:\n{tail(self.log)}")
            tick()
            time.sleep(0.5)

    def _work(self) -> tuple[int, float]:
        """Size of its log, and seconds of processor that its processes have used, ended ones with them."""
        used, group = 0.0, self.process.pid if self.process is not None else 0
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group:
                    used += sum(map(int, fields[11:15]))
        return self.log.stat().st_size if self.log.exists() else 0, used / os.sysconf("SC_CLK_TCK")

    def stop(self, grace: float = 20) -> None:
        """SIGINT to the process, which ends its children; signals to the whole group for what is left then."""
        if self.process is None:
            return
        group = self.process.pid
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        for number, seconds in ((0, grace), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            _signal_group(group, number)
            if self._ended(group, seconds):
                break
        self.process = None

    def _ended(self, group: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process is not None:
                self.process.poll()
            if not _signal_group(group, 0):
                return True
            time.sleep(0.1)
        return False


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def tail(path: Path, lines: int = 30) -> str:
    """The last lines of a log file."""
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def answers(url: str, check: Callable[[bytes], bool] = lambda _: True) -> bool:
    """Whether a GET of ``url`` gives 200 and a body that ``check`` accepts."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own http addresses
            return bool(check(response.read()))
    except (OSError, HTTPError, ValueError):
        return False


def clean_environment() -> dict[str, str]:
    """This process's environment without anybody's Airflow or MLflow settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW", "_AIRFLOW"))}


def mlflow_server(home: Path, port: int | None = None) -> tuple[Server, str]:
    """An MLflow server on SQLite and files below ``home``; returns it, not started, and its URL."""
    port = port or free_port()
    home.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}"
    command = [
        str(_SCRIPTS / "mlflow"),
        "server",
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{home}/mlflow.db"),
        *("--artifacts-destination", f"{home}/artifacts", "--serve-artifacts"),
    ]
    environment = {
        **clean_environment(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return Server("MLflow", command, environment, home / "server.log", lambda: answers(f"{url}/health")), url


@dataclass(frozen=True)
class AirflowSettings:
    """Where an Airflow of our own lives and how to log in."""

    home: Path
    dags: Path
    url: str
    user: str
    password: str
    environment: Mapping[str, str]


#: A task is forked from the scheduler; MLflow, four seconds of a processor, is imported there once for all of them.
_LOCAL_SETTINGS = """\
import sys

if sys.argv[1:2] == ["scheduler"]:
    import mlflow  # noqa: F401
"""


def airflow_server(
    home: Path, dags: Path, extra: Mapping[str, str], port: int | None = None
) -> tuple[Server, AirflowSettings]:
    """Scheduler, triggerer, DAG processor and API server on SQLite below ``home``; not started.

    :param dags: DAG folder.
    :param extra: more environment, such as ``AIRFLOW_CONN_…``.
    """
    port = port or free_port()
    (home / "config").mkdir(parents=True, exist_ok=True)
    (home / "config/airflow_local_settings.py").write_text(_LOCAL_SETTINGS)
    url, password = f"http://127.0.0.1:{port}", _password(home)
    environment = {
        **clean_environment(),
        "PATH": f"{_SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": _secret(home / "api_secret"),
        "AIRFLOW__API_AUTH__JWT_SECRET": _secret(home / "jwt_secret"),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        # New files are found at once; parsing known ones again every few seconds would keep a core busy.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        # A worker's slot is often free only at its supervisor's next look, five seconds later by default.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **extra,
    }
    server = Server(
        "Airflow",
        [str(_SCRIPTS / "airflow"), "standalone"],
        environment,
        home / "standalone.log",
        lambda: answers(f"{url}/api/v2/monitor/health", _all_healthy),
    )
    return server, AirflowSettings(home, dags, url, "admin", password, environment)


def _all_healthy(body: bytes) -> bool:
    parts = json.loads(body)
    return all(
        parts[part]["status"] == "healthy"
        for part in ("metadatabase", "scheduler", "triggerer", "dag_processor")
    )


def _password(home: Path) -> str:
    path = home / "passwords.json"
    if not path.exists():
        _write_private(path, json_text({"admin": secrets.token_urlsafe(12)}))
    return str(json.loads(path.read_text())["admin"])


def _secret(path: Path) -> str:
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(32))
    return path.read_text()


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
