"""A connection that is not there, and one of which Airflow does not say whether it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from urllib.parse import quote

import pytest
from airflow.sdk._shared.secrets_masker import redact
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_mlops.exceptions import EngineUnavailableError, RunnerError
from airflow_mlops.hooks.connections.find import afind_connection, find_connection
from airflow_mlops.hooks.connections.masking import hide_texts, without_known_secrets
from airflow_mlops.hooks.connections.secrets import (
    mask_secrets,
    mask_secrets_async,
    secret_documents,
    without_secrets,
)
from airflow_mlops.hooks.docker.address import LOCAL_ENGINE
from airflow_mlops.hooks.docker.hook import DockerEngineHook
from airflow_mlops.quirks.connections import is_missing


class Supervisor:
    """What a task asks for connections; it answers as Airflow's own does of one that is not there, or when it is away."""

    def __init__(self, error):
        self.error = error

    def send(self, msg):
        if isinstance(self.error, ErrorType):
            return ErrorResponse(error=self.error)
        raise self.error

    async def asend(self, msg):
        return self.send(msg)


NOT_THERE = ErrorType.CONNECTION_NOT_FOUND
AWAY = [
    ErrorType.API_SERVER_ERROR,
    AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR)),
    ConnectionError("no supervisor"),
]


@pytest.fixture
def answers(monkeypatch):
    monkeypatch.delenv("DOCKER_HOST", raising=False)

    def answers(error):
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(error), raising=False)

    return answers


def addresses(conn_id):
    """As a worker and as a triggerer finds it."""
    yield lambda: DockerEngineHook(conn_id).address
    yield lambda: asyncio.run(DockerEngineHook(conn_id).find_address())


@pytest.mark.parametrize("error", AWAY)
def test_an_engine_with_a_name_is_never_the_local_one(answers, error):
    answers(error)
    for find in addresses("gpu_a"):
        with pytest.raises(
            EngineUnavailableError, match=r"does not say what its connection 'gpu_a' is\. Cure"
        ):
            find()


def test_an_engine_with_a_name_that_is_not_there_is_final(answers):
    answers(NOT_THERE)
    for find in addresses("gpu_a"):
        with pytest.raises(RunnerError, match=r"no Airflow connection 'gpu_a'\. Cure: create one") as caught:
            find()
        assert not caught.value.retriable


def test_the_default_engine_is_the_local_one_only_where_airflow_says_that_it_has_none(answers):
    answers(NOT_THERE)
    assert [find().url for find in addresses("docker_default")] == [LOCAL_ENGINE] * 2
    for error in AWAY:
        answers(error)
        assert not is_missing("docker_default")
        for find in addresses("docker_default"):
            with pytest.raises(EngineUnavailableError, match="does not say what its connection"):
                find()
        assert DockerEngineHook("").address.url == LOCAL_ENGINE


def test_a_secret_that_is_not_there_is_final_and_one_that_cannot_be_asked_for_is_not(answers):
    secrets = {"warehouse": "reader"}
    asks = [secret_documents, mask_secrets, lambda secrets: asyncio.run(mask_secrets_async(secrets))]
    for error, retriable in [(NOT_THERE, False), *((away, True) for away in AWAY)]:
        answers(error)
        for ask in asks:
            with pytest.raises(RunnerError, match=r"'reader' for the secret 'warehouse'.*Cure") as caught:
                ask(secrets)
            assert caught.value.retriable is retriable


def test_where_nobody_knows_what_to_hide_nothing_is_shown(answers, monkeypatch):
    secrets = {"warehouse": "reader"}
    answers(AWAY[0])
    said = without_secrets("my password is hunter22", secrets)
    assert "hunter22" not in said
    assert "left out" in said
    assert without_secrets("", secrets) == ""
    assert without_secrets("nothing to hide", {}) == "nothing to hide"
    monkeypatch.setenv("AIRFLOW_CONN_READER", '{"conn_type": "http", "password": "hunter22"}')
    assert without_secrets("my password is hunter22", secrets) == "my password is ***"


@pytest.mark.parametrize("find", ["task", "triggerer", "engine"])
def test_what_is_secret_in_a_connection_that_a_hook_reads_is_hidden_in_every_spelling(monkeypatch, find):
    password = f'of "{find}" \n with-a-line-break and ümlaut'
    extra = json.dumps({"private_key": f"key-\n-of-the-{find}", "region": f"region-of-{find}"})
    shown = f"https://me:part-of-{find}@tracking.example"
    monkeypatch.setenv(
        "AIRFLOW_CONN_WITH_SECRETS",
        json.dumps({"conn_type": "docker", "host": shown, "password": password, "extra": extra}),
    )
    with contextlib.suppress(RunnerError):  # no engine has such an address
        match find:
            case "task":
                find_connection("with_secrets", RunnerError)
            case "triggerer":
                asyncio.run(afind_connection("with_secrets", RunnerError))
            case "engine":
                _ = DockerEngineHook("with_secrets").address
    said = without_known_secrets(
        [json.dumps(password), repr(password), f"-of-the-{find} in {shown}", f"region-of-{find}"]
    )
    assert said[:2] == ['"*** \\n ***"', "'*** \\n ***'"]
    assert said[2:] == ["*** in https://me:***@tracking.example", f"region-of-{find}"]


def test_logs_show_no_spelling_of_a_long_secret_of_one_line():
    long = "öpen\"ing\\'" + "pässword" * 200
    hide_texts([long])
    for said in (json.dumps(long), repr(long), quote(long)):
        assert len(redact(f"it says {said}")) < 20
