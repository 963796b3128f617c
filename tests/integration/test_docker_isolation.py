"""How far a job gets: its limits as it feels them, not as they are written down."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.runners.docker.runner import DockerRunner
from airflow_mlops.runners.files import disk
from airflow_mlops.runners.protocol import Resources
from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.jobs import Heard, tiny_job

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("tiny_image", "no_leftovers")]


def test_a_job_is_held_within_its_limits(docker_engine):
    limits = Resources(cpus=0.5, memory=256 * 1024**2, shm=32 * 1024**2, pids=40)
    runner, heard = DockerRunner(None), Heard()
    job = replace(tiny_job("mlops-test-limits", do="limits"), resources=limits)
    try:
        runner.submit(job)
        runner.wait(job.name, heard, deadline=time.time() + DEADLINE)
    finally:
        runner.cleanup(job.name)

    felt = dict(line.partition(": ")[::2] for line in heard.texts if ": " in line)
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(felt[capabilities], 16) == 0, capabilities
    assert (felt["NoNewPrivs"], felt["Seccomp"]) == ("1", "2")
    assert felt["interfaces"].split() == ["lo"]
    assert felt["cpu"] in ("50000", "50000 100000")
    assert int(felt["shared memory"]) == 32 * 1024**2
    assert int(felt["processes"]) <= 40
    assert "the image's files are another's" in heard.texts


@pytest.mark.parametrize("network", ["host", "container:other"])
def test_the_network_of_somebody_else_is_refused(docker_engine, network):
    job = replace(tiny_job("mlops-test-network"), network=network)

    with pytest.raises(RunnerError, match=r"of another container\. Cure: none, bridge"):
        DockerRunner(None).submit(job)
    assert docker_engine.containers(job.name) == []


def test_a_job_that_fills_the_engines_disk_is_killed(docker_engine, monkeypatch):
    monkeypatch.setattr(disk, "LOOK_EVERY", 0.5)
    runner = DockerRunner(None)
    job = replace(tiny_job("mlops-test-disk", do="fill"), resources=Resources(disk=30 * 1024**2))
    try:
        runner.submit(job)
        runner.wait(job.name, Heard(), deadline=time.time() + DEADLINE)
        state = runner.inspect(job.name)
        assert (state.status, state.exit_code, state.cause) == ("exited", 137, "over_disk")
        assert "30 MiB may. Cure" in state.error
    finally:
        runner.cleanup(job.name)


def test_what_lies_in_a_volume_counts_as_written(docker_engine):
    name = "mlops-test-volume"
    fill = "head -c 5m /dev/zero >/layer; head -c 7m /dev/zero >/volume/file"
    try:
        docker_engine(
            "run",
            "--name",
            name,
            "--volume",
            "/volume",
            "--entrypoint",
            "sh",
            "airflow-mlops-test-tiny:1",
            "-c",
            fill,
        )
        assert 12 * 1024**2 <= DockerRunner(None).hook.written(name) < 14 * 1024**2
    finally:
        docker_engine("rm", "--force", "--volumes", name)
