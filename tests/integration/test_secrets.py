"""What the model code is told in confidence: it can read it, and nobody else finds it anywhere."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import time
from dataclasses import replace
from typing import ClassVar

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_mlops.contract.model_code.job import Job
from airflow_mlops.contract.protocol.paths import Paths
from airflow_mlops.exceptions import RunnerError
from airflow_mlops.operators.model_code import ModelCodeOperator
from airflow_mlops.runners import get_runner
from airflow_mlops.runners.docker.runner import DockerRunner
from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.jobs import TINY, Heard, eventually, tiny_job
from tests.fixtures.tasks import context

PASSWORD = 'vErY-"c0nfidential"-71/x'
TOKEN = "tOkEn-of-the-warehouse-72"
LINES = ("-----BEGIN KEY-----", "MIIEvQIBADANBg+kqhkiG9w0BAQ/FAASCBK", 'Bücher "und" C:\\Schlüssel')
CONTENT = {
    "conn_type": "postgres",
    "host": "warehouse.example.com",
    "port": 5432,
    "schema": "features",
    "login": "reader",
    "password": PASSWORD,
    "extra": {
        "token": TOKEN,
        "nested": [{"sslmode": "require"}],
        "keyfile": json.dumps({"private_key": "\n".join(LINES)}),
    },
}
#: As they stand in plain text, and in JSON.
FORMS = (PASSWORD, json.dumps(PASSWORD)[1:-1], TOKEN, *LINES, json.dumps(json.dumps(LINES[-1])[1:-1])[1:-1])


@pytest.fixture(autouse=True)
def _connection(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE_READER", json.dumps(CONTENT))


def job(name, **parameters):
    return replace(
        tiny_job(name, do="secret", seconds="0", code="0", **parameters),
        secrets={"warehouse": "warehouse_reader"},
    )


def read_by_model(lines):
    """What the tiny model printed: the file with its permissions, and its content."""
    begin = next(number for number, line in enumerate(lines) if line == "{")
    return next(line for line in lines if "warehouse.json" in line), json.loads("\n".join(lines[begin:]))


def found(text):
    return [form for form in FORMS if form in text]


@pytest.mark.docker
@pytest.mark.usefixtures("tiny_image", "no_leftovers")
class TestContainer:
    name = "mlops-test-secrets"

    def test_only_the_model_reads_it_and_the_engine_does_not_show_it(self, docker_engine):
        runner, heard = DockerRunner(None), Heard()
        runner.submit(job(self.name))
        assert runner.wait(self.name, heard).exit_code == 0

        listed, content = read_by_model(heard.texts)
        assert content == CONTENT
        assert listed.split()[:4] == ["-r--------", "1", "1000", "1000"]
        shown = docker_engine("inspect", self.name) + docker_engine("ps", "-a", "--no-trunc")
        assert "warehouse" not in shown
        assert found(shown) == []
        runner.cleanup(self.name)

    def test_a_connection_that_is_not_there_leaves_no_container(self, docker_engine):
        wrong = replace(job(self.name), secrets={"warehouse": "no_such_connection"})
        with pytest.raises(
            RunnerError, match=r"no Airflow connection 'no_such_connection' for the secret 'warehouse'.*Cure"
        ):
            DockerRunner(None).submit(wrong)
        assert docker_engine.containers(self.name) == []

    def test_a_file_of_the_archive_is_hidden_by_a_tmpfs(self, docker_engine):
        """Why the file lies in the container's own layer: what is put into a tmpfs before the start is not there."""
        docker_engine("create", "--name", self.name, "--tmpfs", "/run/secrets", "--entrypoint", "ls",
                      "--label", f"ai.airflow-mlops.name={self.name}", "airflow-mlops-test-tiny:1", "/run/secrets")  # fmt: skip
        tar = "mkdir -p run/secrets && echo x >run/secrets/x && tar c run | docker cp - " + self.name + ":/"
        subprocess.run(["sh", "-c", f"cd $(mktemp -d) && {tar}"], check=True)
        assert docker_engine("start", "--attach", self.name) == ""
        docker_engine("rm", self.name)


class TestProcess:
    def test_only_the_workers_user_reads_it(self, tmp_path):
        runner, heard = get_runner("process", root=str(tmp_path / "jobs")), Heard()
        runner.submit(job("job"))
        state = runner.wait("job", heard, deadline=time.time() + DEADLINE)
        file = tmp_path / "jobs/job/ml/input/secrets/warehouse.json"
        try:
            assert state.exit_code == 0
            assert read_by_model(heard.texts)[1] == CONTENT
            assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]
            assert found((tmp_path / "jobs/job/job.json").read_text()) == []
            # As model code of this package reads it.
            job_of_model = Job("train", Paths(tmp_path / "jobs/job/ml"), {})
            assert job_of_model.secret("warehouse") == CONTENT
        finally:
            runner.cleanup("job")
        assert not file.exists()


class SecretOperator(ModelCodeOperator):
    """Hands a secret to the tiny model on a worker's own machine."""

    command: ClassVar[str] = "train"

    def inputs(self, context, scratch):
        return {}

    def config(self, context):
        return {"parameters": {"do": "secret", "seconds": "1", "code": "10"}}


def told(folder, **kwargs):
    return SecretOperator(
        task_id="train",
        application="tiny",
        store=str(folder / "store"),
        code={"entrypoint": ["sh", "entry.sh"], "directory": str(TINY)},
        runner={"kind": "process", "root": str(folder / "jobs")},
        secrets={"warehouse": "warehouse_reader"},
        **kwargs,
    )


def test_what_airflow_stores_and_prints_of_a_task_has_only_the_connections_name(tmp_path, capsys):
    operator = told(tmp_path)
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(context())
    try:
        stored = json.dumps([caught.value.trigger.serialize(), caught.value.kwargs])
        assert "warehouse_reader" in stored
        assert found(stored) == []
        event = asyncio.run(anext(caught.value.trigger.run())).payload
        assert found(json.dumps(event)) == []
        # The error quotes what the model wrote of its failure, and goes to MLflow and to whoever is told of it.
        with pytest.raises(AirflowFailException, match=r'It says: \{\s+"conn_type": "postgres"') as failed:
            operator.complete(context(), event, **caught.value.kwargs)
        assert found(str(failed.value)) == []
        # Without Airflow's masking: an executor repeats a task's log on its own output as it is.
        with pytest.raises(AirflowFailException):
            told(tmp_path, deferrable=False).execute(context(run_id="manual__2"))
        printed = capsys.readouterr().out
        assert printed.count('"password": "***"') >= 2
        assert found(printed) == []
    finally:
        eventually(lambda: operator._runner().inspect(caught.value.trigger.name).status != "running")
        operator._runner().cleanup(caught.value.trigger.name)
