"""Reading the connection, and keeping the login to itself."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from airflow_mlops.exceptions import TrackingError, TrackingUnavailableError
from airflow_mlops.hooks.mlflow.session import TrackingServer, translated
from tests.fixtures.deadlines import SOON


def connection(**fields):
    empty = {
        "conn_id": "m",
        "conn_type": "mlflow",
        "host": "",
        "schema": "",
        "port": None,
        "login": "",
        "password": "",
    }
    return SimpleNamespace(**{**empty, **fields})


@pytest.mark.parametrize(
    ("fields", "uri"),
    [
        ({"host": "http://mlflow:5000"}, "http://mlflow:5000"),
        ({"host": "https://mlflow.example.org/team/a/"}, "https://mlflow.example.org/team/a"),
        ({"host": "http://mlflow", "port": 5000}, "http://mlflow:5000"),
        ({"host": "mlflow", "port": 5000}, "http://mlflow:5000"),
        ({"host": "mlflow", "port": 5000, "schema": "https"}, "https://mlflow:5000"),
        ({"host": "mlflow", "port": 443}, "https://mlflow:443"),
        ({"host": "mlflow", "conn_type": "https"}, "https://mlflow"),
        ({"host": "[::1]:5000"}, "http://[::1]:5000"),
        ({"host": " mlflow:5000 "}, "http://mlflow:5000"),
    ],
)
def test_addresses(fields, uri):
    assert TrackingServer.from_connection(connection(**fields)).uri == uri


@pytest.mark.parametrize(
    "host", ["", "sqlite:///mlflow.db", "databricks://profile", "file:///mlruns", "http://"]
)
def test_what_is_no_server_is_refused(host):
    with pytest.raises(TrackingError, match="'m'"):
        TrackingServer.from_connection(connection(host=host))


def test_logins():
    def login(**fields):
        return TrackingServer.from_connection(connection(host="http://h", **fields)).authorization

    assert login(login="ada", password="pw") == "Basic " + base64.b64encode(b"ada:pw").decode()
    assert login(password="token") == "Bearer token"
    assert login() == ""


def test_a_login_in_the_url_is_taken_out_of_it():
    server = TrackingServer.from_connection(connection(host="http://ada:p%2Fw@mlflow:5000"))
    assert server.uri == "http://mlflow:5000"
    assert server.authorization == "Basic " + base64.b64encode(b"ada:p/w").decode()
    assert "p/w" not in repr(server)
    assert server.authorization not in repr(server)


def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as mute:
        server = TrackingServer.from_connection(connection(host="127.0.0.1", port=mute.getsockname()[1]))
        start = time.monotonic()
        with pytest.raises(TrackingUnavailableError, match="no answer within"):
            server.probe()
        assert time.monotonic() - start < SOON


@pytest.fixture
def answering():
    """A server that answers every request with a status, and how often it was asked."""
    said = SimpleNamespace(status=500, requests=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            said.requests.append(self.path)
            self.send_response(said.status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    said.server = TrackingServer.from_connection(connection(host="127.0.0.1", port=server.server_port))
    yield said
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 507])
def test_an_error_of_the_servers_own_leaves_the_task_to_its_retries(answering, status):
    """A locked database or a full disk for a moment must not throw away a finished training."""
    answering.status = status
    with pytest.raises(TrackingUnavailableError, match="127"):
        answering.server.get("registered-models/alias", name="m", alias="champion")


def test_a_refusal_is_told_as_it_is(answering):
    answering.status = 400
    assert answering.server.get("registered-models/alias", name="m") == (400, {})
    answering.status = 403
    with pytest.raises(TrackingError, match="refused the login"):
        answering.server.get("registered-models/alias", name="m")


def test_an_internal_error_in_the_middle_may_be_tried_again(answering):
    """What MLflow's own client makes of a 500; the server is there and says so."""
    from mlflow.exceptions import RestException

    answering.status = 200
    said = {"error_code": "INTERNAL_ERROR", "message": "database is locked"}
    own = r"error of its own: INTERNAL_ERROR: database is locked"
    with pytest.raises(TrackingUnavailableError, match=own), translated(answering.server, "Logging metrics"):
        raise RestException(said)
    said["error_code"] = "INVALID_PARAMETER_VALUE"
    with (
        pytest.raises(TrackingError, match="answered") as caught,
        translated(answering.server, "Logging metrics"),
    ):
        raise RestException(said)
    assert not caught.value.retriable
