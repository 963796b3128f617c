"""The MLflow run of a training: open before the job's first step, and never left open after its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context
    from airflow.sdk.types import Logger

    from airflow_mlops.hooks.mlflow.runs import MLflowRunsHook, RunInfo, RunStatus

__all__ = ["CloseRunsOperator", "close_runs"]

#: States of a task instance after which nobody comes back to its run; ``gone`` for one that Airflow does not know.
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed", "gone"})


def end_run(hook: MLflowRunsHook, log: Logger, run: RunInfo | None, status: RunStatus, reason: str) -> None:
    """End a run that did not finish; MLflow being away is a warning: the maintenance ends it later."""
    from airflow_mlops.hooks.connections.masking import without_known_secrets
    from airflow_mlops.hooks.mlflow.runs import OPEN

    if run is None or run.status not in OPEN:
        return
    try:
        hook.finish_run(run.run_id, status, without_known_secrets(reason))
    except MLOpsError as error:
        log.warning("MLflow run %s stays open until the maintenance closes it: %s", run.run_id, error)


def run_tags(context: Context, *, application: str, git_commit: str, reasons: str) -> dict[str, Any]:
    """Tags by which the run leads back to the Airflow task, in words that MLflow's page shows."""
    ti, url = context["ti"], task_url(context)
    why = f"\n\nWhy: {reasons}" if reasons else ""
    return {
        "airflow_mlops.dag_id": ti.dag_id,
        "airflow_mlops.run_id": ti.run_id,
        "airflow_mlops.task_id": ti.task_id,
        "airflow_mlops.map_index": ti.map_index,
        "airflow_mlops.try": ti.try_number,
        "airflow_mlops.airflow_url": url or None,
        "mlflow.source.type": "JOB",
        "mlflow.source.name": url or f"{ti.dag_id}/{ti.run_id}/{ti.task_id}",
        "mlflow.source.git.commit": git_commit or None,
        "mlflow.note.content": f"Trained by [Airflow]({url}) for {application}.{why}" if url else None,
    }


def task_url(context: Context) -> str:
    """Page of the task instance in the Airflow UI; empty when nobody has said where that is."""
    from airflow.sdk.configuration import conf

    ti, base = context["ti"], (conf.get("api", "base_url", fallback="") or "").rstrip("/")
    if not base:
        return ""
    mapped = f"/mapped/{ti.map_index}" if ti.map_index is not None and ti.map_index >= 0 else ""
    return f"{base}/dags/{ti.dag_id}/runs/{quote(ti.run_id)}/tasks/{ti.task_id}{mapped}?try_number={ti.try_number}"


def close_runs(
    hook: MLflowRunsHook, is_over: Callable[[RunInfo], str], application: str = ""
) -> list[RunInfo]:
    """End open runs whose task is over, as ``FAILED``; returns them as they are now.

    :param is_over: why the run's task is over, or an empty text while it may still end the run itself.
    """
    closed = []
    for run in hook.open_runs(application):
        reason = is_over(run)
        if reason:
            hook.finish_run(run.run_id, "FAILED", reason)
            closed.append(replace(run, status="FAILED"))
    return closed


class CloseRunsOperator(MLOpsTask):
    """
    End MLflow runs that a crash has left open: those of trainings whose task instance is over, or is no more.

    Returns ``{"closed": [run ids], "open": n}``. A run whose task runs, waits, is deferred or will be tried again is
    left alone, and so is one that is younger than ``min_age``, and one of an Airflow at another address.

    :param application: only runs of this application; of all by default.
    :param min_age: seconds since its start that a run is left alone.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    """

    template_fields: Sequence[str] = ("application",)

    def __init__(
        self,
        *,
        application: str = "",
        min_age: float = 600,
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.min_age = min_age
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Look at every open run, and at its task."""
        from airflow_mlops.hooks.mlflow.runs import MLflowRunsHook

        with airflow_errors():
            hook = MLflowRunsHook(self.mlflow_conn_id)
            before = hook.open_runs(self.application)
            closed = close_runs(hook, lambda run: self._why_over(context, run), self.application)
        for run in closed:
            self.log.warning("Closed MLflow run %s of %s", run.run_id, run.tags.get("airflow_mlops.job"))
        return {"closed": [run.run_id for run in closed], "open": len(before) - len(closed)}

    def _why_over(self, context: Context, run: RunInfo) -> str:
        def tag(name: str) -> str:
            return run.tags.get(f"airflow_mlops.{name}", "")

        dag_id, run_id, task_id, url = tag("dag_id"), tag("run_id"), tag("task_id"), tag("airflow_url")
        ours = task_url(context).partition("/dags/")[0]
        if not (dag_id and run_id and task_id) or (url and not url.startswith(f"{ours}/dags/")):
            return ""
        if time.time() - run.start_time / 1000 < self.min_age:
            return ""
        states = task_states(context, dag_id, run_id, task_id)
        index = tag("map_index")
        state = states.get(task_id if index in ("", "-1") else f"{task_id}_{index}", "gone")
        if state not in ENDED:
            return ""
        return f"The Airflow task is over ({state}) and did not end this run itself: its worker was killed."


def task_states(context: Context, dag_id: str, run_id: str, task_id: str) -> dict[str, str]:
    """State of each task instance of a task in a run, by task id, with ``_<map index>`` behind it when mapped."""
    found = context["ti"].get_task_states(dag_id=dag_id, task_ids=[task_id], run_ids=[run_id])
    # One without a state was cleared, and waits to be scheduled.
    return {name: str(state or "none") for name, state in (found.get(run_id) or {}).items()}
