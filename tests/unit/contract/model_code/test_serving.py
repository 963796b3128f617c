from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from airflow_mlops.contract import DataError, execute
from airflow_mlops.contract.model_code.invocations import MAX_ROWS, parse_invocation
from airflow_mlops.contract.model_code.serving import MAX_BYTES, ModelServer
from tests.unit.contract.tiny import Tiny

ROOT = Path(__file__).parents[4]
TINY = Path(__file__).parents[1] / "tiny.py"


@pytest.fixture
def server():
    server = ModelServer(("127.0.0.1", 0), Tiny(), {"a": 0.25, "b": 0.75}, "3")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def request(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    try:
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, json.loads(response.read()), response.headers
    finally:
        connection.close()


def test_ping_says_which_version_is_served(server):
    status, answer, _ = request(server, "GET", "/ping")
    assert (status, answer) == (200, {"status": "ok", "model_version": "3"})


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["group", "x"], "data": [["a", 1], ["b", 2]]}},
        {"dataframe_records": [{"group": "a"}, {"group": "b"}]},
        {"inputs": {"group": ["a", "b"]}},
        {"inputs": [{"group": "a"}, {"group": "b"}]},
    ],
)
def test_every_scoring_format_gives_a_prediction_a_row(server, body):
    status, answer, _ = request(server, "POST", "/invocations", body)
    assert (status, answer) == (200, {"predictions": [0.25, 0.75]})


def test_each_prediction_is_logged_with_who_asked(server, capsys):
    body = {"dataframe_records": [{"group": "a"}, {"group": "b"}]}
    headers = {"X-Request-Id": "r-1", "X-Consumer": "app/mobile"}
    _, _, answered = request(server, "POST", "/invocations", body, **headers)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert answered["X-Request-Id"] == "r-1"
    assert [(line["row"], line["prediction"], line["inputs"]) for line in lines] == [
        (0, 0.25, {"group": "a"}),
        (1, 0.75, {"group": "b"}),
    ]
    assert {
        (line["request_id"], line["consumer"], line["model"], line["model_version"]) for line in lines
    } == {("r-1", "app/mobile", "tiny", "3")}


def test_a_request_without_a_usable_id_gets_one(server, capsys):
    body = {"dataframe_records": [{"group": "a"}]}
    _, _, first = request(server, "POST", "/invocations", body)
    _, _, second = request(server, "POST", "/invocations", body, **{"X-Request-Id": "a b<script>"})
    assert first["X-Request-Id"] != second["X-Request-Id"]
    assert "<script>" not in capsys.readouterr().out + second["X-Request-Id"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ([], "one of dataframe_split, dataframe_records, inputs; got list"),
        ({"rows": []}, "got 'rows'"),
        ({"inputs": {}, "dataframe_records": []}, "one of dataframe_split"),
        (
            {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}},
            "dataframe_split.data[0]: expected 1 values, got 2",
        ),
        ({"dataframe_split": {"columns": ["a", "a"], "data": []}}, "different strings"),
        ({"dataframe_records": ["x"]}, "dataframe_records[0]: expected an object"),
        ({"dataframe_records": []}, "expected 1 to 10000 rows, got 0"),
        ({"inputs": {"a": [1], "b": [1, 2]}}, "all of one length"),
        (b'{"dataframe_records": [{"group": Infinity}]}', "value Infinity"),
        (b'{"dataframe_records": [{"group": -1e999}]}', "value -1e999"),
        (b'{"dataframe_records": [{"group": ' + b"9" * 400 + b"}]}", "expected finite numbers"),
        ({"dataframe_records": [{"x": 1}]}, "Row 0 lacks group"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(server, body, said):
    status, answer, _ = request(server, "POST", "/invocations", body)
    assert status == 400
    assert said in answer["error"]


def test_too_many_rows_are_refused():
    body = json.dumps({"inputs": {"a": [1] * (MAX_ROWS + 1)}}).encode()
    with pytest.raises(DataError, match="got 10001"):
        parse_invocation(body)


def test_nan_is_a_missing_value():
    assert parse_invocation(b'{"inputs": {"a": [NaN, null, 1]}}') == [{"a": None}, {"a": None}, {"a": 1}]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 404),
        ("POST", "/predict", {}, 404),
        ("POST", "/invocations", {"Content-Type": "text/csv"}, 415),
        ("POST", "/invocations", {"Content-Length": str(MAX_BYTES + 1)}, 413),
        ("POST", "/invocations", {"Content-Length": "many"}, 411),
        ("POST", "/invocations", {"Content-Length": "-5"}, 411),
        ("POST", "/invocations", {"Content-Length": "9" * 5000}, 411),
        ("POST", "/invocations", {"Content-Length": "0", "Transfer-Encoding": "chunked"}, 411),
    ],
)
def test_other_requests_get_the_status_of_http(server, method, path, headers, status):
    assert request(server, method, path, b"", **headers)[0] == status


