"""Jobs on AWS Batch: data goes through a bucket, output comes from CloudWatch."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.primitives.texts.documents import json_text
from airflow_mlops.runners.aws.claimed import ClaimedRunner
from airflow_mlops.runners.aws.requests import container_properties, tag, tags
from airflow_mlops.runners.protocol import JobState

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_mlops.hooks.aws.batch import BatchHook
    from airflow_mlops.runners.aws.claims import Claim
    from airflow_mlops.runners.protocol import Cause, ContainerJob

#: Seconds between SIGTERM and SIGKILL on ECS.
GRACE = 30.0
#: Exit codes after SIGKILL and SIGTERM.
KILLED, STOPPED = 137, 143
#: Characters of a job's name that Batch takes.
_NAME = 128
#: How Batch begins its words about an end that is the command's own.
_OWN_END = "Essential container in task exited"
#: Its words about one that took too long.
_OVER_TIME = "attempt duration exceeded timeout"
_NOT_STARTED = ("CannotPull", "CannotCreate", "CannotStart", "ResourceInitializationError", "ImagePull")


class AwsBatchRunner(ClaimedRunner):
    """
    Runs jobs in a queue of AWS Batch on EC2 compute environments.

    The image must bring its own data, see :mod:`airflow_mlops.contract.container.transfer`.

    :param queue: job queue.
    :param staging: ``s3://[conn_id@]bucket/prefix`` through which data goes.
    :param aws_conn_id: connection of type ``aws``.
    :param region: region, when not the connection's.
    :param job_role: ARN of the IAM role that the model code has.
    :param execution_role: ARN of the role with which ECS pulls the image and writes logs.
    :param limit_bytes: bytes that :meth:`collect` takes over at most, for each path.
    :param time_limit: seconds after which Batch ends a job by itself, and its addresses in the bucket end.
    :param adopt_after: seconds after which a claim without a job is taken for one whose submitter died.
    """

    kind: ClassVar[str] = "aws_batch"
    place: ClassVar[str] = "AWS Batch"
    log_group: ClassVar[str] = "/aws/batch/job"
    longest_stop: ClassVar[float] = GRACE + 15

    def __init__(
        self,
        queue: str,
        staging: str,
        aws_conn_id: str = "aws_default",
        region: str | None = None,
        job_role: str | None = None,
        execution_role: str | None = None,
        limit_bytes: int = 4 * 1024**3,
        time_limit: float = 24 * 3600.0,
        adopt_after: float = 120.0,
    ) -> None:
        super().__init__(staging, aws_conn_id, region, limit_bytes, time_limit, adopt_after)
        self.queue = queue
        self.job_role = job_role
        self.execution_role = execution_role

    def stage(self, job: ContainerJob) -> None:
        """Keep inputs that several jobs share."""
        self.staging.stage_shared(job)

    def collect(self, name: str, paths: tuple[str, ...], destination: Path) -> None:
        """Copy what the job wrote into ``destination``."""
        if not self.staging.collect(name, paths, destination) and self.inspect(name).exit_code == 0:
            raise self.staging.silent(name)

    # In the words of Batch ---------------------------------------------------------------------

    def name_of(self, name: str, claim: Claim) -> str:
        """Batch's name of one attempt at a job: letters, digits, ``-`` and ``_``."""
        text = "".join(char if char.isalnum() or char in "-_" else "-" for char in name)
        # The end of the name tells jobs apart.
        return f"{text[-(_NAME - len(claim.token) - 1) :].lstrip('-_')}-{claim.token}"

    def prepare(self, job: ContainerJob, image: str, claim: Claim) -> dict[str, Any]:
        """Register the definition, stage the data, and make the request."""
        definition = self.hook.definition(self._definition(job, image))
        environment = self.staging.stage(job, GRACE).environment
        given = {
            "command": [job.command],
            "environment": [{"name": name, "value": value} for name, value in environment.items()],
        }
        overrides: dict[str, Any] = {"containerOverrides": given}
        if job.distribution.nodes > 1:
            everywhere = [{"targetNodes": "0:", "containerOverrides": given}]
            overrides = {"nodeOverrides": {"nodePropertyOverrides": everywhere}}
        return {
            "jobName": self.name_of(job.name, claim),
            "jobQueue": self.queue,
            "jobDefinition": definition,
            "tags": tags(job),
            "propagateTags": True,
            **overrides,
        }

    def _definition(self, job: ContainerJob, image: str) -> dict[str, Any]:
        container = container_properties(job, image, self.job_role, self.execution_role)
        nodes = job.distribution.nodes
        content: dict[str, Any] = {"type": "container", "containerProperties": container}
        if nodes > 1:
            everywhere = [{"targetNodes": "0:", "container": container}]
            content = {
                "type": "multinode",
                "nodeProperties": {"numNodes": nodes, "mainNode": 0, "nodeRangeProperties": everywhere},
            }
        content |= {
            "retryStrategy": {"attempts": 1},
            "timeout": {"attemptDurationSeconds": max(60, int(self.time_limit))},
        }
        digest = hashlib.sha256(json_text(content, sort_keys=True).encode()).hexdigest()[:24]
        # Its name is its content: whoever needs the same finds it.
        return {
            **content,
            "jobDefinitionName": f"airflow-mlops-{digest}",
            "tags": {"managed-by": "airflow-mlops", "image": tag(image)},
        }

    def send(self, request: dict[str, Any]) -> str:
        """Submit the job."""
        return self.hook.submit(request)

    def find(self, name: str) -> str:
        """Id of the job of this name."""
        found = self.hook.find(self.queue, name)
        return str(found["jobId"]) if found else ""

    def state(self, claim: Claim) -> JobState:
        """State of a submitted job."""
        return job_state(self.hook.describe(claim.service_id), claim.image)

    def stream(self, claim: Claim) -> str:
        """The job's log stream."""
        found = self.hook.describe(claim.service_id) or {}
        return str(found.get("container", {}).get("logStreamName") or "")

    def end(self, service_id: str, reason: str) -> None:
        """Terminate the job: ECS sends SIGTERM, and SIGKILL after 30 seconds."""
        self.hook.terminate(service_id, reason)

    @cached_property
    def hook(self) -> BatchHook:
        """Who speaks to Batch."""
        from airflow_mlops.hooks.aws.batch import BatchHook

        return BatchHook(self.aws_conn_id, self.region)


