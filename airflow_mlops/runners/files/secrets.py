"""The secrets of a job as files, for runners that can put files into it out of everybody else's sight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops.hooks.connections.secrets import secret_documents
from airflow_mlops.runners.files.layout import InputFile, checked_path

if TYPE_CHECKING:
    from airflow_mlops.runners.protocol import ContainerJob

#: Folder of the secrets below ``/opt/ml``.
SECRETS = "input/secrets"


def secret_files(job: ContainerJob, mode: int = 0o400) -> list[InputFile]:
    """Resolve the job's secrets, in the process that starts it.

    :raises RunnerError: when there is no such connection.
    """
    return [
        InputFile(checked_path(f"{SECRETS}/{name}.json"), content, mode)
        for name, content in secret_documents(job.secrets).items()
    ]
