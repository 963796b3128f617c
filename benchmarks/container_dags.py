"""The tasks that ``containers.py`` compares, by themselves and as DAGs of its Airflow: the same image, the same words."""

from __future__ import annotations

import json
import os

from airflow.sdk import DAG, BaseOperator

IMAGE = "airflow-mlops-bench-talk:1"
#: Label of a container that is not ours: the benchmark's store, and DAG and task in an Airflow.
LABEL = "airflow-mlops-bench"
NOTHING, RUN, PEER = "nothing", "docker_run", "docker_operator"
WAITING, DEFERRED = "ours_on_a_worker", "ours"


class NothingOperator(BaseOperator):
    """What a task costs that does nothing."""

    def execute(self, context):  # noqa: ARG002
        return None


def command_line(words: list[str], label: str) -> list[str]:
    """The plain way, with the network that the others have: none."""
    return ["docker", "run", "--rm", "--network", "none", "--label", f"{LABEL}={label}", IMAGE, *words]


def make(way: str, words: list[str], label: str, store: str, task_id: str) -> BaseOperator:
    """The task of one way, everything that is not needed switched off; a way pays for its own imports only."""
    if way == NOTHING:
        return NothingOperator(task_id=task_id)
    if way == RUN:
        from airflow.providers.standard.operators.bash import BashOperator

        return BashOperator(task_id=task_id, bash_command=" ".join(command_line(words, label)))
    if way == PEER:
        from airflow.providers.docker.operators.docker import DockerOperator

        return DockerOperator(
            task_id=task_id,
            image=IMAGE,
            command=words,
            network_mode="none",
            mount_tmp_dir=False,
            auto_remove="success",
            labels={LABEL: label},
        )
    from container_command import CommandOperator

    code = {"image": IMAGE}
    return CommandOperator(task_id=task_id, words=words, code=code, store=store, deferrable=way == DEFERRED)


def build_dag(way: str, what: str) -> DAG:
    """A DAG of as many tasks as there are containers, none waiting for another."""
    given = json.loads(os.environ["AIRFLOW_MLOPS_BENCH"])
    name, store = f"{way}__{what}", given["store"]
    with DAG(name, schedule=None, max_active_tasks=given["containers"]) as dag:
        for number in range(given["containers"]):
            task_id = f"run_{number}"
            make(way, given["words"][what], f"{store}/{name}/{task_id}", store, task_id)
    return dag
