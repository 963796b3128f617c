"""Where the Docker Engine is, and how to log in to its registry: read from the connection or the environment."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import RunnerError

if TYPE_CHECKING:
    from airflow.sdk import Connection

#: Where an engine listens when nothing else is said.
LOCAL_ENGINE = "unix:///var/run/docker.sock"
SCHEMES = ("unix://", "tcp://", "http://", "https://")


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


@dataclass(frozen=True)
class EngineAddress:
    """An engine as the clients need it.

    :param url: ``unix:///…``, ``tcp://host:port`` or ``https://host:port``.
    """

    url: str
    tls: TlsFiles | None = None
    registry: Registry | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(SCHEMES):
            raise RunnerError(
                f"Docker Engine address must begin with one of {', '.join(SCHEMES)}; got {self.url!r}. "
                "Cure: correct 'engine' in the extra of the connection, or DOCKER_HOST."
            )


def engine_address(connection: Connection | None) -> EngineAddress:
    """Address out of a connection of type ``docker``, else out of the environment, else the local engine.

    The provider's fields say the registry (host, port, login, password). The extra may say the engine:
    ``{"engine": "tcp://10.0.0.5:2376", "tls_ca": "…", "tls_cert": "…", "tls_key": "…"}``.
    ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH`` mean what they mean to the docker command.
    """
    if connection is None:
        return _address_of_environment(None)
    registry = None
    if connection.host and connection.login:
        host = f"{connection.host}:{connection.port}" if connection.port else connection.host
        registry = Registry(host, connection.login, connection.password or "")
    extra = connection.extra_dejson
    engine = extra.get("engine")
    if not engine:
        return _address_of_environment(registry)
    given = [str(extra[key]) for key in ("tls_ca", "tls_cert", "tls_key") if extra.get(key)]
    if len(given) not in (0, 3):
        raise RunnerError(
            f"Connection {connection.conn_id}: TLS needs all of tls_ca, tls_cert and tls_key in the extra, "
            f"got {len(given)} of them."
        )
    return EngineAddress(str(engine), TlsFiles(*given) if given else None, registry)


def _address_of_environment(registry: Registry | None) -> EngineAddress:
    tls = None
    if os.environ.get("DOCKER_TLS_VERIFY"):
        folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
        tls = TlsFiles(str(folder / "ca.pem"), str(folder / "cert.pem"), str(folder / "key.pem"))
    return EngineAddress(os.environ.get("DOCKER_HOST") or LOCAL_ENGINE, tls, registry)
