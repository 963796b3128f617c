"""The model behind HTTP: ``GET /ping`` and ``POST /invocations``."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import traceback
import uuid
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from airflow_mlops.contract.model_code.invocations import parse_invocation
from airflow_mlops.contract.protocol.failures import DataError, ParameterError, StopRequested

if TYPE_CHECKING:
    from airflow_mlops.contract.model_code.job import Job
    from airflow_mlops.contract.model_code.model_code import ModelCode

MAX_BYTES = 8 * 1024**2
_MAX_IN_FLIGHT = 32
_MAX_CONNECTIONS = 256
_IDLE_SECONDS = 30
_BODY_SECONDS = 30.0
_DRAIN_SECONDS = 2.0
_DEFAULT_PORT = 8080
_PIECE = 64 * 1024
_LENGTH = re.compile(r"[0-9]{1,15}")
_IDENTIFIER = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")


class RequestError(Exception):
    """A request that gets an error status.

    :param status: HTTP status.
    :param message: for the client.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class ModelServer(ThreadingHTTPServer):
    """Serves one loaded model; port 0 takes a free one (``server_address`` says which).

    :param address: host and port.
    :param code: the model code.
    :param model: what its ``load`` returned.
    :param model_version: written beside every prediction.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], code: ModelCode, model: Any, model_version: str) -> None:
        self.code = code
        self.model = model
        self.model_version = model_version
        self.slots = threading.BoundedSemaphore(_MAX_IN_FLIGHT)
        self.connections = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each connection, up to a limit; one more is closed at once."""
        if not self.connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer the requests of one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def drain(self, seconds: float = _DRAIN_SECONDS) -> None:
        """Let the requests that are being answered finish."""
        until = time.monotonic() + seconds
        for _ in range(_MAX_IN_FLIGHT):
            if not self.slots.acquire(timeout=max(0.0, until - time.monotonic())):
                return

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is, with its traceback."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def serve_forever(code: ModelCode, model: Any, job: Job) -> None:
    """Answer requests until SIGTERM.

    The port is ``$MLOPS_PORT`` (8080), the host ``$MLOPS_HOST`` (every one), and the model's version
    ``$MLOPS_MODEL_VERSION``, else that of the job's run, else that of the code.
    """
    host = os.environ.get("MLOPS_HOST") or "0.0.0.0"  # noqa: S104 (a container's port is reached from outside)
    version = os.environ.get("MLOPS_MODEL_VERSION") or str(job.run.get("model_version") or code.version)
    try:
        server = ModelServer((host, _port()), code, model, version)
    except OSError as error:
        raise ParameterError(f"Cannot listen on {host}:{_port()}: {error}. Set MLOPS_PORT.") from error
    print(
        f"Serving on {host}:{server.server_address[1]}, model version {version}.", file=sys.stderr, flush=True
    )
    try:
        server.serve_forever(poll_interval=0.2)
    except StopRequested:
        server.socket.close()
        server.drain()
        raise
    finally:
        server.server_close()


def _port() -> int:
    text = os.environ.get("MLOPS_PORT") or str(_DEFAULT_PORT)
    if not text.isdecimal() or int(text) > 65535:
        raise ParameterError(f"MLOPS_PORT: expected a port number, got {text!r}.")
    return int(text)


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/ping":
            self._answer(HTTPStatus.OK, {"status": "ok", "model_version": self.server.model_version})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "Expected GET /ping or POST /invocations.")

    def do_POST(self) -> None:
        request_id = _identifier(self.headers.get("X-Request-Id")) or str(uuid.uuid4())
        if not self.server.slots.acquire(blocking=False):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests at a time.", request_id)
            return
        try:
            rows = parse_invocation(self._body())
            predictions = self._predict(rows)
            self._log(request_id, rows, predictions)
            self._answer(HTTPStatus.OK, {"predictions": predictions}, request_id)
        except RequestError as error:
            self._refuse(error.status, str(error), request_id)
        except DataError as error:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": str(error)}, request_id)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 (the service goes on; the client learns no internals)
            print(f"Request {request_id} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            self._answer(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                {"error": f"The model failed; see its log for request {request_id}."},
                request_id,
            )
        finally:
            self.server.slots.release()

    def _body(self) -> bytes:
        if self.path.partition("?")[0] != "/invocations":
            raise RequestError(HTTPStatus.NOT_FOUND, "Expected GET /ping or POST /invocations.")
        kind = self.headers.get_content_type()
        if kind != "application/json":
            raise RequestError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type: expected application/json, got {kind}."
            )
        # Two lengths, or a length and chunks: a proxy in front may take the body's end to be elsewhere.
        lengths = self.headers.get_all("Content-Length", [])
        if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]) or "Transfer-Encoding" in self.headers:
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "Content-Length: expected the body's bytes, once.")
        length = int(lengths[0])
        if length > MAX_BYTES:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body has {length} bytes; at most {MAX_BYTES}."
            )
        body = self._receive(length)
        if len(body) != length:
            raise RequestError(HTTPStatus.BAD_REQUEST, f"Expected {length} bytes, got {len(body)}.")
        return body

    def _receive(self, length: int) -> bytes:
        """So many bytes, or fewer if the client ends; a slow client must not hold a slot for long."""
        until, body = time.monotonic() + _BODY_SECONDS, bytearray()
        try:
            while len(body) < length:
                self.connection.settimeout(max(0.001, until - time.monotonic()))
                piece = self.rfile.read1(min(_PIECE, length - len(body)))
                if not piece:
                    break
                body += piece
        except TimeoutError as error:
            raise RequestError(
                HTTPStatus.REQUEST_TIMEOUT, f"The body took longer than {_BODY_SECONDS:.0f} s."
            ) from error
        self.connection.settimeout(_IDLE_SECONDS)
        return bytes(body)

    def _predict(self, rows: list[dict[str, Any]]) -> list[Any]:
        predictions = self.server.code.serve(self.server.model, rows)
        if len(predictions) != len(rows):
            raise ValueError(f"serve gave {len(predictions)} predictions for {len(rows)} rows")
        return predictions

    def _log(self, request_id: str, rows: list[dict[str, Any]], predictions: list[Any]) -> None:
        common = {
            "event": "prediction",
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "consumer": _identifier(self.headers.get("X-Consumer")) or "",
            "model": self.server.code.name,
            "model_version": self.server.model_version,
        }
        lines = [
            json.dumps({**common, "row": index, "prediction": prediction, "inputs": row}, allow_nan=False)
            for index, (row, prediction) in enumerate(zip(rows, predictions, strict=True))
        ]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()

    def _refuse(self, status: HTTPStatus, message: str, request_id: str = "") -> None:
        # The body was not read: on a kept connection it would be taken for the next request.
        self.close_connection = True
        self._answer(status, {"error": message}, request_id)

    def _answer(self, status: HTTPStatus, content: dict[str, Any], request_id: str = "") -> None:
        body = json.dumps(content, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if request_id:
            self.send_header("X-Request-Id", request_id)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """One log line a prediction is enough: no access log."""


def _identifier(value: str | None) -> str:
    """The header's value when it is safe to write into a log and a response, else nothing."""
    return value if value and _IDENTIFIER.fullmatch(value) else ""
