"""What a Docker Engine says, and whether asking again may help."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from airflow_mlops.exceptions import EngineUnavailableError
from airflow_mlops.hooks.docker.hook import DockerEngineHook


@pytest.fixture
def engine(monkeypatch):
    """An engine that answers everything but its version with a status and a message."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            version = self.path.endswith("/version")
            status, message = (200, "") if version else server.answer
            body = json.dumps({"ApiVersion": "1.44"} if version else {"message": message}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "message", "retriable"),
    [
        (503, "Service Unavailable", True),
        (502, "Bad Gateway", True),
        (504, "Gateway Timeout", True),
        (500, "context deadline exceeded", True),
        (500, 'could not select device driver "" with capabilities: [[gpu]]', False),
        (500, "write /x: no space left on device", False),
        (403, "forbidden", False),
        (409, "conflict", False),
    ],
)
def test_what_passes_by_itself_can_be_tried_again(engine, status, message, retriable):
    engine.answer = (status, message)
    hook = DockerEngineHook("")
    for ask in (lambda: hook.get("job", "/opt/ml/model"), lambda: hook.inspect("job"), hook.info):
        with pytest.raises(Exception, match=message.split()[0]) as caught:
            ask()
        assert caught.value.retriable is retriable
        assert isinstance(caught.value, EngineUnavailableError) is (status > 500)
