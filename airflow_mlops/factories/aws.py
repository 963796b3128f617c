"""Runners of AWS, as an application's YAML describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_mlops.spec.training.training import Training

_GIB = 1024**3


def aws_batch_runner(training: Training) -> dict[str, Any]:
    """Kind and options of the runner for ``run_on: aws_batch``."""
    options = training.aws_batch
    return {
        "kind": "aws_batch",
        "queue": options.queue,
        "staging": options.staging,
        "aws_conn_id": options.connection,
        "region": options.region,
        "job_role": options.job_role,
        "execution_role": options.execution_role,
        "time_limit": training.timeout.total_seconds(),
    }


def sagemaker_runner(training: Training) -> dict[str, Any]:
    """Kind and options of the runner for ``run_on: sagemaker``."""
    options = training.sagemaker
    return {
        "kind": "sagemaker",
        "role": options.role,
        "instance_type": options.instance_type,
        "staging": options.staging,
        "aws_conn_id": options.connection,
        "region": options.region,
        "volume_gb": -(-options.volume // _GIB),
        "subnets": list(options.subnets),
        "security_groups": list(options.security_groups),
        "spot": options.spot,
        "isolated": options.isolated,
        "time_limit": training.timeout.total_seconds(),
    }
