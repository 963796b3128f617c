"""Lines of a job's output from CloudWatch, by the amazon provider's hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.hooks.aws.service import ServiceHook, aws_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CloudWatchHook"]


class CloudWatchHook(ServiceHook):
    """Log streams of one group.

    :param conn_id: connection of type ``aws``.
    :param region: region, when not the connection's.
    :param group: log group, as ``/aws/batch/job``.
    """

    def __init__(self, conn_id: str, region: str | None, group: str) -> None:
        super().__init__(conn_id, region)
        self.group = group

    def events(self, stream: str, since: int = 0) -> Iterator[tuple[int, str]]:
        """Moment in milliseconds and text of each event from a moment on; nothing while there is no such stream."""
        with aws_errors(f"reading log stream {stream} of {self.group}"):
            hook = self.hook
            try:
                for event in hook.get_log_events(self.group, stream, start_time=since):
                    yield int(event["timestamp"]), str(event["message"])
            except hook.conn.exceptions.ResourceNotFoundException:
                return

    def streams(self, prefix: str) -> list[str]:
        """Names of the group's streams that begin with a prefix; empty while there is no such group."""
        with aws_errors(f"listing log streams {prefix}… of {self.group}"):
            client = self.hook.conn
            try:
                answer = client.describe_log_streams(logGroupName=self.group, logStreamNamePrefix=prefix)
            except client.exceptions.ResourceNotFoundException:
                return []
            return [str(stream["logStreamName"]) for stream in answer["logStreams"]]

    def provider_hook(self) -> Any:
        """Class of the provider's hook."""
        from airflow.providers.amazon.aws.hooks.logs import AwsLogsHook

        return AwsLogsHook
