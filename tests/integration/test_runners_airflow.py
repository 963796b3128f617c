"""Jobs of Kubernetes and AWS Batch as deferred tasks of a real Airflow: its triggerer waits for them, and ends them."""

from __future__ import annotations

import json

import pytest

from airflow_mlops.runners import get_runner

pytestmark = [pytest.mark.docker, pytest.mark.airflow]

DAG = """
from airflow.sdk import DAG
from airflow_mlops.operators.model_code import ModelCodeOperator


class CarriedOperator(ModelCodeOperator):
    command = "train"

    def __init__(self, *, parameters, **kwargs):
        super().__init__(**kwargs)
        self.parameters = parameters

    def inputs(self, context, scratch):
        return {{}}

    def config(self, context):
        return {{"parameters": self.parameters}}

    def take_over(self, context, output, state):
        return sorted(path.name for path in output.glob("output/*"))


with DAG("elsewhere", schedule=None, is_paused_upon_creation=False):
    for kind, runner in {runners}.items():
        given = dict(application="elsewhere", store={store!r}, code={{"image": {image!r}}}, runner=runner)
        CarriedOperator(task_id=f"{{kind}}_learns", parameters={{"do": "learn"}}, **given)
        CarriedOperator(task_id=f"{{kind}}_sleeps", parameters={{"do": "sleep", "seconds": "600"}}, **given)
"""


def connect(airflow, name, connection):
    """Give Airflow a connection, said as an environment variable would say it."""
    said = json.loads(connection)
    airflow.client.call(
        "POST", "/connections", {**said, "connection_id": name, "extra": json.dumps(said["extra"])}
    )


def running(runner, task_id):
    """Whether a task's job runs in its place."""
    place = get_runner(**runner)
    names = [job.name for job in place.jobs() if job.labels["task_id"] == task_id]
    return any(place.inspect(name).status == "running" for name in names)


def test_their_deferred_tasks_end_well_and_by_hand(
    airflow, kubernetes, cloud, job_queue, s3_server, s3_bucket, carried_image, monkeypatch, tmp_path
):
    client, staging = airflow.client, f"s3://carrier@{s3_bucket}/staging"
    runners = {
        "kubernetes": {"kind": "kubernetes", "kubernetes_conn_id": "cluster", "staging": staging},
        "batch": {
            "kind": "aws_batch",
            "queue": job_queue,
            "staging": staging,
            "aws_conn_id": "cloud",
            "time_limit": 600,
        },
    }
    connections = {
        "cluster": kubernetes.connection(),
        "cloud": cloud.connection_json,
        "carrier": s3_server.connection_json,
    }
    for name, connection in connections.items():
        connect(airflow, name, connection)
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", connection)
    file = airflow.settings.dags / "elsewhere_airflow.py"
    file.write_text(DAG.format(runners=runners, store=str(tmp_path / "store"), image=carried_image))
    try:
        airflow.until("the DAG", lambda: "elsewhere" in airflow.dag_ids())
        run = client.trigger("elsewhere", {})

        logs = airflow.settings.home / f"logs/dag_id=elsewhere/run_id={run}"

        def in_triggerer(task_id):
            return list((logs / f"task_id={task_id}").rglob("*.trigger.*"))

        for kind, runner in runners.items():
            sleeps = f"{kind}_sleeps"
            airflow.until(f"{sleeps} in the triggerer", lambda task=sleeps: in_triggerer(task))
            assert airflow.task("elsewhere", run, sleeps)["state"] == "deferred"
            airflow.until(f"job of {sleeps}", lambda task=sleeps, place=runner: running(place, task))
            path = f"/dags/elsewhere/dagRuns/{run}/taskInstances/{sleeps}"
            client.call("PATCH", path, {"new_state": "failed"})
        assert airflow.finish("elsewhere", run) == "failed"

        for kind, runner in runners.items():
            learns = f"{kind}_learns"
            assert airflow.task("elsewhere", run, learns)["state"] == "success"
            assert client.xcom("elsewhere", run, learns) == ["metrics.json"]
            assert in_triggerer(learns)
            assert "tiny train begins" in airflow.log("elsewhere", run, learns)
            airflow.until(f"no job of {kind}", lambda place=runner: not get_runner(**place).jobs())
    finally:
        file.unlink()
