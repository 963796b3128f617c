"""What the engine is told, and what its answers mean; no engine needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.hooks.docker.address import LOCAL_ENGINE, EngineAddress
from airflow_mlops.hooks.docker.hook import DockerEngineHook, EngineImage
from airflow_mlops.runners import get_runner
from airflow_mlops.runners.docker.config import container_config
from airflow_mlops.runners.docker.runner import job_state
from airflow_mlops.runners.protocol import ContainerJob, JobState

IMAGE = EngineImage("sha256:" + "1" * 64, "registry/model@sha256:" + "2" * 64, {})


def info(status, **state):
    usual = {
        "ExitCode": 0,
        "OOMKilled": False,
        "StartedAt": "0001-01-01T00:00:00Z",
        "FinishedAt": "then",
        "Error": "",
    }
    return {"State": {"Status": status, **usual, **state}, "Config": {"Labels": {}}, "Image": "sha256:abc"}


def test_the_container_runs_exactly_the_image_that_was_resolved():
    job = ContainerJob(name="job", command="train", image="model:1", labels={"dag_id": "a__training"})

    config = container_config(job, IMAGE)

    assert config["Image"] == IMAGE.id
    assert config["Labels"]["ai.airflow-mlops.image"] == "model:1"
    assert config["Labels"]["ai.airflow-mlops.image-digest"] == IMAGE.digest
    assert config["Labels"]["ai.airflow-mlops.dag_id"] == "a__training"
    assert (config["User"], config["HostConfig"]["NetworkMode"]) == ("1000:1000", "none")
    assert (config["StopSignal"], config["Healthcheck"]) == ("SIGTERM", {"Test": ["NONE"]})


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (None, JobState("gone")),
        (info("created"), JobState("created", image_digest="sha256:abc")),
        (info("removing"), JobState("gone", image_digest="sha256:abc")),
        (info("paused", StartedAt="now"), JobState("running", started_at="now", image_digest="sha256:abc")),
        (
            info("exited", ExitCode=137, OOMKilled=True, StartedAt="now"),
            JobState("exited", 137, True, "now", "then", "", "sha256:abc"),
        ),
        (
            info("created", ExitCode=127, Error="no such program"),
            JobState("exited", 127, False, None, "then", "no such program", "sha256:abc"),
        ),
    ],
)
def test_states_of_the_engine_are_states_of_the_job(found, state):
    assert job_state(found) == state


def test_the_connection_says_registry_and_engine(monkeypatch):
    extra = '{"engine": "tcp://10.0.0.5:2376", "tls_ca": "ca", "tls_cert": "cert", "tls_key": "key"}'
    monkeypatch.setenv(
        "AIRFLOW_CONN_FARM",
        '{"conn_type": "docker", "host": "reg.example.com", "port": 5000, "login": "me", "password": "hidden", '
        f'"extra": {extra}}}',
    )

    address = DockerEngineHook("farm").address

    assert address.url == "tcp://10.0.0.5:2376"
    assert (address.tls.ca, address.tls.certificate, address.tls.key) == ("ca", "cert", "key")
    assert (address.registry.address, address.registry.password) == ("reg.example.com:5000", "hidden")
    assert "hidden" not in repr(address)


def test_half_of_the_tls_files_are_an_error(monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_FARM", '{"conn_type": "docker", "extra": {"engine": "tcp://e:1", "tls_ca": "ca"}}'
    )

    with pytest.raises(RunnerError, match=r"farm: TLS needs all of"):
        _ = DockerEngineHook("farm").address


def test_without_a_connection_it_is_the_environments_engine(monkeypatch):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert DockerEngineHook(None).address == EngineAddress(LOCAL_ENGINE)

    monkeypatch.setenv("DOCKER_HOST", "tcp://engine:2375")
    assert DockerEngineHook(None).address == EngineAddress("tcp://engine:2375")

    monkeypatch.setenv("DOCKER_HOST", "ftp://engine")
    with pytest.raises(RunnerError, match="must begin with one of"):
        _ = DockerEngineHook(None).address


@pytest.mark.parametrize(("kind", "words"), [("dokcer", "Known: docker, process"), ("process", "root")])
def test_a_wrong_runner_is_named(kind, words):
    with pytest.raises(RunnerError, match=words):
        get_runner(kind)


def test_the_trigger_imports_nothing_of_docker():
    code = (
        "import sys, airflow_mlops.triggers.job, airflow_mlops.runners.docker.runner\n"
        "print(sorted({'docker', 'aiodocker', 'aiohttp', 'requests', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
