"""GPUs, nodes, pool and secrets, from the YAML to the tasks that run model code."""

from __future__ import annotations

import pytest

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories import build_dags
from airflow_mlops.operators.model_code import ModelCodeOperator
from airflow_mlops.spec import load_application
from tests.unit.factories.samples import write


def jobs(tmp_path, **training):
    """The tasks of the training DAG that run model code."""
    dags = build_dags(load_application(write(tmp_path, code={"image": "tiny:1"}, training=training)))
    tasks = dags["tiny__training"].tasks
    return {task.task_id: task for task in tasks if isinstance(task, ModelCodeOperator)}


def test_every_job_has_its_gpus_its_secrets_and_its_place_in_the_pool(tmp_path):
    tasks = jobs(
        tmp_path,
        resources={"gpus": {"type": "H100", "count": 2}},
        secrets={"warehouse": "warehouse_reader"},
        pool="gpus",
        pool_slots=2,
    )
    assert {"describe", "train", "evaluate", "evaluate_champion"} <= tasks.keys()
    for task in tasks.values():
        assert task.limits["gpus"] == {"type": "H100", "count": 2}
        assert task.secrets == {"warehouse": "warehouse_reader"}
        assert (task.pool, task.pool_slots) == ("gpus", 2)
        # Saying what it is needs neither.
        described = task.task_id == "describe"
        assert (task._limits()["gpus"] == 0) is described


@pytest.mark.parametrize(
    ("docker", "runner"),
    [
        ({}, {"kind": "docker", "docker_conn_id": "docker_default"}),
        ({"nodes": ["gpu_a", "gpu_b"]}, {"kind": "docker_nodes", "nodes": ["gpu_a", "gpu_b"]}),
        ({"nodes": ["gpu_a", "gpu_b"], "node": "gpu_b"}, {"kind": "docker", "docker_conn_id": "gpu_b"}),
    ],
)
def test_a_job_runs_on_one_engine_or_on_the_one_of_several_that_has_room(tmp_path, docker, runner):
    tasks = jobs(tmp_path, docker=docker)
    assert [task.runner for task in tasks.values()] == [runner] * len(tasks)
    assert {task.pool for task in tasks.values()} == {"default_pool"}


def test_processes_book_no_gpus(tmp_path):
    process = {"directory": str(tmp_path), "command": ["sh", "entry.sh"]}
    file = write(tmp_path, code={"process": process}, training={"resources": {"gpus": 1}})
    with pytest.raises(
        SpecError, match=r"training\.resources\.gpus.*cannot be kept for one job(.|\n)*docker"
    ):
        load_application(file)
