"""What a job that ended before its time leaves to the next try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import MLOpsError

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_mlops.runners.protocol import Runner
    from airflow_mlops.stores.checkpoints import CheckpointStore

FOLDER = "checkpoints"


class JobCheckpoints:
    """
    The checkpoint of one job, between the runner and the artifact store.

    A checkpoint that cannot be kept is a line in the log: the next try then begins anew, or from an older one.

    :param store: URI of the artifact store.
    :param application: name of the application.
    :param job: name of the job, the same for all tries.
    :param task: the task instance.
    :param log: logger of the task.
    """

    def __init__(self, store: str, application: str, job: str, task: Any, log: Any) -> None:
        self._uri = store
        self._application = application
        self._job = job
        self._attempt = int(task.try_number)
        self._owner = {key: str(getattr(task, key)) for key in ("dag_id", "run_id", "task_id", "map_index")}
        self._log = log

    def take_over(self, runner: Runner, folder: Path) -> None:
        """Put what the job wrote into ``checkpoints/`` into the store."""
        try:
            runner.collect(self._job, (FOLDER,), folder)
            size = self._store().save(folder / FOLDER, self._attempt, self._owner)
        except MLOpsError as error:
            self._log.warning("The checkpoint of %s is lost, the next try does without: %s", self._job, error)
        else:
            if size:
                self._log.info("Kept the checkpoint of %s for the next try: %d bytes", self._job, size)

    def fetch(self, scratch: Path) -> dict[str, str]:
        """Path below ``/opt/ml`` → local file, of what an earlier try left; empty when it left none.

        :raises StoreError: there is one, and it cannot be read.
        """
        if self._attempt == 1:
            return {}
        found = self._store().fetch(scratch)
        if found:
            self._log.info("Going on from the checkpoint of an earlier try: %d files", len(found))
        return {f"{FOLDER}/{path}": str(file) for path, file in found.items()}

    def drop(self) -> None:
        """Remove what earlier tries left: there will be no later one."""
        if self._attempt == 1:
            return
        try:
            self._store().delete()
        except MLOpsError as error:
            self._log.warning("Checkpoints of %s stay in the store: %s", self._job, error)

    def _store(self) -> CheckpointStore:
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.checkpoints import CheckpointStore

        return CheckpointStore(open_store(self._uri), self._application, self._job)
