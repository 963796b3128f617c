"""Every command of an image on real rows, by the operators of the DAGs and with their judgement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from airflow_mlops.cli.trial.tasks import (
    LAST_LINES,
    LocalTasks,
    TrialError,
    end_by_signals,
    local_spec,
    log_to_stderr,
    own_mlflow,
    training_tasks,
)
from airflow_mlops.exceptions import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_mlops.cli.contract.data import RealRows
    from airflow_mlops.spec import ApplicationSpec

_NAME = "contract_check"
#: Metrics that are printed at the end.
_SHOWN = 8


class RehearsalError(CommandError):
    """A command of the image failed, or what it wrote breaks the contract."""


def rehearse(image: str, rows: RealRows, network: str = "none") -> str:
    """Train, evaluate, test and predict in containers, and say what came out; nothing is left.

    :param network: Docker network of the containers.
    :raises RehearsalError: naming the command, its last lines and the cure.
    """
    from airflow_mlops.contract.tools.image import describe_image
    from airflow_mlops.hooks.scratch import scratch_folder

    said = describe_image(image)
    if said is None:
        raise RehearsalError(f"{image} does not describe itself any more. Cure: check again.")
    described = json.loads(said)
    commands = [str(command) for command in described["commands"]]
    if "train" not in commands:
        raise RehearsalError(
            f"{image} has no command train (it has {', '.join(commands)}), and --data is for what trains. Cure: leave "
            "--data out."
        )
    log_to_stderr()
    end_by_signals()
    with scratch_folder() as folder:
        spec = local_spec(_application(image, described, rows, network, Path(folder)), Path(folder))
        try:
            return _Rehearsal(image, spec, rows, commands).run(Path(folder))
        except TrialError as error:
            raise RehearsalError(_failure(image, error)) from error


def _application(
    image: str, described: dict[str, Any], rows: RealRows, network: str, folder: Path
) -> ApplicationSpec:
    """The image and the rows as an application, read as any other one."""
    import yaml

    from airflow_mlops.spec import load_application

    commands = described["commands"]
    document = {
        "application": _NAME,
        "paradigm": _paradigm(described, rows),
        "code": {"image": image},
        "store": str(folder / "store"),
        "provisioning": rows.provisioning(),
        "training": {
            "run_on": "docker",
            "parameters": dict(rows.parameters),
            "docker": {"network": network},
        },
        "evaluation": {"cases": "test" in commands},
        **({"delivery": [{"batch": {}}]} if "predict" in commands else {}),
    }
    file = folder / f"{_NAME}.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_application(file)


def _paradigm(described: dict[str, Any], rows: RealRows) -> str:
    from airflow_mlops.spec.application import SUPERVISED, Paradigm

    said = str(described.get("paradigm"))
    if said in SUPERVISED and not rows.roles.get("targets"):
        raise RehearsalError(
            f"The image is of paradigm {said}, and nothing says which column it learns. Cure: --targets COLUMN."
        )
    return said if said in get_args(Paradigm) else "other"


class _Rehearsal:
    """The commands, one after another.

    :param commands: what the image says that it has.
    """

    def __init__(self, image: str, spec: ApplicationSpec, rows: RealRows, commands: list[str]) -> None:
        self.image = image
        self.spec = spec
        self.rows = rows
        self.commands = commands
        self.tasks = training_tasks(spec, "airflow-mlops contract check")
        describe: Any = self.tasks.dag.get_task("describe")
        describe.commands = ["train"]  # what else there is not is left out here

    def run(self, folder: Path) -> str:
        """Run them, and say what came out."""
        dataset = self.tasks.run("provision")
        _check_splits(dataset)
        described = self.tasks.run("describe")
        with own_mlflow(folder):
            trained = self.tasks.run("train")
            metrics = self.tasks.run("evaluate")["metrics"] if "evaluate" in self.commands else []
            if "test" in self.commands:
                _check_cases(self.tasks.run("test"))
            if "predict" in self.commands:
                self._predict(dataset, described["code"], trained["run_id"])
        ran = [word for word in ("train", "evaluate", "test", "predict") if word in self.commands]
        return _text(self.image, ran, int(dataset["rows"]), metrics)

    def _predict(self, dataset: dict[str, Any], code: dict[str, Any], run_id: str) -> None:
        """Predict the rows of the test split, without their targets, as a delivery would."""
        from airflow_mlops.factories.delivery import build_delivery_dag

        plan = {
            "run_id": run_id,
            "model": _NAME,
            "version": "1",
            "dataset_id": dataset["dataset_id"],
            "metrics": [],
            "code": code,
            "window_start": None,
        }
        test_rows = {"newest": dataset["splits"]["test"]}
        examples = {"sql": self.rows.predicted} if self.rows.predicted else test_rows
        tasks = LocalTasks(build_delivery_dag(self.spec), {"plan_batch": plan}, examples)
        tasks.run("provision")
        tasks.run("predict")


def _check_splits(dataset: dict[str, Any]) -> None:
    if empty := [name for name in ("train", "validation", "test") if not dataset["splits"].get(name)]:
        raise TrialError(
            f"provision: of {dataset['rows']} rows none is in {' or '.join(empty)}. Cure: bring more rows.",
            "provision",
        )


def _check_cases(summary: dict[str, Any]) -> None:
    """As the gate judges them."""
    from airflow_mlops.primitives.evaluation.cases import TestSummary
    from airflow_mlops.primitives.evaluation.checks import check_cases

    check = check_cases(TestSummary.from_dict(summary))
    if not check.passed:
        told = [f"{case.get('name')}: {case.get('message')}" for case in summary["failed"][:5]]
        raise TrialError("; ".join([f"test: {check.reason} ({check.observed})", *told]), "test")


def _failure(image: str, error: TrialError) -> str:
    """What failed, with the last lines of its container and the cure."""
    text = str(error)
    if error.task_id == "provision":
        return f"the rows cannot be used: {text}"
    if LAST_LINES:
        lines = "\n".join(f"  | {line}" for line in LAST_LINES)
        text = f"{text}\nIts last lines:\n{lines}"
    if "Cure:" in text:
        return text
    return (
        f"{text}\nCure: mend `{error.task_id}` of the model code, build {image} again, and check again; docs/contract.md "
        "says what each command finds and leaves."
    )


def _text(image: str, ran: Sequence[str], rows: int, metrics: list[dict[str, Any]]) -> str:
    named = [
        f"{metric['name']} {metric['value']:.4g}"
        for metric in metrics
        if metric.get("split") in (None, "test") and not metric.get("slice") and "step" not in metric
    ]
    measured = f" It measured {', '.join(named[:_SHOWN])} on the test rows." if named else ""
    left_out = [word for word in ("evaluate", "test", "predict") if word not in ran]
    missing = f" It has no {', '.join(left_out)}, which was left out." if left_out else ""
    return (
        f"{image}: {', '.join(ran)} ran on {rows:,} rows, and nothing breaks the contract.{measured}{missing} "
        "Nothing is left of it."
    )
