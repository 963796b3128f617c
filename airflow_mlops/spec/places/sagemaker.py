"""``training.sagemaker:``: which machines of Amazon SageMaker run model code."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from airflow_mlops.spec.places.aws_values import STAGING, Arn, AwsIds, Region
from airflow_mlops.spec.places.place import CountedGpus, Gpus, Place
from airflow_mlops.spec.store import StoreUri
from airflow_mlops.spec.values import ConnectionId, Flag, Size, size

_GIB = 1024**3
InstanceType = Annotated[str, StringConstraints(strict=True, pattern=r"^ml\.[a-z0-9\-]+\.[a-z0-9\-]+$")]


class SageMakerOptions(Place):
    """How to run training jobs of Amazon SageMaker."""

    about: ClassVar[str] = "For run_on: sagemaker."
    needs: ClassVar[Mapping[str, str]] = {"role": "role: arn:aws:iam::123456789012:role/training"}
    gpus: ClassVar[Gpus] = CountedGpus
    machines: ClassVar[bool] = True
    keeps_secrets: ClassVar[bool] = False
    staged: ClassVar[bool] = True

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
    staging: StoreUri | None = Field(default=None, description=STAGING)

    def runner(self, jobs: str, time_limit: timedelta) -> dict[str, Any]:  # noqa: ARG002
        """See :meth:`.Place.runner`."""
        return {
            "kind": "sagemaker",
            "role": self.role,
            "instance_type": self.instance_type,
            "staging": self.staging,
            "aws_conn_id": self.connection,
            "region": self.region,
            "volume_gb": -(-self.volume // _GIB),
            "subnets": list(self.subnets),
            "security_groups": list(self.security_groups),
            "spot": self.spot,
            "isolated": self.isolated,
            "time_limit": time_limit.total_seconds(),
        }
