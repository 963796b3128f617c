"""A Docker Engine behind SSH: its socket, forwarded to this machine by the ``ssh`` command.

One tunnel for each engine and process, opened when the first call needs it, and again when it broke. It ends with
the process, however that ends: the far side reads from this one, and nothing more to read means the end.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_mlops.exceptions import EngineUnavailableError
from airflow_mlops.hooks.scratch import ScratchFolder, scratch_folder, scratch_home

if TYPE_CHECKING:
    from airflow_mlops.hooks.docker.address import EngineAddress

#: Where an engine listens on its own machine.
SOCKET = "/var/run/docker.sock"
#: Seconds until the far side must have let us in.
PATIENCE = 20.0
#: Characters of the folder for scratch folders in which a socket still has its place.
LONGEST_HOME = 60
#: Nobody is there to answer a question; a far side that is silent for a minute is gone.
OPTIONS = {
    "BatchMode": "yes",
    "ExitOnForwardFailure": "yes",
    "ControlPath": "none",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
}
#: Airflow ends its tasks without a chance to tidy up: the folder goes when the command behind it has ended.
TIDY = '"$@"; rm -rf "$0"'


@dataclass
class _Tunnel:
    process: subprocess.Popen[bytes]
    socket: Path
    folder: ScratchFolder

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> str:
        """End it; what ssh said."""
        if self.alive:
            os.killpg(self.process.pid, signal.SIGKILL)
        _, said = self.process.communicate()
        self.folder.cleanup()
        return said.decode(errors="replace").strip()


#: By process: a child that was forked has its parent's memory, not its parent's children.
_tunnels: dict[tuple[int, EngineAddress], _Tunnel] = {}
_lock = threading.Lock()


def forwarded(address: EngineAddress) -> str:
    """Local address of the engine: ``unix:///…``.

    :raises EngineUnavailableError: when the far side cannot be reached, does not let us in, or has no engine.
    """
    key = os.getpid(), address
    with _lock:
        tunnel = _tunnels.get(key)
        if tunnel is not None and not tunnel.alive:
            _tunnels.pop(key).close()
            tunnel = None
        if tunnel is None:
            tunnel = _tunnels[key] = _open(address)
        return f"unix://{tunnel.socket}"


def _open(address: EngineAddress) -> _Tunnel:
    if shutil.which("ssh") is None:
        raise EngineUnavailableError(
            f"The ssh command for Docker Engine {address.url} cannot be run: it is not there. Cure: install OpenSSH's "
            "client on the workers and the triggerer."
        )
    # Short: the path of a socket may have about a hundred characters.
    folder = scratch_folder("/tmp" if len(str(scratch_home())) > LONGEST_HOME else None)  # noqa: S108 - locked, and ours
    socket = Path(folder.name) / "engine.sock"
    process = subprocess.Popen(
        ["sh", "-c", TIDY, str(socket.parent), *command(address, socket)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    tunnel, deadline = _Tunnel(process, socket, folder), time.monotonic() + PATIENCE
    while not socket.exists():
        if not tunnel.alive or time.monotonic() > deadline:
            said = tunnel.close()
            raise EngineUnavailableError(
                f"Docker Engine {address.url} cannot be reached: {said or 'no answer'}. Cure: as the user "
                f"that runs Airflow, `{' '.join(command(address, Path('S'))[:-4])} docker version` must work."
            )
        time.sleep(0.02)
    return tunnel


@atexit.register
def _close_all() -> None:
    for key in [key for key in _tunnels if key[0] == os.getpid()]:
        _tunnels.pop(key).close()


def command(address: EngineAddress, socket: Path) -> list[str]:
    """The ssh command that forwards ``socket`` to the engine's own.

    Its last words are the far command, which lives as long as this process.
    """
    url = urlsplit(address.url)
    given = dict(OPTIONS)
    if address.ssh_known_hosts:
        given["UserKnownHostsFile"] = address.ssh_known_hosts
    options = [word for key, value in given.items() for word in ("-o", f"{key}={value}")]
    key = ["-i", address.ssh_key] if address.ssh_key else []
    port = ["-p", str(url.port)] if url.port else []
    user = f"{url.username}@" if url.username else ""
    far = f"{user}{url.hostname}"
    return ["ssh", *options, *key, *port, far, "-L", f"{socket}:{url.path or SOCKET}", "--", "cat"]
