"""``training.aws_batch:``: which queue of AWS Batch runs model code."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from airflow_mlops.spec.places.aws_values import STAGING, Arn, Region
from airflow_mlops.spec.places.place import CountedGpus, Gpus, Place
from airflow_mlops.spec.store import StoreUri
from airflow_mlops.spec.values import ConnectionId

QueueName = Annotated[
    str, StringConstraints(strict=True, pattern=r"^([A-Za-z0-9][A-Za-z0-9_\-]{0,127}|arn:aws[^\s]*)$")
]


class AwsBatchOptions(Place):
    """How to reach a queue of AWS Batch."""

    about: ClassVar[str] = "For run_on: aws_batch."
    needs: ClassVar[Mapping[str, str]] = {"queue": "queue: my-queue"}
    gpus: ClassVar[Gpus] = CountedGpus
    machines: ClassVar[bool] = True
    keeps_secrets: ClassVar[bool] = False
    staged: ClassVar[bool] = True

    connection: ConnectionId = Field(default="aws_default", description="Airflow connection of type aws.")
    region: Region | None = Field(default=None, description="Region. Default: the connection's.")
    queue: QueueName | None = Field(default=None, description="Job queue, by name or ARN; needed.")
    job_role: Arn | None = Field(default=None, description="IAM role that the model code has; null: none.")
    execution_role: Arn | None = Field(
        default=None,
        description="IAM role with which ECS pulls the image and writes logs; null: the instance's.",
    )
    staging: StoreUri | None = Field(default=None, description=STAGING)

    def runner(self, jobs: str, time_limit: timedelta) -> dict[str, Any]:  # noqa: ARG002
        """See :meth:`.Place.runner`."""
        return {
            "kind": "aws_batch",
            "queue": self.queue,
            "staging": self.staging,
            "aws_conn_id": self.connection,
            "region": self.region,
            "job_role": self.job_role,
            "execution_role": self.execution_role,
            "time_limit": time_limit.total_seconds(),
        }
