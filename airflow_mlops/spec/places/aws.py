"""``training.aws_batch:`` and ``training.sagemaker:``: where in AWS model code runs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from airflow_mlops.spec.store import StoreUri
from airflow_mlops.spec.values import ConnectionId, Flag, Section, Size, complaint, no_doubles, size

Arn = Annotated[
    str, StringConstraints(strict=True, max_length=2048, pattern=r"^arn:aws[a-z\-]*:[a-z0-9\-]+:[^\s]*$")
]
Region = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")]
QueueName = Annotated[
    str, StringConstraints(strict=True, pattern=r"^([A-Za-z0-9][A-Za-z0-9_\-]{0,127}|arn:aws[^\s]*)$")
]
InstanceType = Annotated[str, StringConstraints(strict=True, pattern=r"^ml\.[a-z0-9\-]+\.[a-z0-9\-]+$")]
AwsId = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z]+-[0-9a-z]+$")]
AwsIds = Annotated[tuple[AwsId, ...], AfterValidator(no_doubles)]

_STAGING = (
    "s3://bucket/prefix through which data goes in and out. Default: the application's store, if it is on S3."
)


class AwsBatchOptions(Section):
    """How to reach a queue of AWS Batch."""

    connection: ConnectionId = Field(default="aws_default", description="Airflow connection of type aws.")
    region: Region | None = Field(default=None, description="Region. Default: the connection's.")
    queue: QueueName | None = Field(default=None, description="Job queue, by name or ARN; needed.")
    job_role: Arn | None = Field(default=None, description="IAM role that the model code has; null: none.")
    execution_role: Arn | None = Field(
        default=None,
        description="IAM role with which ECS pulls the image and writes logs; null: the instance's.",
    )
    staging: StoreUri | None = Field(default=None, description=_STAGING)


class SageMakerOptions(Section):
    """How to run training jobs of Amazon SageMaker."""

    connection: ConnectionId = Field(default="aws_default", description="Airflow connection of type aws.")
    region: Region | None = Field(default=None, description="Region. Default: the connection's.")
    role: Arn | None = Field(
        default=None, description="IAM role of the jobs, which may read and write the staging; needed."
    )
    instance_type: InstanceType = Field(
        default="ml.m5.xlarge", description="Machine: it decides about CPU, memory and GPUs, not resources."
    )
    volume: Size = Field(default=size("30g"), description="Disk of each machine.")
    subnets: AwsIds = Field(default=(), description="Subnets of the VPC that the jobs may reach.")
    security_groups: AwsIds = Field(default=(), description="Security groups in that VPC.")
    isolated: Flag = Field(default=True, description="The model code reaches no network.")
    spot: Flag = Field(default=False, description="Take spare machines, which AWS may take back.")
    staging: StoreUri | None = Field(default=None, description=_STAGING)


#: Where model code may run in AWS, and what must be said of each place.
PLACES = {
    "aws_batch": ("queue", "queue: my-queue"),
    "sagemaker": ("role", "role: arn:aws:iam::123456789012:role/training"),
}


def check_place(run_on: str | None, place: str, options: Section) -> None:
    """Refuse a place that model code shall run in and that lacks what it needs.

    :raises PydanticCustomError: it lacks it.
    """
    key, example = PLACES[place]
    if run_on == place and getattr(options, key) is None:
        raise complaint(f"is needed for run_on: {place}", cure=f"add {example}", at=(key,))


def check_secrets(run_on: str | None, secrets: dict[str, Any]) -> None:
    """Refuse secrets where they would be seen by everybody who may look at a job.

    :raises PydanticCustomError: there are some.
    """
    if secrets and run_on in PLACES:
        raise complaint(
            f"cannot be handed over with run_on: {run_on}",
            expected="nothing: whoever may describe a job of AWS sees all that it was given",
            cure="let the model code read them from AWS Secrets Manager, by its role",
        )


def check_gpus(run_on: str | None, gpus: Any) -> None:
    """Refuse GPUs that are not counted.

    :raises PydanticCustomError: they are named, or all.
    """
    if run_on in PLACES and not isinstance(gpus, int):
        raise complaint(
            f"must be a number with run_on: {run_on}",
            expected="a number; their type comes with the machines",
            cure="write gpus: 1",
            at=("gpus",),
        )
