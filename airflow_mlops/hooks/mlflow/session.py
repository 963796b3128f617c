"""
How the MLflow hook reaches its server: address, login, patience, and what an error means.

The login never enters ``os.environ``, a URL, or a ``repr``: child processes inherit the environment, and
MLflow quotes URLs in its messages. MLflow asks a registered provider for the ``Authorization`` header
instead, and the provider knows it by the origin of the request.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_mlops.exceptions import MLOpsError, TrackingError, TrackingUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Connection
    from mlflow import MlflowClient
    from requests import PreparedRequest

log = logging.getLogger(__name__)

#: Settings of MLflow's client, where the environment says nothing else. A refused connection is given
#: up after about 3 s, a server that accepts and says nothing after about a minute.
CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
#: Seconds for one file: the server answers only after it has stored the whole of it elsewhere.
TRANSFER_TIMEOUT = "600"

#: Seconds to wait before each look for a server, and for its answer.
PROBE_PAUSES = (0.0, 1.0, 2.0)
PROBE_TIMEOUT = 3.5
#: Seconds to wait before a call is tried again that got no answer.
RETRY_PAUSES = (0.5, 1.5)

_AWAY_STATUS = {429, 502, 503, 504}
_AWAY_CODES = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "INTERNAL_ERROR"}
_LOGIN_CODES = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}

#: Origin of a server → value of its Authorization header. The connection used last wins.
_AUTHORIZATION: dict[str, str] = {}


class RestError(Exception):
    """What the server answered instead of doing it.

    :param error_code: MLflow's own word, as ``RESOURCE_DOES_NOT_EXIST``.
    """

    def __init__(self, message: str, status: int, error_code: str) -> None:
        super().__init__(message)
        self.status_code = status
        self.error_code = error_code


@dataclass(frozen=True)
class TrackingServer:
    """Where an MLflow server is, and how to log in.

    :param uri: ``http[s]://host[:port][/prefix]``, without login.
    :param connection: id of the connection, for messages.
    :param authorization: value of the Authorization header, or empty.
    """

    uri: str
    connection: str
    authorization: str = field(default="", repr=False)

    @classmethod
    def from_connection(cls, connection: Connection) -> TrackingServer:
        """Read host (or a whole URI in it), schema, port, login and password; a password alone is a token.

        :raises TrackingError: the connection names no HTTP server.
        """
        conn_id = connection.conn_id
        host = (connection.host or "").strip()
        if not host:
            raise TrackingError(
                f"Connection {conn_id!r} has no host. Expected the address of an MLflow tracking server, "
                "such as http://mlflow.example.org:5000."
            )
        if "://" in host:
            parts = urlsplit(host)
        else:
            scheme = next(
                (s for s in (connection.schema, connection.conn_type) if s in ("http", "https")),
                "https" if connection.port == 443 else "http",
            )
            parts = urlsplit(f"{scheme}://{host}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TrackingError(
                f"Connection {conn_id!r} points to {parts.scheme}://…, which is no MLflow tracking server. "
                "Expected http:// or https://. Cure: start `mlflow server` and name its address."
            )
        name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = parts.port or connection.port
        uri = f"{parts.scheme}://{name}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
        login = connection.login or unquote(parts.username or "")
        password = connection.password or unquote(parts.password or "")
        return cls(uri=uri, connection=conn_id, authorization=_authorization(login, password))

    def probe(self) -> None:
        """Look whether anything answers, for about 15 s at most.

        :raises TrackingUnavailableError: nothing answers.
        """
        problem = ""
        for pause in PROBE_PAUSES:
            time.sleep(pause)
            problem = self._look()
            if not problem:
                return
        raise self.unavailable(problem)

    def unavailable(self, problem: str) -> TrackingUnavailableError:
        """The error that says that nobody answers."""
        return TrackingUnavailableError(
            f"The MLflow server at {self.uri} (connection {self.connection!r}) does not answer: {problem}. "
            "Cure: start it, or correct the connection; the task can be retried then."
        )

    def client(self) -> MlflowClient:
        """A client of MLflow's own, set up for this server."""
        for key, value in CLIENT_SETTINGS.items():
            os.environ.setdefault(key, value)
        from mlflow import MlflowClient

        if self.authorization:
            _provide_authorization(self.uri, self.authorization)
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def get(self, path: str, **query: str) -> tuple[int, Any]:
        """One GET of MLflow's REST API: status and JSON, without MLflow's package and the seconds of its import.

        :param path: below ``/api/2.0/mlflow/``.
        :raises TrackingUnavailableError: the server does not answer.
        :raises TrackingError: it refuses the login, or answers no JSON.
        """
        return self._request(f"Reading {path}", "GET", path, params=query)

    def call(self, doing: str, path: str, **body: Any) -> dict[str, Any]:
        """One call of MLflow's REST API that must succeed: a POST with a body.

        :param doing: what is tried, as the start of a sentence.
        :param path: below ``/api/2.0/mlflow/``.
        :raises TrackingUnavailableError: the server does not answer.
        :raises TrackingError: it refuses; :func:`refused_as` tells its cause by MLflow's own code.
        """
        status, answer = self._request(doing, "POST", path, json=body)
        if status != 200:
            raise self.refusal(doing, status, answer)
        return dict(answer)

    def refusal(self, doing: str, status: int, answer: Any) -> TrackingError:
        """The error for an answer that is no success."""
        said = answer if isinstance(answer, dict) else {}
        cause = RestError(str(said.get("message") or answer), status, str(said.get("error_code") or ""))
        error = _translation(self, doing, cause)
        error.__cause__ = cause
        return error

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": self.authorization} if self.authorization else {}

    def api(self, path: str) -> str:
        """Address of a call of MLflow's REST API."""
        return f"{self.uri}/api/2.0/mlflow/{path}"

    def _request(self, doing: str, method: str, path: str, **options: Any) -> tuple[int, Any]:
        import requests

        pauses = iter(RETRY_PAUSES)
        while True:
            try:
                answer = requests.request(
                    method, self.api(path), headers=self.headers, timeout=20, verify=verification(), **options
                )
                if answer.status_code in (401, 403, 429) or answer.status_code >= 500:
                    answer.raise_for_status()
                return answer.status_code, answer.json()
            except requests.exceptions.RequestException as error:
                found = _translation(self, doing, error)
                pause = next(pauses, None)
                if pause is None or not found.retriable or isinstance(error, requests.exceptions.Timeout):
                    raise found from error
                time.sleep(pause)

    def _look(self) -> str:
        import requests

        try:
            answer = requests.get(f"{self.uri}/health", timeout=PROBE_TIMEOUT, verify=verification())
        except requests.exceptions.SSLError as error:
            raise TrackingError(
                f"The MLflow server at {self.uri} (connection {self.connection!r}) has a certificate that "
                f"is not trusted here: {error}. Cure: set MLFLOW_TRACKING_SERVER_CERT_PATH."
            ) from error
        except requests.exceptions.ConnectTimeout:
            return f"no connection within {PROBE_TIMEOUT} s"
        except requests.exceptions.ReadTimeout:
            return f"no answer within {PROBE_TIMEOUT} s"
        except requests.exceptions.RequestException as error:
            return _short(error)
        return f"HTTP {answer.status_code}" if answer.status_code in _AWAY_STATUS else ""


