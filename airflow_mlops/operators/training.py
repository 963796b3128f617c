"""Operators that describe and train model code."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.exceptions import ContractError
from airflow_mlops.operators.model_code import (
    ModelCodeOperator,
    column_config,
    dataset_inputs,
    read_metrics,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_mlops.hooks.datasets.versions import DatasetStore
    from airflow_mlops.primitives.registration.lineage import Lineage
    from airflow_mlops.runners.base import JobState

#: The first brace of a line: where the description may begin.
_OBJECT = re.compile(r"^[^\n{]*\{", re.MULTILINE)


class DescribeModelCodeOperator(ModelCodeOperator):
    """
    Ask the model code what it is, and check the parameters before anything is trained.

    Returns ``{"code": …, "image_digest": …, "description": …, "parameters": …}``: the code pinned to the
    digest that the later tasks of the run use, and the parameters with the defaults filled in.

    :param parameters: parameters of the YAML.
    :param overrides: parameters of the trigger form, stronger than the YAML's.
    :param commands: what the model code must know, because later tasks ask for it.
    """

    command: ClassVar[str] = "describe"
    template_fields: Sequence[str] = (*ModelCodeOperator.template_fields, "parameters", "overrides")

    def __init__(
        self,
        *,
        parameters: dict[str, Any] | None = None,
        overrides: dict[str, Any] | str | None = None,
        commands: Sequence[str] = ("train",),
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.parameters = parameters
        self.overrides = overrides
        self.commands = commands

    def inputs(self, context: Context, scratch: Path) -> dict[str, str]:  # noqa: ARG002
        """Nothing goes in."""
        return {}

    def take_over(self, context: Context, output: Path, state: JobState) -> dict[str, Any]:  # noqa: ARG002
        """Read the description from the job's output and hold the parameters against it."""
        from airflow_mlops.primitives.training.parameters import validate_parameters

        lines = self._runner().logs(self._job_name)
        description = parse_description("\n".join(line.text for line in lines))
        missing = [command for command in self.commands if command not in description["commands"]]
        if missing:
            raise ContractError(
                f"{self._code_name()} describes no command {', '.join(missing)}, which this application needs; it has: "
                f"{', '.join(description['commands'])}. Cure: implement it, or for test write evaluation.cases: false."
            )
        overrides = json.loads(self.overrides) if isinstance(self.overrides, str) else self.overrides
        given = {**(self.parameters or {}), **(overrides or {})}
        parameters = validate_parameters(description.get("parameters") or {}, given)
        code = dict(self._code())
        if state.image_digest:
            code["image"] = state.image_digest
        return {
            "code": code,
            "image": self._code().get("image") or "",
            "image_digest": state.image_digest,
            "description": description,
            "parameters": parameters,
        }


def parse_description(text: str) -> dict[str, Any]:
    """Read what ``describe`` printed: one JSON object, whatever was printed around it.

    :raises ContractError: when there is none, or it lacks what the contract demands.
    """
    description, problem = _first_object(text)
    if description is None:
        raise ContractError(
            f'describe must print one JSON object with "contract": 1{problem}. It printed: {text[:300]!r}. '
            "Cure: print it on short lines, as json.dumps(…, indent=1) does; lines of a log are cut at 8 KiB."
        )
    if description.get("contract") != 1:
        raise ContractError(
            f"describe says contract {description.get('contract')!r}; this version of airflow-mlops speaks contract 1."
        )
    commands = description.get("commands")
    if not isinstance(commands, list) or not all(isinstance(command, str) for command in commands):
        raise ContractError(f"describe must give 'commands' as a list of words, got {commands!r}.")
    return description


def _first_object(text: str) -> tuple[dict[str, Any] | None, str]:
    problem = ""
    for line in _OBJECT.finditer(text):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, line.end() - 1)
        except (ValueError, RecursionError) as error:
            problem = problem or f": {error}"
        else:
            if "contract" in value:
                return value, ""
    return None, problem


