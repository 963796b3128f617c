"""Operators that evaluate and test a trained model on the test split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.exceptions import ContractError
from airflow_mlops.operators.errors import airflow_errors
from airflow_mlops.operators.model_code import (
    ModelCodeOperator,
    column_config,
    dataset_inputs,
    read_metrics,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow.sdk import Context

    from airflow_mlops.hooks.datasets.versions import DatasetStore
    from airflow_mlops.hooks.mlflow import MLflowHook
    from airflow_mlops.runners.base import JobState


class TrainedModelOperator(ModelCodeOperator):
    """
    Base of the operators that hand a trained model and one split of a dataset to the model code.

    :param dataset: what ``ProvisionDatasetOperator`` returned.
    :param training: what ``TrainModelOperator`` returned, or any mapping with the model's ``run_id``.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    """

    split: ClassVar[str] = "test"
    template_fields: Sequence[str] = (*ModelCodeOperator.template_fields, "dataset", "training")

    def __init__(
        self, *, dataset: Any, training: Any, mlflow_conn_id: str = "mlflow_default", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.training = training
        self.mlflow_conn_id = mlflow_conn_id

    def inputs(self, context: Context, scratch: Path) -> dict[str, str]:  # noqa: ARG002
        """The model and the split."""
        model = self._mlflow().download(self.training["run_id"], "model", scratch / "download")
        inputs = dataset_inputs(self._datasets(), self.dataset["dataset_id"], (self.split,), scratch)
        return {"model": str(model), **inputs}

    def config(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """The columns by role."""
        return {
            "parameters": self.training.get("parameters") or {},
            "columns": column_config(self._datasets().manifest(self.dataset["dataset_id"])),
        }

    def _mlflow(self) -> MLflowHook:
        from airflow_mlops.hooks.mlflow import MLflowHook

        return MLflowHook(self.mlflow_conn_id)

    def _datasets(self) -> DatasetStore:
        from airflow_mlops.hooks.datasets.versions import DatasetStore
        from airflow_mlops.hooks.store.base import open_store

        return DatasetStore(open_store(self.store), self.application)


class EvaluateModelOperator(TrainedModelOperator):
    """Evaluate the candidate on the test split; returns ``{"run_id", "metrics"}`` and logs them to its run."""

    command: ClassVar[str] = "evaluate"

    def take_over(self, context: Context, output: Path, state: JobState) -> dict[str, Any]:  # noqa: ARG002
        """Log the metrics and return them."""
        metrics = read_metrics(output / "output/metrics.json")
        if not metrics:
            raise ContractError(f"{self._code_name()} evaluated and gave no metric.")
        self._mlflow().log_evaluation(self.training["run_id"], metrics)
        return {"run_id": self.training["run_id"], "metrics": metrics}


class EvaluateChampionOperator(TrainedModelOperator):
    """
    Evaluate the champion on the candidate's test split, in the image that trained it.

    Skipped when there is no champion. Returns ``{"run_id", "version", "metrics"}``.

    :param model: name of the registered model.
    """

    command: ClassVar[str] = "evaluate"

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(training=None, **kwargs)
        self.model = model

    def execute(self, context: Context) -> Any:
        """Find the champion, then evaluate it."""
        self._find_champion()
        return super().execute(context)

    def carried(self) -> dict[str, Any]:
        """The champion that is being evaluated, whoever may be it when the job has ended."""
        return {"training": self.training}

    def complete(self, context: Context, event: dict[str, Any], job: str, carried: dict[str, Any]) -> Any:
        """Go on with that champion."""
        self.training = carried["training"]
        return super().complete(context, event, job, carried)

    def take_over(self, context: Context, output: Path, state: JobState) -> dict[str, Any]:  # noqa: ARG002
        """Return the metrics; the champion's own run stays as it was."""
        metrics = read_metrics(output / "output/metrics.json")
        return {"run_id": self.training["run_id"], "version": self.training["version"], "metrics": metrics}

    def _find_champion(self) -> None:
        with airflow_errors():
            champion = self._mlflow().champion(self.model)
        if champion is None:
            raise AirflowSkipException(f"Model {self.model} has no champion yet: nothing to compare with.")
        self.training = {"run_id": champion.run_id, "version": champion.version}
        digest = champion.tags.get("airflow_mlops.image_digest")
        if digest and self._code().get("image"):
            self.code = {**self._code(), "image": digest}


class TestModelOperator(TrainedModelOperator):
    """
    Run the image's test cases on the trained model.

    Returns ``{"total", "failures", "errors", "skipped", "failed"}``; a failed case is a result for the gate, no
    failure of the task.
    """

    __test__ = False  # the name is a verb here, not a test class
    command: ClassVar[str] = "test"

    def accepts(self, kind: str, output: Path) -> bool:
        """Failed cases are a result when the report is there."""
        return kind == "tests" and (output / "output/tests.xml").is_file()

    def take_over(self, context: Context, output: Path, state: JobState) -> dict[str, Any]:  # noqa: ARG002
        """Read the JUnit report and keep it with the MLflow run."""
        report = output / "output/tests.xml"
        if not report.is_file():
            raise ContractError(f"{self._code_name()} tested and wrote no output/tests.xml (JUnit).")
        from airflow_mlops.primitives.evaluation.cases import read_test_summary

        summary = read_test_summary(report)
        self._mlflow().log_file(self.training["run_id"], report, "evaluation")
        return summary.to_dict()
