"""Trials of a tuning as runs below a run of MLflow, by its REST API alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.hooks.mlflow.runs import (
    JOB_TAG,
    METRICS_PER_BATCH,
    OPEN,
    MLflowRunsHook,
    RunStatus,
    quoted,
)
from airflow_mlops.hooks.mlflow.values import MetricNames, batches, to_pairs, to_parameters
from airflow_mlops.hooks.store.base import in_parallel

if TYPE_CHECKING:
    from airflow_mlops.hooks.mlflow.runs import RunInfo

#: The tag by which MLflow's page puts a run below another.
PARENT_TAG = "mlflow.parentRunId"
#: Entries that one call of MLflow takes, of all kinds together, and parameters among them.
_PARAMETERS = 100


@dataclass(frozen=True)
class TrialRun:
    """One trial as its run shows it.

    :param key: finds the run again.
    :param started_at: Unix time.
    :param metrics: name → value.
    :param steps: name, and step → value.
    """

    key: str
    name: str
    status: RunStatus
    started_at: float
    finished_at: float
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    steps: tuple[str, Mapping[int, float]]
    tags: Mapping[str, Any] = field(default_factory=dict)


class MLflowTrialsHook(MLflowRunsHook):
    """Makes the runs of a tuning's trials; every call may be repeated."""

    def log_trials(self, parent_run_id: str, trials: Sequence[TrialRun]) -> None:
        """Let each trial have one finished run below the parent, with all that is known of it."""
        parent = self.run(parent_run_id)
        known = {run.tags.get(JOB_TAG, ""): run for run in self._trials_of(parent)}
        missing = [trial for trial in trials if trial.key not in known or known[trial.key].status in OPEN]
        in_parallel(lambda trial: self._log_trial(parent, known.get(trial.key), trial), missing)

    def end_trials(self, parent_run_id: str, reason: str) -> None:
        """End the trials' runs that are open, as ``FAILED``."""
        for run in self._trials_of(self.run(parent_run_id)):
            if run.status in OPEN:
                self.finish_run(run.run_id, "FAILED", reason)

    def _trials_of(self, parent: RunInfo) -> list[RunInfo]:
        wanted = f"tags.`{PARENT_TAG}` = {quoted(parent.run_id)}"
        return list(
            self._search(f"Looking for the trials of run {parent.run_id}", [parent.experiment_id], wanted)
        )

    def _log_trial(self, parent: RunInfo, run: RunInfo | None, trial: TrialRun) -> None:
        doing = f"Logging trial {trial.key}"
        start, end = int(trial.started_at * 1000), int(trial.finished_at * 1000)
        if run is None:
            tags = {**trial.tags, JOB_TAG: trial.key, PARENT_TAG: parent.run_id}
            answer = self.answering.call(
                doing,
                "runs/create",
                experiment_id=parent.experiment_id,
                run_name=trial.name,
                start_time=start,
                tags=to_pairs(tags),
            )
            run_id = str(answer["run"]["info"]["run_id"])
        else:
            run_id = run.run_id
        for batch in batches(to_parameters(trial.parameters), _PARAMETERS):
            self.answering.call(doing, "runs/log-batch", run_id=run_id, params=batch)
        for entries in batches(self._metrics(trial, start, end), METRICS_PER_BATCH):
            self.answering.call(doing, "runs/log-batch", run_id=run_id, metrics=entries)
        self.answering.call(doing, "runs/update", run_id=run_id, status=trial.status, end_time=end)

    def _metrics(self, trial: TrialRun, start: int, end: int) -> list[dict[str, Any]]:
        names = MetricNames()
        name, steps = names.of({"name": trial.steps[0]}), trial.steps[1]
        curve = [
            {"key": name, "value": value, "step": step, "timestamp": start}
            for step, value in sorted(steps.items())
        ]
        # The result is the last point of its curve.
        last = max(steps, default=-1) + 1
        results = [(names.of({"name": key}), value) for key, value in trial.metrics.items()]
        return curve + [
            {"key": key, "value": value, "step": last if key == name else 0, "timestamp": end}
            for key, value in results
        ]