class TrainModelOperator(ModelCodeOperator):
    """
    Train on a dataset version and log the outcome to MLflow.

    Returns ``{"run_id", "parameters", "lineage"}``. The MLflow run is found again
    by the job's name, so that a retry never makes a second one.

    :param dataset: what ``ProvisionDatasetOperator`` returned.
    :param description: what :class:`DescribeModelCodeOperator` returned.
    :param reasons: what ``CollectReasonsOperator`` returned; goes to the run's tags.
    :param experiment: MLflow experiment.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    """

    command: ClassVar[str] = "train"
    collected: ClassVar[tuple[str, ...]] = ("model", "output")
    template_fields: Sequence[str] = (*ModelCodeOperator.template_fields, "dataset", "description", "reasons")

    def __init__(
        self,
        *,
        dataset: Any,
        description: Any,
        experiment: str,
        reasons: Any = None,
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.dataset = dataset
        self.description = description
        self.reasons = reasons
        self.experiment = experiment
        self.mlflow_conn_id = mlflow_conn_id

    def inputs(self, context: Context, scratch: Path) -> dict[str, str]:  # noqa: ARG002
        """Train and validation split; the test split stays outside."""
        return dataset_inputs(self._datasets(), self.dataset["dataset_id"], ("train", "validation"), scratch)

    def config(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """The parameters as validated, and the columns by role."""
        return {
            "parameters": self.description["parameters"],
            "columns": column_config(self._datasets().manifest(self.dataset["dataset_id"])),
        }

    def take_over(self, context: Context, output: Path, state: JobState) -> dict[str, Any]:
        """Log parameters, metrics, dataset and model to one MLflow run."""
        from airflow_mlops.hooks.mlflow import MLflowHook

        if not (output / "model/MLmodel").is_file():
            wrote = sorted(path.name for path in (output / "model").glob("*"))[:20]
            raise ContractError(
                f"{self._code_name()} trained and left no MLflow model directory in model/ (a file MLmodel and what it "
                f"names), it wrote: {', '.join(wrote) or 'nothing'}. Cure: save the model there with MLflow."
            )
        metrics = read_metrics(output / "output/metrics.json")
        manifest = self._datasets().manifest(self.dataset["dataset_id"])
        lineage, parameters = self._lineage(context, state), self.description["parameters"]
        mlflow = MLflowHook(self.mlflow_conn_id)
        run_id = mlflow.find_or_create_run(
            self.experiment,
            key=self._job_name,
            name=f"{self.application} {context['ti'].run_id}",
            tags=lineage.to_tags(),
        )
        mlflow.log_parameters(run_id, {**parameters, "seed": self.seed})
        mlflow.log_metrics(run_id, metrics)
        mlflow.log_dataset(
            run_id,
            name=f"{self.application}.dataset",
            digest=manifest.id,
            source=self._datasets().manifest_address(manifest.id),
            schema=[{"name": column.name, "type": column.type} for column in manifest.columns],
            rows=sum(manifest.splits.values()),
        )
        mlflow.log_directory(run_id, output / "model", "model")
        if (output / "output/plots").is_dir():
            mlflow.log_directory(run_id, output / "output/plots", "plots")
        mlflow.finish_run(run_id)
        return {"run_id": run_id, "parameters": parameters, "lineage": asdict(lineage)}

    def _lineage(self, context: Context, state: JobState) -> Lineage:
        from airflow_mlops.primitives.registration.lineage import Lineage, parameters_digest
        from airflow_mlops.primitives.retraining import describe

        ti, described = context["ti"], self.description["description"]
        return Lineage(
            application=self.application,
            dataset_id=self.dataset["dataset_id"],
            image=self.description["image"],
            image_digest=state.image_digest,
            code=f"{described.get('name', '')} {described.get('version', '')}".strip(),
            parameters_digest=parameters_digest(self.description["parameters"]),
            seed=self.seed,
            reasons=describe(self.reasons or []),
            dag_run=f"{ti.dag_id}/{ti.run_id}",
        )

    def _datasets(self) -> DatasetStore:
        from airflow_mlops.hooks.datasets.versions import DatasetStore
        from airflow_mlops.hooks.store.base import open_store

        return DatasetStore(open_store(self.store), self.application)
