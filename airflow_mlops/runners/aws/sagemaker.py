"""Jobs as training jobs of Amazon SageMaker: the same image, the same ``/opt/ml``."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.runners.aws.channels import CHECKPOINTS, address, collect_archives, stage_channels
from airflow_mlops.runners.aws.claimed import ClaimedRunner
from airflow_mlops.runners.aws.requests import tags
from airflow_mlops.runners.files.layout import hyperparameters
from airflow_mlops.runners.protocol import JobState

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from airflow_mlops.hooks.aws.sagemaker import SageMakerTrainingHook
    from airflow_mlops.runners.aws.claims import Claim
    from airflow_mlops.runners.protocol import ContainerJob

#: The longest that SageMaker lets a job run, and the shortest limit that it takes.
_LONGEST, _SHORTEST = 5 * 24 * 3600, 60
#: Characters of a training job's name.
_NAME = 63
_EXIT_CODE = re.compile(r"exit code:? (\d+)", re.IGNORECASE)
#: Exit codes after SIGKILL and SIGTERM.
KILLED, STOPPED = 137, 143


class SageMakerRunner(ClaimedRunner):
    """
    Runs every command as a training job.

    How much CPU, memory and GPU there is comes with the instance type. A name can never be used again, so each
    attempt at a job has one of its own, written down beside the job's data.

    :param role: ARN of the IAM role that SageMaker takes for the job; it must read and write the staging.
    :param instance_type: such as ``ml.m5.xlarge``.
    :param staging: ``s3://[conn_id@]bucket/prefix`` through which data goes.
    :param aws_conn_id: connection of type ``aws``.
    :param region: region, when not the connection's.
    :param volume_gb: disk of each machine.
    :param subnets: of the VPC that the job may reach; with ``security_groups``.
    :param security_groups: of the VPC.
    :param spot: take spare machines, that AWS may take back.
    :param isolated: the model code reaches no network, as is the rule in every other place.
    :param limit_bytes: bytes that :meth:`collect` takes over at most, for each path.
    :param time_limit: seconds after which SageMaker stops a job by itself.
    :param adopt_after: seconds after which a claim without a job is taken for one whose submitter died.
    """

    kind: ClassVar[str] = "sagemaker"
    place: ClassVar[str] = "SageMaker"
    log_group: ClassVar[str] = "/aws/sagemaker/TrainingJobs"
    # It gives 120 seconds before it kills, and sends the results then.
    longest_stop: ClassVar[float] = 180.0

    def __init__(
        self,
        role: str,
        instance_type: str,
        staging: str,
        aws_conn_id: str = "aws_default",
        region: str | None = None,
        volume_gb: int = 30,
        subnets: list[str] | None = None,
        security_groups: list[str] | None = None,
        spot: bool = False,
        isolated: bool = True,
        limit_bytes: int = 4 * 1024**3,
        time_limit: float = 24 * 3600.0,
        adopt_after: float = 120.0,
    ) -> None:
        super().__init__(staging, aws_conn_id, region, limit_bytes, time_limit, adopt_after)
        self.role = role
        self.instance_type = instance_type
        self.volume_gb = volume_gb
        self.subnets = subnets
        self.security_groups = security_groups
        self.spot = spot
        self.isolated = isolated

    def collect(self, name: str, paths: tuple[str, ...], destination: Path) -> None:
        """Copy what the job wrote into ``destination``."""
        claim = self.claim(name)
        if claim is None or not claim.service_id:
            return
        archives = f"jobs/{name}/results/{claim.service_id}/output"
        collect_archives(self.staging, name, archives, paths, destination)
        state = self.inspect(name)
        if state.exit_code and state.error and not (destination / "output/failure").exists():
            (destination / "output").mkdir(parents=True, exist_ok=True)
            (destination / "output/failure").write_text(state.error)

    # In the words of SageMaker -----------------------------------------------------------------

    def name_of(self, name: str, claim: Claim) -> str:
        """SageMaker's name of one attempt at a job: letters, digits and ``-``, never to be used again."""
        text = re.sub(r"[^A-Za-z0-9]+", "-", name)
        # The end of the name tells jobs apart.
        return f"{text[-(_NAME - len(claim.token) - 1) :].lstrip('-')}-{claim.token}"

    def prepare(self, job: ContainerJob, image: str, claim: Claim) -> dict[str, Any]:
        """Stage the data, and make the request."""
        channels = stage_channels(self.staging, job)
        runtime = int(min(max(self.time_limit, _SHORTEST), _LONGEST))
        nodes = job.distribution.nodes
        request: dict[str, Any] = {
            "TrainingJobName": self.name_of(job.name, claim),
            "AlgorithmSpecification": {
                "TrainingImage": image,
                "TrainingInputMode": "File",
                "ContainerArguments": [job.command],
            },
            "RoleArn": self.role,
            "HyperParameters": hyperparameters(job.config.get("parameters") or {}),
            "InputDataConfig": [_channel(name, uri) for name, uri in channels.items()],
            "OutputDataConfig": {"S3OutputPath": address(self.staging, job.name, "results")},
            "CheckpointConfig": {"S3Uri": address(self.staging, job.name, CHECKPOINTS)},
            "ResourceConfig": {
                "InstanceType": self.instance_type,
                "InstanceCount": nodes,
                "VolumeSizeInGB": self.volume_gb,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": runtime},
            "EnableNetworkIsolation": self.isolated,
            "Environment": {"PYTHONUNBUFFERED": "1"},
            "Tags": [{"Key": key, "Value": value} for key, value in tags(job).items()],
        }
        if self.subnets:
            vpc = {"Subnets": list(self.subnets), "SecurityGroupIds": list(self.security_groups or ())}
            request["VpcConfig"] = vpc
        if self.spot:
            request["EnableManagedSpotTraining"] = True
            request["StoppingCondition"]["MaxWaitTimeInSeconds"] = runtime
        return request

    def send(self, request: dict[str, Any]) -> str:
        """Create the training job, which has no id but its name."""
        self.hook.create(request)
        return str(request["TrainingJobName"])

    def find(self, name: str) -> str:
        """The name, when there is a training job of it."""
        return name if self.hook.describe(name) else ""

    def state(self, claim: Claim) -> JobState:
        """State of a training job."""
        return job_state(self.hook.describe(claim.service_id), claim.image)

    def stream(self, claim: Claim) -> str:
        """The log stream of the first machine."""
        return next(iter(self.cloudwatch.streams(f"{claim.service_id}/algo-1")), "")

    def end(self, service_id: str, reason: str) -> None:  # noqa: ARG002
        """Stop the training job: SIGTERM, and SIGKILL after 120 seconds."""
        self.hook.stop(service_id)

    @cached_property
    def hook(self) -> SageMakerTrainingHook:
        """Who speaks to SageMaker."""
        from airflow_mlops.hooks.aws.sagemaker import SageMakerTrainingHook

        return SageMakerTrainingHook(self.aws_conn_id, self.region)


def job_state(job: dict[str, Any] | None, image: str = "") -> JobState:
    """What SageMaker's description says of a job."""
    if job is None:
        return JobState("gone", error="SageMaker does not know it any more")
    state = JobState(
        "created",
        started_at=_moment(job.get("TrainingStartTime")),
        image_digest=image if "@" in image else "",
    )
    status = job["TrainingJobStatus"]
    if status in ("InProgress", "Stopping"):
        return replace(state, status="running") if state.started_at else state
    state = replace(state, status="exited", finished_at=_moment(job.get("TrainingEndTime")))
    if status == "Completed":
        return replace(state, exit_code=0)
    reason = str(job.get("FailureReason") or "")
    return _stopped(job, reason, state) if status == "Stopped" else _failed(reason, state)


def _stopped(job: dict[str, Any], reason: str, state: JobState) -> JobState:
    second = str(job.get("SecondaryStatus") or "")
    words = reason or ("" if second == "Stopped" else second)
    state = replace(state, exit_code=STOPPED, error=words)
    if second == "MaxRuntimeExceeded":
        return replace(state, cause="over_time", error=f"{words.rstrip('.')}. Cure: raise training.timeout")
    return replace(state, cause="preempted") if second in ("MaxWaitTimeExceeded", "Interrupted") else state


def _failed(reason: str, state: JobState) -> JobState:
    """SageMaker's words begin with whose fault it was; the exit code stands at their end."""
    state = replace(state, error=reason)
    if "CapacityError" in reason:
        return replace(state, cause="not_scheduled")
    if reason.startswith("InternalServerError"):
        return replace(state, cause="preempted")
    if "more memory" in reason or "OutOfMemory" in reason:
        return replace(state, exit_code=KILLED, out_of_memory=True)
    if reason.startswith("ClientError") and not state.started_at:
        return replace(state, cause="not_started")
    code = _EXIT_CODE.search(reason)
    return replace(state, exit_code=int(code[1]) if code else 1)


def _channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}


def _moment(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
