"""An engine behind a real SSH server, with keys made for the test."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_mlops.cli.demo.servers import Server, free_port
from airflow_mlops.exceptions import EngineUnavailableError
from airflow_mlops.hooks.docker.hook import DockerEngineHook
from airflow_mlops.hooks.scratch import scratch_home
from airflow_mlops.runners.docker.runner import DockerRunner
from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.jobs import Heard, eventually, tiny_job

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("tiny_image", "no_leftovers")]
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    """Connection extra of an engine behind an SSH server of its own."""
    if SSHD is None:
        reason = "no sshd (Debian's openssh-server)"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"{reason}, and in CI the SSH tests must run")
        pytest.skip(reason)
    folder, port = tmp_path_factory.mktemp("sshd"), free_port()
    for name in ("host", "client", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "client.pub", folder / "authorized")
    host_key = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}")
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)

    def answers():
        asked = subprocess.run(
            ["ssh-keyscan", "-T", "2", "-p", str(port), "127.0.0.1"], capture_output=True, check=False
        )
        return bool(asked.stdout)

    server = Server(
        "sshd", [SSHD, "-D", "-e", "-f", str(folder / "config")], os.environ, folder / "log", answers
    )
    server.start()
    server.wait(DEADLINE)
    yield {
        "engine": f"ssh://{getpass.getuser()}@127.0.0.1:{port}",
        "ssh_key": str(folder / "client"),
        "ssh_known_hosts": str(folder / "known"),
    }
    server.stop()


@pytest.fixture
def extra(sshd, monkeypatch):
    def connect(**changes):
        connection = {"conn_type": "docker", "extra": {**sshd, **changes}}
        monkeypatch.setenv("AIRFLOW_CONN_FAR", json.dumps(connection))
        return sshd

    connect()
    return connect


def tunnels():
    """Processes of ours that forward an engine's socket."""
    listed = subprocess.run(
        ["ps", "-eww", "-o", "pid,args"], capture_output=True, text=True, check=True
    ).stdout
    processes = (line.split() for line in listed.splitlines() if "/mlops-scratch-" in line)
    return [int(pid) for pid, program, *_ in processes if program == "ssh"]


def folders():
    """Where tunnels of ours have their sockets."""
    return set(scratch_home().glob("mlops-scratch-*"))


def test_a_job_runs_and_is_watched_and_a_broken_tunnel_loses_no_line(extra, tmp_path):
    name = "mlops-test-ssh"
    runner, heard = DockerRunner("far"), Heard()
    (tmp_path / "data").write_bytes(b"x" * 3_000_000)
    runner.submit(tiny_job(name, tmp_path, do="chatter", lines="40", pause="0.1"))
    try:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(DockerRunner("far").wait, name, heard, "", time.time() + 60)
            eventually(lambda: len(heard.lines) > 5)
            (tunnel,) = tunnels()
            os.kill(tunnel, signal.SIGKILL)
            state = waiting.result(timeout=DEADLINE)
        assert state.exit_code == 0
        assert heard.texts == ["tiny train begins", *(f"line {number}" for number in range(1, 41))]
    finally:
        DockerRunner("far").cleanup(name)
    assert DockerRunner(None).inspect(name).status == "gone"


@pytest.mark.parametrize(
    ("end", "code"),
    [("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL), ("os._exit(3)", 3), ("sys.exit(4)", 4)],
)
def test_a_tunnel_ends_with_its_process_however_that_ends(extra, end, code):
    script = (
        "import os, signal, sys; from airflow_mlops.hooks.docker.hook import DockerEngineHook\n"
        f"DockerEngineHook('far').info(); {end}"
    )
    before = set(tunnels()), folders()

    done = subprocess.run([sys.executable, "-c", script], check=False)

    assert done.returncode == code
    eventually(lambda: set(tunnels()) <= before[0] and folders() <= before[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"ssh_key": "stranger"},
            r"Permission denied.*Cure: as the user that runs Airflow, `ssh .*docker version`",
        ),
        ({"ssh_known_hosts": "/dev/null"}, "Host key verification failed"),
        ({"engine": "ssh://127.0.0.1:9"}, "Connection refused"),
    ],
)
def test_who_is_not_let_in_is_told_why(extra, sshd, change, words):
    if "ssh_key" in change:
        change = {"ssh_key": str(Path(sshd["ssh_key"]).with_name(change["ssh_key"]))}
    extra(**change)

    with pytest.raises(EngineUnavailableError, match=words):
        DockerEngineHook("far").info()


def test_without_the_ssh_command_it_says_so(extra, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    extra(engine="ssh://127.0.0.1:7")

    with pytest.raises(EngineUnavailableError, match=r"cannot be run.*Cure: install OpenSSH"):
        DockerEngineHook("far").info()
