"""Where the Docker Engine is, and how to log in to its registry: read from the connection or the environment."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import RunnerError

if TYPE_CHECKING:
    from airflow.sdk import Connection

#: Where an engine listens when nothing else is said.
LOCAL_ENGINE = "unix:///var/run/docker.sock"
SCHEMES = ("unix://", "tcp://", "http://", "https://", "ssh://")


@dataclass(frozen=True)
class TlsFiles:
    """PEM files for an engine behind TLS."""

    ca: str
    certificate: str
    key: str

    def context(self) -> ssl.SSLContext:
        """The same files for the asynchronous client."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            raise RunnerError(f"TLS files of the Docker Engine cannot be read: {error} ({self}).") from error
        return context


@dataclass(frozen=True)
class Registry:
    """Where private images come from."""

    address: str
    user: str
    password: str = field(repr=False)

    @property
    def host(self) -> str:
        """Host and port, as the names of its images begin."""
        return self.address.partition("://")[2].partition("/")[0] or self.address.partition("/")[0]


@dataclass(frozen=True)
class EngineAddress:
    """An engine as the clients need it.

    :param url: ``unix:///…``, ``tcp://host:port``, ``https://host:port`` or ``ssh://user@host:port``.
    :param gpus: UUID and type of each GPU, where the connection says them.
    :param ssh_key: file of the private key; ssh chooses one itself when it is empty.
    :param ssh_known_hosts: file with the engine's host key, when it is not the user's own.
    """

    url: str
    tls: TlsFiles | None = None
    registry: Registry | None = None
    gpus: tuple[tuple[str, str], ...] = ()
    ssh_key: str = ""
    ssh_known_hosts: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith(SCHEMES):
            raise RunnerError(
                f"Docker Engine address must begin with one of {', '.join(SCHEMES)}; got {self.url!r}. "
                "Cure: correct 'engine' in the extra of the connection, or DOCKER_HOST."
            )


def engine_address(connection: Connection | None) -> EngineAddress:
    """Address out of a connection of type ``docker``, else out of the environment, else the local engine.

    The provider's fields say the registry (host, port, login, password). The extra may say the engine:
    ``{"engine": "tcp://10.0.0.5:2376", "tls_ca": "…", "tls_cert": "…", "tls_key": "…"}``, or
    ``{"engine": "ssh://mlops@10.0.0.5", "ssh_key": "…", "ssh_known_hosts": "…"}``;
    and its GPUs, ``{"gpus": [{"uuid": "GPU-…", "type": "NVIDIA H100"}]}``, where the engine does not tell them.
    ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH`` mean what they mean to the docker command.
    """
    if connection is None:
        return _address_of_environment(None)
    registry = None
    if connection.host and connection.login:
        host = f"{connection.host}:{connection.port}" if connection.port else connection.host
        registry = Registry(host, connection.login, connection.password or "")
    extra = connection.extra_dejson
    engine, gpus = extra.get("engine"), _gpus(connection.conn_id, extra.get("gpus") or [])
    if not engine:
        return replace(_address_of_environment(registry), gpus=gpus)
    given = [str(extra[key]) for key in ("tls_ca", "tls_cert", "tls_key") if extra.get(key)]
    if len(given) not in (0, 3):
        raise RunnerError(
            f"Connection {connection.conn_id}: TLS needs all of tls_ca, tls_cert and tls_key in the extra, "
            f"got {len(given)} of them."
        )
    ssh = {key: str(extra.get(key) or "") for key in ("ssh_key", "ssh_known_hosts")}
    return EngineAddress(str(engine), TlsFiles(*given) if given else None, registry, gpus, **ssh)


def _gpus(conn_id: str, given: Any) -> tuple[tuple[str, str], ...]:
    try:
        found = tuple((str(gpu["uuid"]), str(gpu.get("type") or "")) for gpu in given)
    except (TypeError, KeyError, AttributeError):
        found = (("", ""),)
    if not all(uuid for uuid, _ in found) or len({uuid for uuid, _ in found}) < len(found):
        raise RunnerError(
            f'Connection {conn_id}: gpus in the extra must be a list of {{"uuid": "GPU-…", "type": "…"}}, each uuid '
            f"once; got {given!r}."
        )
    return found


def _address_of_environment(registry: Registry | None) -> EngineAddress:
    tls = None
    if os.environ.get("DOCKER_TLS_VERIFY"):
        folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
        tls = TlsFiles(str(folder / "ca.pem"), str(folder / "cert.pem"), str(folder / "key.pem"))
    return EngineAddress(os.environ.get("DOCKER_HOST") or LOCAL_ENGINE, tls, registry)
