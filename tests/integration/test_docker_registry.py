"""Images out of a real registry that wants a login, onto a real engine."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import pytest

from airflow_mlops.exceptions import ContractError, ImageNotFoundError
from airflow_mlops.hooks.docker.hook import DockerEngineHook
from airflow_mlops.operators.training.train import DescribeModelCodeOperator
from airflow_mlops.primitives.training.outcome import classify
from airflow_mlops.runners.docker.runner import DockerRunner
from tests.fixtures.jobs import Heard, tiny_job
from tests.fixtures.tasks import context

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("tiny_image", "no_leftovers")]


@pytest.fixture
def image(registry, docker_engine, monkeypatch):
    """The tiny model in the registry and nowhere else; the connection ``docker_registry`` logs in there."""
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_REGISTRY", registry.connection())
    digest = registry.push(docker_engine, "airflow-mlops-test-tiny:1", "team/tiny:1")
    forget(docker_engine, registry)
    yield digest
    forget(docker_engine, registry)


def forget(engine, registry):
    """Let the engine know nothing of the registry's images."""
    names = engine("images", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}").splitlines()
    for repository, tag, digest in map(str.split, names):
        if repository.startswith(registry.address):
            engine(
                "rmi", "--no-prune", f"{repository}:{tag}" if tag != "<none>" else f"{repository}@{digest}"
            )


def test_a_private_image_is_pulled_with_the_connections_login(image, registry, docker_engine):
    found = DockerEngineHook("docker_registry").model_code_image(f"{registry.address}/team/tiny:1")

    assert found.digest == image
    assert found.id == docker_engine("image", "inspect", "--format", "{{.Id}}", "airflow-mlops-test-tiny:1")
    forget(docker_engine, registry)
    assert DockerEngineHook("docker_registry").image(image).id == found.id


def test_a_run_keeps_the_digest_that_it_began_with(image, registry, docker_engine, tmp_path, base_image):
    """Somebody pushes other code under the same tag between two tasks of one run."""
    tag = f"{registry.address}/team/tiny:1"
    operator = DescribeModelCodeOperator(
        task_id="describe",
        application="tiny",
        store=str(tmp_path),
        code={"image": tag},
        runner={"kind": "docker", "docker_conn_id": "docker_registry"},
        deferrable=False,
    )
    described = operator.execute(context("describe"))
    assert registry.push(docker_engine, base_image, "team/tiny:1") != image

    hook = DockerEngineHook("docker_registry")
    assert described["code"]["image"] == image
    assert hook.image(described["code"]["image"]).digest == image
    runner, job = DockerRunner("docker_registry"), replace(tiny_job("mlops-test-digest"), image=image)
    runner.submit(job)
    assert runner.wait(job.name, Heard()).image_digest == image
    runner.cleanup(job.name)
    with pytest.raises(ContractError, match="has no such label"):
        hook.model_code_image(tag)


@pytest.mark.parametrize(
    ("change", "words", "retriable"),
    [
        ({"password": "wrong"}, r"(unauthorized|no basic auth).*Cure: write host", False),
        ({"host": "elsewhere.example.com"}, r"(unauthorized|no basic auth).*Cure: write host \(127", False),
        ({}, r"(manifest unknown|not found).*Cure: correct the image's name", False),
    ],
)
def test_what_a_registry_refuses_is_said_with_the_cure(
    image, registry, monkeypatch, change, words, retriable
):
    connection = {**json.loads(registry.connection()), **change}
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_REGISTRY", json.dumps(connection))
    name = "team/tiny:1" if change else "team/tiny:2"

    with pytest.raises(ImageNotFoundError, match=words) as caught:
        DockerEngineHook("docker_registry").image(f"{registry.address}/{name}")
    assert caught.value.retriable is retriable
    assert connection["password"] not in str(caught.value)


def test_a_registry_that_is_down_is_tried_again_and_is_not_needed_for_what_runs(
    image, registry, docker_engine
):
    runner = DockerRunner("docker_registry")
    job = replace(tiny_job("mlops-test-registry", do="sleep", seconds="600"), image=image)
    runner.submit(job)
    registry.stop()
    try:
        again = DockerRunner("docker_registry")
        assert again.inspect(job.name).status == "running"
        again.cleanup(job.name)
        forget(docker_engine, registry)
        with pytest.raises(
            ImageNotFoundError, match=r"connection refused.*Cure: start the registry"
        ) as caught:
            again.submit(job)
    finally:
        registry.start()
    assert caught.value.retriable


def test_an_image_that_cannot_begin_says_so(docker_engine, base_image):
    runner, jobs = DockerRunner(None), {}
    for number, entrypoint in enumerate(("[]", '["/nowhere"]')):
        tag = f"airflow-mlops-test-broken:{number}"
        dockerfile = f"FROM {base_image}\nLABEL ai.airflow-mlops.contract=1\nENTRYPOINT {entrypoint}\n"
        subprocess.run(
            ["docker", "build", "--quiet", "--tag", tag, "-"],
            input=dockerfile,
            text=True,
            check=True,
            capture_output=True,
        )
        jobs[number] = replace(tiny_job(f"mlops-test-broken-{number}"), image=tag)
    try:
        with pytest.raises(ContractError, match=r"has no ENTRYPOINT.*Cure: add one"):
            runner.submit(jobs[0])
        runner.submit(jobs[1])
        state = runner.wait(jobs[1].name, Heard())
        assert state.exit_code == 127
        assert "exit code 127. Cure: its last log lines" in classify(state.to_dict(), "").message
        assert "/nowhere" in "".join(line.text for line in runner.logs(jobs[1].name))
    finally:
        for job in jobs.values():
            runner.cleanup(job.name)
            docker_engine("rmi", job.image)
