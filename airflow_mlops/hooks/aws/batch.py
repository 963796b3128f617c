"""AWS Batch, by the amazon provider's hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.hooks.aws.service import ServiceHook, aws_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BatchHook"]


class BatchHook(ServiceHook):
    """Job definitions and jobs."""

    def definition(self, request: Mapping[str, Any]) -> str:
        """ARN of the active definition of this name, registered when there is none.

        :param request: arguments of ``RegisterJobDefinition``; equal names must mean equal content.
        """
        name = request["jobDefinitionName"]
        with aws_errors(f"registering job definition {name}"):
            found = self.client().describe_job_definitions(jobDefinitionName=name, status="ACTIVE")
            if known := found["jobDefinitions"]:
                return str(max(known, key=lambda one: one["revision"])["jobDefinitionArn"])
            return str(self.client().register_job_definition(**request)["jobDefinitionArn"])

    def submit(self, request: Mapping[str, Any]) -> str:
        """Submit a job.

        :param request: arguments of ``SubmitJob``.
        :return: its id.
        """
        with aws_errors(f"submitting job {request['jobName']} to queue {request['jobQueue']}"):
            return str(self.client().submit_job(**request)["jobId"])

    def describe(self, job_id: str) -> dict[str, Any] | None:
        """What is known of a job; ``None`` when nothing is, or no longer.

        Of a job on several machines, ``container`` is that of the main one. An exit code that the description lacks
        is taken from the listing.
        """
        with aws_errors(f"looking for job {job_id}"):
            found = self._describe(job_id)
            if found is None:
                return None
            container = dict(found.get("container") or {})
            if "nodeProperties" in found:
                main = self._describe(f"{job_id}#{found['nodeProperties'].get('mainNode', 0)}")
                container |= (main or {}).get("container") or {}
        if found["status"] == "FAILED" and container.get("exitCode") is None:
            listed = self.find(found["jobQueue"], found["jobName"]) or {}
            container |= listed.get("container") or {}
        return {**found, "container": container}

    def find(self, queue: str, name: str) -> dict[str, Any] | None:
        """Summary of the job of this name in a queue; the oldest, should there be several."""
        with aws_errors(f"looking for job {name} in queue {queue}"):
            answer = self.client().list_jobs(jobQueue=queue, filters=[{"name": "JOB_NAME", "values": [name]}])
            jobs = [job for job in answer["jobSummaryList"] if job["jobName"] == name]
            return dict(min(jobs, key=lambda job: job["createdAt"])) if jobs else None

    def terminate(self, job_id: str, reason: str) -> None:
        """End a job, started or not; nothing happens to one that has ended."""
        with aws_errors(f"terminating job {job_id}"):
            self.client().terminate_job(jobId=job_id, reason=reason)

    def _describe(self, job_id: str) -> dict[str, Any] | None:
        jobs = self.client().describe_jobs(jobs=[job_id])["jobs"]
        return dict(jobs[0]) if jobs else None

    def provider_hook(self) -> Any:
        """Class of the provider's hook."""
        from airflow.providers.amazon.aws.hooks.batch_client import BatchClientHook

        return BatchClientHook
