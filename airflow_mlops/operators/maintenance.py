"""The operator that removes what finished tasks left behind."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.hooks.scratch import scratch_home, sweep_scratch
from airflow_mlops.jobs.owners import older_jobs
from airflow_mlops.operators.errors import MLOpsTask
from airflow_mlops.quirks.installation import installation
from airflow_mlops.quirks.ownership import OVER, state_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_mlops.runners.protocol import FoundJob


class ReapJobsOperator(MLOpsTask):
    """
    Remove jobs, their GPU leases and their checkpoints, whose task instance is over or no longer exists.

    A job is removed only when it says that this Airflow started it for one of these stores, when it is older than
    ``older_than``, and when its task instance has ended, was deleted, or has started another job since, as after a
    Clear: never while that is queued, running, deferred or waiting for a retry. Jobs of the process runner are found on
    the worker's own machine, and so are the scratch folders of processes that were killed, which it removes too.

    Returns ``{"removed": [names], "kept": number}``. A place that does not answer fails the task, after all others
    were looked at.

    :param runners: places to look at, each ``kind`` and the options of a runner.
    :param stores: URIs of the artifact stores of the applications, as their jobs have them.
    :param applications: names whose checkpoints are looked at.
    :param older_than: seconds; whatever is younger stays.
    """

    template_fields: Sequence[str] = ("runners", "stores", "applications")

    def __init__(
        self,
        *,
        runners: list[dict[str, Any]],
        stores: list[str],
        applications: list[str] | None = None,
        older_than: float = 600,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.runners = runners
        self.stores = stores
        self.applications = applications
        self.older_than = older_than

    def execute(self, context: Context) -> dict[str, Any]:
        """Look at each place, and remove what nobody will ask for."""
        removed: list[str] = []
        kept, problems = 0, []
        places = [partial(self._reap, context, runner) for runner in self.runners]
        for look in [*places, *(partial(self._reap_checkpoints, context, uri) for uri in self.stores)]:
            try:
                gone, left = look()
            except MLOpsError as error:
                problems.append(str(error))
                self.log.warning("%s", error)
            else:
                removed += gone
                kept += left
        if swept := sweep_scratch():
            self.log.info("%d folders of killed processes removed from %s", swept, scratch_home())
        self.log.info("%d removed, %d kept", len(removed), kept)
        if problems:
            raise AirflowException(f"{len(problems)} places could not be tidied up:\n" + "\n".join(problems))
        return {"removed": removed, "kept": kept}

    # Jobs --------------------------------------------------------------------------------------

    def _reap(self, context: Context, given: Mapping[str, Any]) -> tuple[list[str], int]:
        from airflow_mlops.runners import get_runner
        from airflow_mlops.runners.protocol import ListsJobs

        options = {key: value for key, value in given.items() if key != "kind"}
        runner = get_runner(str(given["kind"]), **options)
        if not isinstance(runner, ListsJobs):
            self.log.info("Runner %s cannot list its jobs: nothing is removed there", given["kind"])
            return [], 0
        found = runner.jobs()
        ours = {job.name: job.labels for job in found if self._ours(job)}
        over = sorted({*self._over(context, ours), *(older_jobs(found) & ours.keys())})
        for name in over:
            self.log.info("Removing job %s: its task is over", name)
            runner.cleanup(name)
        return over, len(found) - len(over)

    def _ours(self, job: FoundJob) -> bool:
        young = datetime.now(UTC) - job.created_at < timedelta(seconds=self.older_than)
        labels = job.labels
        return not young and labels.get("store") in self.stores and labels.get("airflow") == installation()

    # Checkpoints -------------------------------------------------------------------------------

    def _reap_checkpoints(self, context: Context, uri: str) -> tuple[list[str], int]:
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.checkpoints import CheckpointStore

        store, kept = open_store(uri), 0
        removed: list[str] = []
        for application in self.applications or []:
            jobs = CheckpointStore.jobs(store, application)
            found = {job: CheckpointStore(store, application, job) for job in jobs}
            over = self._over(context, {job: each.owner() for job, each in found.items()})
            for job in over:
                self.log.info("Removing the checkpoint of %s: its task is over", job)
                found[job].delete()
            removed += over
            kept += len(found) - len(over)
        return removed, kept

    # Both --------------------------------------------------------------------------------------

    def _over(self, context: Context, labels: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Names whose task instance has ended or is no more; one without a task instance is somebody's."""
        runs: dict[tuple[str, str], dict[str, tuple[str, str]]] = defaultdict(dict)
        for name, of in labels.items():
            if of.get("dag_id") and of.get("run_id") and of.get("task_id"):
                runs[of["dag_id"], of["run_id"]][name] = (of["task_id"], of.get("map_index", "-1"))
        over = []
        for (dag_id, run_id), tasks in runs.items():
            states = context["ti"].get_task_states(
                dag_id=dag_id, run_ids=[run_id], task_ids=sorted({task for task, _ in tasks.values()})
            )
            known = states.get(run_id) or {}
            for name, (task_id, map_index) in tasks.items():
                key = state_key(task_id, int(map_index))
                if key not in known or known[key] in OVER:
                    over.append(name)
        return sorted(over)
