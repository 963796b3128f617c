"""Reading the connection, and keeping the login to itself."""

from __future__ import annotations

import base64
import contextlib
import socket
import time
from types import SimpleNamespace

import pytest

from airflow_mlops.exceptions import TrackingError, TrackingUnavailable
from airflow_mlops.hooks.mlflow_session import TrackingServer


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
        with pytest.raises(TrackingUnavailable, match="no answer within"):
            server.probe()
        assert time.monotonic() - start < 16