def test_a_failing_model_does_not_tell_its_internals_and_the_service_goes_on(server, capsys):
    status, answer, headers = request(server, "POST", "/invocations", {"inputs": [{"group": "boom"}]})
    assert status == 500
    assert "secret" not in json.dumps(answer)
    assert headers["X-Request-Id"] in answer["error"]
    assert "a secret path" in capsys.readouterr().err
    assert request(server, "GET", "/ping")[0] == 200


def test_more_requests_than_slots_are_told_to_come_again(server):
    taken = 0
    while server.slots.acquire(blocking=False):
        taken += 1
    status, answer, _ = request(server, "POST", "/invocations", {"inputs": [{"group": "a"}]})
    server.slots.release(taken)
    assert (status, answer) == (503, {"error": "Too many requests at a time."})
    assert request(server, "POST", "/invocations", {"inputs": [{"group": "a"}]})[0] == 200


def test_two_lengths_are_refused(server):
    body = b'{"inputs": [{"group": "a"}]}'
    answer = raw(server, b"Content-Length: %d\r\nContent-Length: 3\r\n\r\n%s" % (len(body), body))
    assert answer.startswith(b"HTTP/1.1 411")
    assert b"Connection: close" in answer


def test_a_client_that_sends_too_slowly_is_let_go(server, monkeypatch, capsys):
    monkeypatch.setattr("airflow_mlops.contract.model_code.serving._BODY_SECONDS", 0.05)
    answer = raw(server, b'Content-Length: 100\r\n\r\n{"inputs"')
    assert answer.startswith(b"HTTP/1.1 408")
    assert capsys.readouterr().err == ""
    assert request(server, "POST", "/invocations", {"inputs": [{"group": "a"}]})[0] == 200


def test_more_connections_than_the_limit_are_closed_at_once(server):
    taken = 0
    while server.connections.acquire(blocking=False):
        taken += 1
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        request(server, "GET", "/ping")
    server.connections.release(taken)
    assert request(server, "GET", "/ping")[0] == 200


def raw(server, rest):
    """The whole answer to a request whose end, from the headers of its length on, is given."""
    with socket.create_connection(server.server_address[:2], timeout=10) as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + rest)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_the_serve_command_runs_until_sigterm(prepare):
    paths = prepare()
    assert execute(Tiny, "train", paths) == 0
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MLOPS_ROOT": str(paths.root),
        "MLOPS_PORT": "0",
        "MLOPS_HOST": "127.0.0.1",
        "MLOPS_MODEL_VERSION": "9",
    }
    process = subprocess.Popen(
        [sys.executable, str(TINY), "serve"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = next(line for line in process.stderr if line.startswith("Serving on"))
        port = int(line.partition("127.0.0.1:")[2].partition(",")[0])
        address = type("Address", (), {"server_address": ("127.0.0.1", port)})
        assert request(address, "GET", "/ping")[1]["model_version"] == "9"
        status, answer, _ = request(address, "POST", "/invocations", {"inputs": [{"group": "a"}]})
        assert status == 200
        assert 0 < answer["predictions"][0] < 0.5
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 143
    assert json.loads(out)["event"] == "prediction"


@pytest.mark.parametrize("port", ["http", "70000", "-1"])
def test_a_wrong_port_is_named(prepare, monkeypatch, port):
    paths = prepare()
    assert execute(Tiny, "train", paths) == 0
    monkeypatch.setenv("MLOPS_PORT", port)
    assert execute(Tiny, "serve", paths) == 10
    assert "MLOPS_PORT: expected a port number" in paths.failure.read_text()
