"""Leases of GPUs on a real engine: nobody shares one, and nobody's death keeps one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from airflow_mlops.exceptions import GpusMissingError, GpusTakenError, RunnerError
from airflow_mlops.hooks.docker.hook import DockerEngineHook
from airflow_mlops.runners.docker.leases import lease_name
from airflow_mlops.runners.docker.runner import DockerRunner
from airflow_mlops.runners.protocol import Resources
from tests.fixtures.jobs import tiny_job

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("tiny_image", "no_leftovers")]


@pytest.fixture
def gpus(monkeypatch, docker_engine):
    """Three GPUs that the connection ``gpu_test`` names; the engine itself has none."""
    made = sorted(f"GPU-{uuid.uuid4()}" for _ in range(3))
    extra = {"gpus": [{"uuid": gpu, "type": "NVIDIA Test"} for gpu in made]}
    monkeypatch.setenv("AIRFLOW_CONN_GPU_TEST", json.dumps({"conn_type": "docker", "extra": extra}))
    yield made
    for gpu in made:
        if docker_engine.containers(lease_name(gpu)):
            docker_engine("rm", "--force", lease_name(gpu))


def runner(patience=30):
    return DockerRunner("gpu_test", adopt_after=patience)


def job(gpus, name=None, **parameters):
    asked = Resources(gpus=gpus)
    return replace(
        tiny_job(name or f"mlops-test-lease-{uuid.uuid4().hex[:12]}", **parameters), resources=asked
    )


def leased(gpus, engine):
    """Which of the GPUs have a lease, by what the engine lists."""
    return [gpu for gpu in gpus if engine.containers(lease_name(gpu))]


@pytest.mark.parametrize("each", [1, 2])
def test_sixteen_who_ask_at_once_share_no_gpu(gpus, docker_engine, each):
    def take(_):
        asking, wanted = runner(), job(each)
        try:
            return asking, wanted.name, asking.leases.take(wanted, asking.hook.model_code_image(wanted.image))
        except GpusTakenError:
            return asking, wanted.name, ()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(take, range(16)))

    given = [gpu for _, _, taken in answers for gpu in taken]
    assert len(given) == len(set(given))
    assert sorted(given) == leased(gpus, docker_engine)
    # All or nothing: two of three go to one, and the third to nobody.
    assert [len(taken) for _, _, taken in answers if taken] == [each] * (3 // each)
    for asking, name, _ in answers:
        asking.leases.release(name)
    assert leased(gpus, docker_engine) == []


def test_who_dies_between_lease_and_create_keeps_nothing(gpus, docker_engine):
    """The container is never created: the next one waits its patience, and takes all GPUs over."""
    code = (
        "import os, signal; from airflow_mlops.runners.docker import runner as docker\n"
        "from tests.integration.test_docker_leases import job, runner\n"
        "docker.DockerRunner._create = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "runner().submit(job(2, 'mlops-test-lease-dead'))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(leased(gpus, docker_engine)) == 2
    other, image = job("all"), DockerEngineHook("gpu_test").model_code_image("airflow-mlops-test-tiny:1")

    with pytest.raises(GpusTakenError, match="mlops-test-lease-dead"):
        runner().leases.take(other, image)
    assert len(leased(gpus, docker_engine)) == 2
    # Its own retry need not wait.
    assert len(runner().leases.take(job(2, "mlops-test-lease-dead"), image)) == 2

    assert runner(patience=0).leases.take(other, image) == tuple(gpus)
    runner().leases.release(other.name)
    assert leased(gpus, docker_engine) == []


def test_an_engine_without_a_driver_is_one_clear_final_error(gpus, docker_engine, monkeypatch):
    """The engine creates the container and refuses to start it: nothing of it stays."""
    asked = job(2)
    requests, create = [], DockerEngineHook.create

    def remember(self, name, config):
        made = create(self, name, config)
        if made and name == asked.name:
            (info,) = json.loads(docker_engine("inspect", name))
            requests.extend(info["HostConfig"]["DeviceRequests"])
        return made

    monkeypatch.setattr(DockerEngineHook, "create", remember)
    with pytest.raises(RunnerError) as caught:
        runner().submit(asked)

    assert [(each["DeviceIDs"], each["Capabilities"]) for each in requests] == [
        (gpus[:2], [["gpu", "compute", "utility"]])
    ]
    assert "could not select device driver" in str(caught.value)
    assert "Cure: install the NVIDIA container toolkit" in str(caught.value)
    assert not caught.value.retriable
    assert docker_engine.containers(asked.name) == leased(gpus, docker_engine) == []


def test_an_engine_that_nobody_knows_gpus_of_is_asked_once_and_clearly(docker_engine):
    asked = job(1)

    with pytest.raises(
        GpusMissingError, match=r"could not select device driver.*Cure: install the NVIDIA"
    ) as caught:
        DockerRunner(docker_conn_id=None).submit(asked)

    assert not caught.value.retriable
    assert docker_engine("ps", "-aq", "--filter", "label=ai.airflow-mlops.probe") == ""


def test_more_than_the_engine_has_never_waits(gpus):
    for asked, words in (
        (4, "asks for 4 GPUs"),
        (["GPU-nowhere"], "GPU-nowhere"),
        ({"type": "H100"}, "H100"),
    ):
        with pytest.raises(GpusMissingError, match=words):
            runner().submit(job(asked))
