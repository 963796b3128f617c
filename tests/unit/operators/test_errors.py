"""What leaves an operator: final where another try would raise it again, bounded, and without secrets."""

from __future__ import annotations

import io
import json
import threading
import traceback
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    ErrorType,
)
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_mlops.exceptions import DataError, StoreUnavailableError
from airflow_mlops.hooks.connections.masking import hide_texts
from airflow_mlops.operators import errors
from airflow_mlops.operators.errors import MESSAGE_LIMIT, MLOpsTask, airflow_errors
from tests.fixtures.deadlines import SOON


def duckdb_error(sql):
    import duckdb

    try:
        duckdb.sql(sql).fetchall()
    except duckdb.Error as error:
        return error
    raise AssertionError(sql)


def year_one():
    try:
        datetime(1, 1, 1, tzinfo=UTC) - timedelta(days=30)
    except OverflowError as error:
        return error
    raise AssertionError


FINAL = {
    "RecursionError": RecursionError("maximum recursion depth exceeded"),
    "MemoryError": MemoryError(),
    "OverflowError": year_one(),
    "ValueError": ValueError("year 0 is out of range"),
    "KeyError": KeyError("x"),
    "UnicodeDecodeError": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    "DataError": DataError("wrong"),
    "ConversionException": duckdb_error("SELECT 'a'::INTEGER"),
    "BinderException": duckdb_error("SELECT nothing"),
}
PASSING = {
    "StoreUnavailableError": StoreUnavailableError("away"),
    "ConnectionError": ConnectionError("away"),
    "TimeoutError": TimeoutError("away"),
    "RuntimeError": RuntimeError("who knows"),
    "IOException": duckdb_error("SELECT * FROM read_parquet('/nowhere.parquet')"),
}


@pytest.mark.parametrize("kind", FINAL)
def test_what_comes_again_is_final_with_a_cure(kind):
    with pytest.raises(AirflowFailException, match=kind) as caught, airflow_errors():
        raise FINAL[kind]
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Traceback (most recent call last)") == 1
    assert "raise FINAL[kind]" in shown
    assert isinstance(FINAL[kind], DataError) or "Cure: " in str(caught.value)


@pytest.mark.parametrize("kind", PASSING)
def test_what_may_pass_is_tried_again(kind):
    with pytest.raises(Exception) as caught, airflow_errors():
        raise PASSING[kind]
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    "error", [ValueError("x" * 20_000_000), OSError("x" * 20_000_000), DataError("x" * 20_000_000)]
)
def test_a_long_message_is_bounded_with_all_that_led_to_it(error):
    with pytest.raises(Exception) as caught, airflow_errors():
        raise error from KeyError("y" * 20_000_000)
    each = caught.value
    while each is not None:
        assert len(str(each)) < 3 * MESSAGE_LIMIT
        assert "more characters" in str(each)
        each = each.__cause__


def test_an_error_whose_words_are_its_own_is_not_printed_beside_its_short_form():
    class Loud(Exception):  # noqa: N818
        def __str__(self):
            return "x" * 1_000_000

    with pytest.raises(AirflowException) as caught, airflow_errors():
        raise Loud
    assert len(str(caught.value)) < 2 * MESSAGE_LIMIT
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_airflows_own_words_pass():
    for error in (AirflowSkipException("nothing new"), AirflowFailException("no"), AirflowException("maybe")):
        with pytest.raises(type(error)) as caught, airflow_errors():
            raise error
        assert caught.value is error


def test_a_message_has_no_secret():
    hide_texts(['kEy-of\n-the "house" 17'])
    with pytest.raises(AirflowFailException) as caught, airflow_errors():
        raise DataError(json.dumps({"got": 'kEy-of\n-the "house" 17'}))
    assert "house" not in str(caught.value)
    assert "***" in str(caught.value)


