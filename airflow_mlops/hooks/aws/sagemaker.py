"""Training jobs of Amazon SageMaker, by the amazon provider's hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.hooks.aws.service import CONFIG, aws_errors, check_connection

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SageMakerTrainingHook"]


class SageMakerTrainingHook:
    """Creates, describes and stops training jobs.

    :param conn_id: connection of type ``aws``.
    :param region: region, when not the connection's.
    """

    def __init__(self, conn_id: str = "aws_default", region: str | None = None) -> None:
        self.conn_id = conn_id
        self.region = region
        self._made: Any = None

    def create(self, request: Mapping[str, Any]) -> None:
        """Create a training job; one of this name that is there already is left as it is.

        :param request: arguments of ``CreateTrainingJob``.
        """
        from botocore.exceptions import ClientError

        name = request["TrainingJobName"]
        with aws_errors(f"creating training job {name}"):
            try:
                self._client().create_training_job(**request)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceInUse":
                    raise

    def describe(self, name: str) -> dict[str, Any] | None:
        """What is known of a training job; ``None`` when there is none."""
        from botocore.exceptions import ClientError

        with aws_errors(f"looking for training job {name}"):
            try:
                return dict(self._client().describe_training_job(TrainingJobName=name))
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
                self._client().stop_training_job(TrainingJobName=name)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ValidationException":
                    raise

    def _client(self) -> Any:
        if self._made is None:
            from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
            from botocore.config import Config

            hook = SageMakerHook(  # type: ignore[no-untyped-call]
                aws_conn_id=self.conn_id, region_name=self.region, config=Config(**CONFIG)
            )
            check_connection(hook)
            self._made = hook.get_conn()
        return self._made