def job_state(job: dict[str, Any] | None, image: str = "") -> JobState:
    """What Batch's description says of a job."""
    if job is None:
        return JobState("gone", error="AWS Batch does not know it any more")
    state = JobState(
        "created", started_at=_moment(job.get("startedAt")), image_digest=image if "@" in image else ""
    )
    if job["status"] == "RUNNING":
        return replace(state, status="running")
    if job["status"] not in ("SUCCEEDED", "FAILED"):
        return state
    state = replace(state, status="exited", finished_at=_moment(job.get("stoppedAt")))
    return replace(state, exit_code=0) if job["status"] == "SUCCEEDED" else _failed(job, state)


def _failed(job: dict[str, Any], state: JobState) -> JobState:
    """Why it failed: the command's own exit code, its limit of memory, its machine, or somebody's wish."""
    container, words = job.get("container") or {}, str(job.get("statusReason") or "")
    code, why = container.get("exitCode"), str(container.get("reason") or "")
    state = replace(state, exit_code=code, error=" ".join(filter(None, (words, why))))
    if "OutOfMemory" in why:
        return replace(state, exit_code=KILLED if code is None else code, out_of_memory=True)
    if cause := _cause(state.error):
        cure = ". Cure: raise training.timeout" if cause == "over_time" else ""
        return replace(state, cause=cause, error=state.error.rstrip(".") + cure)
    from_outside = job.get("isTerminated") or job.get("isCancelled") or not words.startswith(_OWN_END)
    if words and from_outside and code in (None, KILLED, STOPPED):
        return replace(state, exit_code=STOPPED)
    if code is None:
        return replace(state, status="gone", error=state.error or "AWS Batch says no exit code")
    return replace(state, error=why)


def _cause(words: str) -> Cause:
    if any(sign in words for sign in _NOT_STARTED):
        return "not_started"
    if "Host EC2" in words:
        return "preempted"
    return "over_time" if _OVER_TIME in words else ""


def _moment(milliseconds: int | None) -> str | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat() if milliseconds else None
