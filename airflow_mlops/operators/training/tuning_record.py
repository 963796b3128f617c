"""What a tuning leaves in MLflow: a run with its plots, and a run below it for each trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.operators.training.record import code_record
from airflow_mlops.operators.training.runs import end_run, run_tags
from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

    from airflow_mlops.hooks.mlflow.runs import RunInfo
    from airflow_mlops.hooks.mlflow.trials import MLflowTrialsHook, TrialRun
    from airflow_mlops.primitives.training.tuning import Trial, Tuning

__all__ = ["end_tuning", "log_tuning", "tuning_tags"]


def tuning_tags(
    context: Context,
    tuning: Tuning,
    *,
    application: str,
    dataset_id: str,
    code: Mapping[str, Any],
    description: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Tags of the tuning's run and of its trials': where they come from, and the task that answers for them.

    :param code: what was run: ``image``, or ``entrypoint`` and ``directory``.
    :param description: what ``DescribeModelCodeOperator`` returned.
    """
    from airflow_mlops.primitives.registration.lineage import Lineage
    from airflow_mlops.runners.protocol import JobState

    seen, described = tuning.image, description["description"]
    digest = seen.get("image_digest") or description.get("image_digest") or ""
    state = JobState("exited", image_digest=digest, image_labels=seen.get("image_labels") or {})
    known, ti = code_record(code, described, str(description.get("image") or ""), state), context["ti"]
    lineage = Lineage(
        application=application,
        dataset_id=dataset_id,
        image=str(known.get("image") or ""),
        image_digest=str(known.get("image_digest") or ""),
        code=f"{known['name']} {known['version']}".strip(),
        seed=seed,
        dag_run=f"{ti.dag_id}/{ti.run_id}",
        git_commit=str(known.get("git_commit") or ""),
        base_digest=str(known.get("base_digest") or ""),
    )
    tags = run_tags(context, application=application, git_commit=lineage.git_commit, reasons="")
    return {**lineage.to_tags(), **tags}


def log_tuning(mlflow: MLflowTrialsHook, run_id: str, tuning: Tuning, tags: Mapping[str, Any]) -> None:
    """Log all trials, the best one's figures and parameters, and the plots; then finish the run."""
    from airflow_mlops.hooks.mlflow.hook import MLflowHook

    mlflow.log_trials(run_id, [_trial_run(tuning, trial, tags) for trial in tuning.trials])
    if best := tuning.best():
        mlflow.log_metrics(run_id, [{"name": name, "value": value} for name, value in best.figures.items()])
        mlflow.log_parameters(run_id, {**tuning.plan.fixed, **best.parameters})
    with scratch_folder() as folder:
        _write_report(tuning, Path(folder))
        MLflowHook(mlflow.mlflow_conn_id).log_directory(run_id, Path(folder), "tuning")
    if tuning.status == "done":
        mlflow.finish_run(run_id)
    else:
        mlflow.finish_run(run_id, "FAILED", tuning.reason)


def end_tuning(mlflow: MLflowTrialsHook, log: Logger, run: RunInfo, reason: str, *, final: bool) -> None:
    """End the run of a tuning that could not be logged.

    :param final: nobody tries again, so that its trials' runs are ended too.
    """
    end_run(mlflow, log, run, "FAILED", reason)
    if not final:
        return
    try:
        mlflow.end_trials(run.run_id, reason)
    except MLOpsError as error:
        log.warning(
            "Trials of MLflow run %s stay open until the maintenance closes them: %s", run.run_id, error
        )


def _trial_run(tuning: Tuning, trial: Trial, tags: Mapping[str, Any]) -> TrialRun:
    from airflow_mlops.hooks.mlflow.trials import TrialRun

    status = {"complete": "FINISHED", "pruned": "KILLED", "stopped": "KILLED"}.get(trial.state, "FAILED")
    own = {"airflow_mlops.trial": trial.state, "airflow_mlops.reason": trial.reason or None}
    return TrialRun(
        key=f"{tuning.name}/trial-{trial.number}",  # no job's name: a model's run is found by that
        name=f"trial {trial.number}",
        status=status,  # type: ignore[arg-type]
        started_at=trial.started_at,
        finished_at=trial.finished_at or trial.started_at,
        parameters={**tuning.plan.fixed, **trial.parameters},
        metrics=trial.figures,
        steps=(tuning.plan.objectives[0], trial.steps),
        tags={**tags, **own},
    )


def _write_report(tuning: Tuning, folder: Path) -> None:
    from airflow_mlops.hooks.optuna import OptunaStudy
    from airflow_mlops.primitives.training.tuning_report import history_svg, importance_svg, trial_rows

    (folder / "history.svg").write_text(history_svg(tuning))
    (folder / "trials.json").write_text(json_text(trial_rows(tuning), indent=1))
    importance = OptunaStudy(tuning).importance()
    if importance:
        (folder / "importance.svg").write_text(importance_svg(importance))