@contextlib.contextmanager
def translated(server: TrackingServer, doing: str) -> Iterator[None]:
    """Turn what MLflow raises into our errors.

    :param doing: what was tried, as the start of a sentence: ``Registering model x``.
    :raises TrackingUnavailableError: the server did not answer; the same call may succeed later.
    :raises TrackingError: the server refused.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except MLOpsError:
        raise
    except (MlflowException, RequestException, OSError) as error:
        raise _translation(server, doing, error) from error


@contextlib.contextmanager
def transfer() -> Iterator[None]:
    """More patience, for files. A timeout set in the environment stays."""
    key, usual = "MLFLOW_HTTP_REQUEST_TIMEOUT", CLIENT_SETTINGS["MLFLOW_HTTP_REQUEST_TIMEOUT"]
    if os.environ.get(key) != usual:
        yield
        return
    os.environ[key] = TRANSFER_TIMEOUT
    try:
        yield
    finally:
        os.environ[key] = usual


def refused_as(error: BaseException | None, *codes: str) -> bool:
    """Whether MLflow refused with one of these error codes."""
    return getattr(error, "error_code", None) in codes


def _translation(server: TrackingServer, doing: str, error: Exception) -> TrackingError:
    code = getattr(error, "error_code", None)
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    where = f"at {server.uri} (connection {server.connection!r})"
    if code in _LOGIN_CODES or status in (401, 403):
        return TrackingError(
            f"{doing} failed: the MLflow server {where} refused the login. "
            "Cure: correct login and password of the connection, or the user's permissions there."
        )
    if _is_transport(error) or status in _AWAY_STATUS:
        return server.unavailable(f"{doing} failed: {_short(error)}")
    if code is None and response is None:
        return TrackingError(f"{doing} failed before MLflow was asked: {_short(error)}")
    if (status or 0) >= 500 or _is_servers_own(error):
        # A locked database, a full disk: no reason to throw away what a job has trained for hours.
        return TrackingUnavailableError(
            f"{doing} failed: the MLflow server {where} had an error of its own: {_short(error)}. "
            "Cure: its log says why; the task can be retried then."
        )
    if code in _AWAY_CODES:
        # MLflow wraps failures of file transfers in errors without a cause: ask the server itself.
        try:
            server.probe()
        except TrackingUnavailableError as away:
            return away
    return TrackingError(f"{doing} failed: the MLflow server {where} answered: {_short(error)}")


def _is_servers_own(error: BaseException) -> bool:
    # Who has not imported MLflow did not get its error either.
    module = sys.modules.get("mlflow.exceptions")
    rest: tuple[type[BaseException], ...] = (RestError, *((module.RestException,) if module else ()))
    return isinstance(error, rest) and refused_as(error, "INTERNAL_ERROR")


def _is_transport(error: BaseException) -> bool:
    import requests

    broken = (
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.RetryError,
        requests.exceptions.ChunkedEncodingError,
    )
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, broken):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _authorization(login: str, password: str) -> str:
    if login:
        return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()
    return f"Bearer {password}" if password else ""


class _AuthorizationProvider:
    """What MLflow calls a request auth provider; found by the name in ``MLFLOW_TRACKING_AUTH``."""

    name = "airflow-mlops-connection"

    def get_name(self) -> str:
        return self.name

    def get_auth(self) -> Any:
        return _authorize


def _authorize(request: PreparedRequest) -> PreparedRequest:
    value = _AUTHORIZATION.get(_origin(request.url or ""))
    if value:
        request.headers["Authorization"] = value
    return request


def _provide_authorization(uri: str, value: str) -> None:
    from mlflow.tracking.request_auth.registry import _request_auth_provider_registry as registry

    if not any(isinstance(provider, _AuthorizationProvider) for provider in registry):
        registry.register(_AuthorizationProvider)  # type: ignore[no-untyped-call]
    os.environ["MLFLOW_TRACKING_AUTH"] = _AuthorizationProvider.name
    _AUTHORIZATION[_origin(uri)] = value


def _origin(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def verification() -> bool | str:
    """Whether certificates are checked, or against which file, as MLflow's own environment variables say."""
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("1", "true"):
        return False
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else text[:499] + "…"
