"""``airflow-mlops try``: the tasks of a training on this machine, before any Airflow knows of it."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.report import UsageError, print_json, problems_of, yaml_files
from airflow_mlops.cli.trial.tasks import (
    TrialError,
    end_by_signals,
    local_spec,
    log_to_stderr,
    own_mlflow,
    training_tasks,
)

if TYPE_CHECKING:
    from airflow_mlops.spec import ApplicationSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("path", metavar="FILE", type=Path, help="YAML file of an application")
    parser.add_argument(
        "--rows",
        metavar="N",
        type=int,
        default=10_000,
        help="train on the N newest examples (10000); 0 for all",
    )
    parser.add_argument("--run-on", choices=("process", "docker"), help="run the model code here instead")
    parser.add_argument("--json", action="store_true", help="print the gate's decision as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Try the application; 0 when the gate would let the model pass, 1 when it would not or a task fails."""
    if arguments.rows < 0:
        print(
            "airflow-mlops try: --rows is negative. Cure: give a number of examples, or 0 for all.",
            file=sys.stderr,
        )
        return 2
    try:
        loaded, errors = yaml_files([arguments.path])
    except UsageError as error:
        print(f"airflow-mlops try: {error}", file=sys.stderr)
        return 2
    if errors:
        for problem in problems_of(errors):
            print(problem, file=sys.stderr)
        return 1
    if len(loaded) != 1 or loaded[0].kind != "application":
        print(
            f"airflow-mlops try: {arguments.path} is not one application. Cure: name its file.",
            file=sys.stderr,
        )
        return 2
    from airflow_mlops.hooks.scratch import scratch_folder

    log_to_stderr()
    end_by_signals()
    with scratch_folder() as folder:
        spec = _here(loaded[0].spec, Path(folder), arguments.run_on)
        decision = _try(spec, arguments.rows, Path(folder))
    if arguments.json:
        print_json(decision)
    else:
        print(decision["message"])
        print("Nothing was registered, and nothing is left of the trial.")
    return 0 if decision["passed"] else 1


def _here(spec: Any, folder: Path, run_on: str | None) -> ApplicationSpec:
    """The application as it can be tried on this machine."""
    place = run_on or spec.training.run_on
    if place not in ("process", "docker"):
        raise TrialError(
            f"{spec.application}: training.run_on is {place}, and a trial runs on this machine. Cure: --run-on docker, "
            "or --run-on process."
        )
    return local_spec(spec, folder, run_on=place)


def _try(spec: ApplicationSpec, rows: int, folder: Path) -> dict[str, Any]:
    """Run the tasks of its training, and give the decision of the gate."""
    tasks = training_tasks(spec, "airflow-mlops try", rows)
    decision: dict[str, Any] = {}
    with ExitStack() as servers:
        for task_id in tasks.task_ids():
            if task_id == "train":
                servers.enter_context(own_mlflow(folder))
            decision = tasks.run(task_id)  # the gate is the last one
    return decision
