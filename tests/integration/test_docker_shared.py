"""Data that the trials of a tuning share, where one of several nodes is away."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from airflow_mlops.exceptions import EngineUnavailableError, RunnerError
from airflow_mlops.runners import get_runner
from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.jobs import Heard, tiny_job

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("tiny_image", "no_leftovers")]

NAME = "mlops-test-shared-0123456789ab"


@pytest.fixture
def nodes(monkeypatch):
    extras = {"away": '{"engine": "tcp://127.0.0.1:9"}', "here": "{}"}
    for name, extra in extras.items():
        connection = f'{{"conn_type": "docker", "extra": {extra}}}'
        monkeypatch.setenv(f"AIRFLOW_CONN_NODE_{name.upper()}", connection)
    return lambda *names: get_runner("docker_nodes", nodes=[f"node_{name}" for name in names])


def test_trials_run_where_their_data_could_be_brought(nodes, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/rows").write_bytes(b"rows")
    runner, shared = nodes("away", "here"), tiny_job(f"{NAME}-data", tmp_path / "in")
    trial = replace(tiny_job(NAME), shared=shared.name)

    runner.stage(shared)
    state = runner.submit(trial)
    with pytest.raises(EngineUnavailableError, match="does not answer"):
        nodes("away").stage(shared)

    assert state.node == "node_here"
    here = nodes("here")
    assert here.wait(NAME, Heard(), deadline=time.time() + DEADLINE).exit_code == 0
    here.collect(NAME, ("model",), tmp_path)
    assert (tmp_path / "model/weights").read_bytes() == b"rows"
    for name in (NAME, shared.name):
        here.cleanup(name)
    with pytest.raises(
        RunnerError, match=f"shares data of {shared.name}, which is not on node_here"
    ) as error:
        here.submit(trial)
    assert not error.value.retriable
    with pytest.raises(EngineUnavailableError, match="does not answer"):
        runner.submit(trial)  # the node that is away may have it
