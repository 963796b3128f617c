"""The jobs of a tuning's trials: what they are given, and what their end says of each trial."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import ContractError
from airflow_mlops.hooks.connections.secrets import without_secrets
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.primitives.container_output.judging import judge_file
from airflow_mlops.primitives.training.outcome import Outcome, classify
from airflow_mlops.primitives.training.tuning import FIGURES_LIMIT, objective_values
from airflow_mlops.runners.protocol import ContainerJob, Distribution, Resources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_mlops.primitives.training.tuning import Plan, Trial, TrialState, Tuning
    from airflow_mlops.runners.protocol import JobState, Runner

#: Bytes of a failure's reason that are read.
TEXT_LIMIT = 64 * 1024
#: Bytes of a trial's metrics.json that are read, and what reads it: the triggerer has many of them at a time.
METRICS_LIMIT = 4 * 1024**2
READ = "airflow_mlops.primitives.training.tuning:read_figures_file"
#: Ends that say nothing of a trial's parameters.
LOST = ("engine_gone", "preempted", "try_again", "stopped")


@dataclass
class Ended:
    """How one trial ended.

    :param state: what it becomes in the tuning's document.
    """

    trial: Trial
    state: TrialState
    reason: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)


class FinalError(Exception):
    """What happened to one trial would happen to all of them."""


def trial_job(tuning: Tuning, name: str, trials: list[Trial], inputs: dict[str, str]) -> ContainerJob:
    """The job that does some trials of a tuning.

    :param inputs: path below ``/opt/ml`` → local file, where the runner has not the data already.
    """
    content, plan = tuning.job, tuning.plan
    job = ContainerJob(
        **{
            **content,
            "entrypoint": tuple(content["entrypoint"]),
            "resources": Resources(**content["resources"]),
            "distribution": Distribution(**content["distribution"]),
        }
    )
    config = {**job.config, "run": {**job.config.get("run", {}), "job": name}}
    config["parameters"] = {**plan.fixed, **trials[0].parameters}
    if plan.trials_per_container > 1:
        config["trials"] = [
            {"number": one.number, "parameters": {**plan.fixed, **one.parameters}} for one in trials
        ]
    labels = {**job.labels, "trial": str(trials[0].number)}
    return replace(job, name=name, config=config, labels=labels, inputs=inputs)


def results(
    runner: Runner,
    plan: Plan,
    job: str,
    trials: list[Trial],
    state: JobState,
    secrets: Mapping[str, str] | None = None,
) -> list[Ended]:
    """Take the metrics of a job that is over, and judge its trials.

    :param secrets: name → Airflow connection that the job knows: no reason shows what they say.
    :raises FinalError: the job could not be run at all, and no other one can.
    """
    try:
        found = _results(runner, plan, job, trials, state)
    except FinalError as error:
        raise FinalError(without_secrets(str(error), secrets or {})) from None
    for ended in found:
        ended.reason = without_secrets(ended.reason, secrets or {})
    return found


def _results(runner: Runner, plan: Plan, job: str, trials: list[Trial], state: JobState) -> list[Ended]:
    several = plan.trials_per_container > 1
    paths = ("output/trials",) if several else ("output/metrics.json",)
    with scratch_folder() as folder:
        output = Path(folder, "output")
        try:
            if state.status == "exited":
                failed = ("output/failure",) if state.exit_code else ()
                runner.collect(job, (*paths, *failed), Path(folder))
        except ContractError as error:
            return [Ended(trial, "failed", str(error)) for trial in trials]
        outcome = classify(state.to_dict(), _text(output / "failure"))
        if outcome.final and outcome.kind in ("failed", "not_started"):
            raise FinalError(f"Trial {trials[0].number}: {outcome.message}")
        if several:
            return _judge_several(plan, trials, output / "trials", outcome)
        return [_judge(plan, trials[0], output, outcome)]


def _judge(plan: Plan, trial: Trial, output: Path, outcome: Outcome) -> Ended:
    if outcome.kind != "success":
        return Ended(trial, "lost" if outcome.kind in LOST else "failed", outcome.message)
    try:
        figures = _figures(output / "metrics.json")
        values = objective_values(plan.objectives, figures)
    except ContractError as error:
        return Ended(trial, "failed", str(error))
    return Ended(trial, "complete", figures=dict(list(figures.items())[:FIGURES_LIMIT]), values=values)


def _figures(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise ContractError(
            "The model code wrote no output/metrics.json. Cure: write a list of metrics there."
        )
    found: dict[str, float] = judge_file(READ, path, "output/metrics.json", limit=METRICS_LIMIT)
    return found


def _judge_several(plan: Plan, trials: list[Trial], folder: Path, outcome: Outcome) -> list[Ended]:
    """Each has its own result; the first without one is what the job ended with, the others did not begin."""
    found: list[Ended] = []
    blamed = outcome.kind == "success"
    for trial in trials:
        own = folder / str(trial.number)
        if (own / "metrics.json").is_file():
            found.append(_judge(plan, trial, own, Outcome("success", True, "")))
        elif text := _text(own / "failure"):
            found.append(Ended(trial, "failed", text))
        elif not blamed:
            found.append(_judge(plan, trial, own, outcome))
            blamed = True
        elif outcome.kind == "success":
            found.append(
                Ended(trial, "failed", f"the model code left nothing in output/trials/{trial.number}")
            )
        else:
            found.append(Ended(trial, "lost", "its container ended before this trial began"))
    return found


def _text(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(TEXT_LIMIT).decode(errors="replace").strip()
