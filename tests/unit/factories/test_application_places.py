"""Where model code runs changes the runner, and nothing else of an application."""

from __future__ import annotations

import json

import pytest

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories import build_dags
from airflow_mlops.runners import get_runner
from airflow_mlops.spec import load_application
from tests.unit.factories.samples import write

ROLE = "arn:aws:iam::123456789012:role/training"
PLACES = {
    "docker": {},
    "process": {},
    "kubernetes": {},
    "aws_batch": {"queue": "gpus", "job_role": ROLE},
    "sagemaker": {"role": ROLE, "instance_type": "ml.g5.xlarge", "volume": "100g"},
}
CODE = {"image": "tiny:1", "process": {"directory": ".", "command": ["python", "model_code.py"]}}


def tasks(folder, run_on, options):
    """Every task of the application, and what it is made with."""
    path = write(
        folder,
        store="s3://lake/mlops",
        code=CODE,
        delivery=[{"batch": {}}],
        training={"run_on": run_on, "timeout": "3h", **({run_on: options} if options else {})},
    )
    found, runners = {}, []
    for dag in build_dags(load_application(path)).values():
        for task in dag.tasks:
            runner = getattr(task, "runner", None)
            runners += [runner] if runner else []
            given = {
                name: getattr(task, name) for name in task.template_fields if name not in ("runner", "code")
            }
            found[dag.dag_id, task.task_id] = (
                type(task).__name__,
                sorted(task.upstream_task_ids),
                json.dumps(given, default=str, sort_keys=True),
            )
    return found, runners


def test_another_place_is_another_runner_and_nothing_else(tmp_path):
    expected, _ = tasks(tmp_path, "docker", {})
    for run_on, options in PLACES.items():
        found, runners = tasks(tmp_path, run_on, options)
        assert found == expected, run_on
        kinds = {runner["kind"] for runner in runners}
        assert kinds == {run_on}
        if run_on != "kubernetes":  # an extra
            assert all(get_runner(**runner).kind == run_on for runner in runners)


def test_what_the_yaml_says_of_aws_reaches_the_runner(tmp_path):
    _, (batch, *_) = tasks(
        tmp_path, "aws_batch", {**PLACES["aws_batch"], "connection": "cloud", "region": "eu-west-1"}
    )
    assert batch == {
        "kind": "aws_batch", "queue": "gpus", "staging": "s3://lake/mlops", "aws_conn_id": "cloud",
        "region": "eu-west-1", "job_role": ROLE, "execution_role": None, "time_limit": 10800.0,
    }  # fmt: skip
    _, (training, *_) = tasks(
        tmp_path, "sagemaker", {**PLACES["sagemaker"], "staging": "s3://other/x", "spot": True}
    )
    assert training["staging"] == "s3://other/x"
    assert (training["volume_gb"], training["spot"], training["isolated"]) == (100, True, True)


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"run_on": "aws_batch"}, "queue is needed for run_on: aws_batch"),
        ({"run_on": "sagemaker"}, "role is needed for run_on: sagemaker"),
        (
            {"run_on": "aws_batch", "aws_batch": {"queue": "q"}, "resources": {"gpus": "all"}},
            "must be a number",
        ),
        (
            {"run_on": "sagemaker", "sagemaker": {"role": ROLE}, "secrets": {"hub": "hub"}},
            "AWS Secrets Manager",
        ),
        ({"run_on": "aws_batch", "aws_batch": {"queue": "q"}}, "must be on S3"),
        ({"sagemaker": {"instance_type": "g5.xlarge"}}, "instance_type"),
        ({"aws_batch": {"job_role": "training"}}, "job_role"),
    ],
)
def test_what_aws_cannot_do_is_an_error_of_the_file(tmp_path, training, words):
    with pytest.raises(SpecError) as error:
        load_application(write(tmp_path, training=training))
    assert words in str(error.value)
