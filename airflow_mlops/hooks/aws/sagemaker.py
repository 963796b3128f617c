"""Training jobs of Amazon SageMaker, by the amazon provider's hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.hooks.aws.service import ServiceHook, aws_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SageMakerTrainingHook"]


class SageMakerTrainingHook(ServiceHook):
    """Creates, describes and stops training jobs."""

    def create(self, request: Mapping[str, Any]) -> None:
        """Create a training job; one of this name that is there already is left as it is.

        :param request: arguments of ``CreateTrainingJob``.
        """
        from botocore.exceptions import ClientError

        name = request["TrainingJobName"]
        with aws_errors(f"creating training job {name}"):
            try:
                self.client().create_training_job(**request)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceInUse":
                    raise

    def describe(self, name: str) -> dict[str, Any] | None:
        """What is known of a training job; ``None`` when there is none."""
        from botocore.exceptions import ClientError

        with aws_errors(f"looking for training job {name}"):
            try:
                return dict(self.client().describe_training_job(TrainingJobName=name))
            except ClientError as error:
                # SageMaker has no code of its own for a job that is not there.
                if "not find" in error.response["Error"].get("Message", ""):
                    return None
                raise

    def stop(self, name: str) -> None:
        """Stop a training job: SIGTERM, and SIGKILL after 120 seconds. No error when it has ended."""
        from botocore.exceptions import ClientError

        with aws_errors(f"stopping training job {name}"):
            try:
                self.client().stop_training_job(TrainingJobName=name)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ValidationException":
                    raise

    def provider_hook(self) -> Any:
        """Class of the provider's hook."""
        from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook

        return SageMakerHook