@pytest.mark.parametrize("again", [False, True])
def test_whatever_leaves_an_operator_went_through_the_door(again):
    class Wrong(MLOpsTask):
        def execute(self, context):
            raise RecursionError

        def wake(self, context):
            raise RecursionError

    class Wronger(Wrong):
        def execute(self, context):
            return super().execute(context)

    operator = Wronger(task_id="wrong")
    with pytest.raises(AirflowFailException, match="nested too deeply") as caught:
        operator.resume_execution("wake", {}, {}) if again else operator.execute({})
    assert "RecursionError" in str(caught.value)


def test_every_operator_uses_the_door():
    import importlib
    import pkgutil

    from airflow.sdk import BaseOperator

    import airflow_mlops.operators as package

    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    assert f"{package.__name__}.training.train" in names
    for name in names:
        found = vars(importlib.import_module(name))
        for one in found.values():
            if (
                isinstance(one, type)
                and issubclass(one, BaseOperator)
                and one.__module__.startswith(package.__name__)
            ):
                assert issubclass(one, errors.MLOpsTask), one


class TestMissingConnection:
    """Of a provider's hook, which knows no errors of ours."""

    def say(self, monkeypatch, error):
        class Supervisor:
            def send(self, msg):
                return ErrorResponse(error=error)

        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(), raising=False)
        with pytest.raises(AirflowException) as caught, airflow_errors():
            BaseHook.get_connection("warehouse")
        return caught.value

    def test_that_airflow_has_not_is_final_with_the_cure(self, monkeypatch):
        error = self.say(monkeypatch, ErrorType.CONNECTION_NOT_FOUND)
        assert isinstance(error, AirflowFailException)
        assert "There is no Airflow connection 'warehouse'. Cure: create one" in str(error)

    def test_is_asked_for_again_while_the_api_server_is_away(self, monkeypatch):
        error = self.say(monkeypatch, ErrorType.API_SERVER_ERROR)
        assert not isinstance(error, AirflowFailException)
        assert "does not say what its connection 'warehouse' is" in str(error)


def ask_the_vendor(kind):
    said = "There is no column x. Cure: name another one."
    try:
        {}["column"]
    except KeyError as error:
        raise kind(said) from error


@pytest.mark.parametrize(
    ("kind", "shown"), [(DataError, AirflowFailException), (StoreUnavailableError, AirflowException)]
)
def test_one_traceback_from_where_it_began(kind, shown):
    with pytest.raises(shown) as caught, airflow_errors():
        ask_the_vendor(kind)
    text = "".join(traceback.format_exception(caught.value))
    assert text.count("Traceback (most recent call last)") == 1
    assert text.count("There is no column x.") == 1
    assert "in ask_the_vendor" in text


class Gateway(BaseHTTPRequestHandler):
    """Answers with a page, as the gateway before a server that is away."""

    def do_POST(self):
        page = b"<html>502 Bad Gateway</html>"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(SOON)


def by_requests(url):
    import requests

    requests.get(url, timeout=SOON).json()


def by_urllib3(url):
    import urllib3

    urllib3.PoolManager().request("GET", url).json()


def by_httpx(url):
    import httpx

    httpx.get(url, timeout=SOON).json()


@pytest.mark.parametrize("ask", [by_requests, by_urllib3, by_httpx])
def test_the_page_of_a_gateway_may_be_another_one_next_time(gateway, ask):
    with pytest.raises(Exception) as caught, airflow_errors():
        ask(gateway)
    assert not isinstance(caught.value, AirflowFailException)


def test_a_broken_chunk_may_come_whole_next_time():
    from urllib3.exceptions import ResponseNotChunked

    assert issubclass(ResponseNotChunked, ValueError)
    import urllib3

    with pytest.raises(ResponseNotChunked), airflow_errors():
        list(urllib3.HTTPResponse(io.BytesIO(b"x"), preload_content=False).read_chunked())


def test_what_we_ask_wrongly_of_a_client_is_final():
    import boto3

    with pytest.raises(AirflowFailException, match="region"), airflow_errors():
        boto3.client("s3", region_name="not a region!")
    with pytest.raises(AirflowFailException), airflow_errors():
        json.loads("<html>")  # of our own, and not of a client
