"""Whether Airflow's API server answers, also behind a certificate of the company's own authority."""

from __future__ import annotations

import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from airflow_mlops.quirks.reachability import airflow_answers
from tests.fixtures.gpu_engines import Certificates


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An authority, a server's certificate and a client's, with their keys."""
    certificates = Certificates(tmp_path_factory.mktemp("tls"))
    certificates.make()
    return certificates.files


@pytest.fixture
def server(files, monkeypatch):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_):  # who refuses the certificate hangs up
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.context.load_cert_chain(files["engine.pem"], files["engine-key.pem"])
    server.socket = server.context.wrap_socket(server.socket, server_side=True)
    server.status = 200
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv(
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"https://127.0.0.1:{server.server_port}/execution/"
    )
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("option", ["SSL_CERT", "SSL_CA_FILE"])
@pytest.mark.parametrize(("status", "there"), [(200, True), (404, True), (503, False)])
def test_an_authority_that_airflow_knows(server, files, monkeypatch, option, status, there):
    monkeypatch.setenv(f"AIRFLOW__API__{option}", files["ca.pem"])
    server.status = status
    assert airflow_answers() is there


def test_a_certificate_that_cannot_be_checked_is_an_answer(server, monkeypatch, tmp_path):
    assert airflow_answers()
    monkeypatch.setenv("AIRFLOW__API__SSL_CERT", str(tmp_path / "not there"))
    assert airflow_answers()


def test_a_server_that_wants_a_certificate_gets_that_of_airflow(server, files, monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__SSL_CERT", files["ca.pem"])
    server.context.verify_mode = ssl.CERT_REQUIRED
    server.context.load_verify_locations(files["ca.pem"])
    monkeypatch.setenv("AIRFLOW__API__CLIENT_SSL_CERT", files["client.pem"])
    monkeypatch.setenv("AIRFLOW__API__CLIENT_SSL_KEY", files["client-key.pem"])
    for status, there in [(200, True), (503, False)]:
        server.status = status
        assert airflow_answers() is there


def test_nobody_there(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        for scheme in ("http", "https"):
            monkeypatch.setenv(
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"{scheme}://127.0.0.1:{port}/execution/"
            )
            assert not airflow_answers()
