"""Operators that evaluate and test a trained model on the test split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mlops.exceptions import ContractError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.jobs.files import column_config, dataset_inputs, read_metrics, read_text
from airflow_mlops.operators.errors import airflow_errors
from airflow_mlops.operators.model_code import ModelCodeOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_mlops.hooks.mlflow.hook import MLflowHook
    from airflow_mlops.primitives.evaluation.predicted import PredictedRows
    from airflow_mlops.runners.protocol import JobState
    from airflow_mlops.stores.datasets.versions import DatasetStore

PREDICTIONS = "output/predictions.parquet"
#: Characters of a champion's own words that are kept.
FAILURE_LIMIT = 1_000


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
        model = self._mlflow().fetch_model(self.training["run_id"], scratch / "download")
        inputs = dataset_inputs(self._datasets(), self.dataset["dataset_id"], (self.split,), scratch)
        return {"model": str(model), **inputs}

    def config(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """The parameters that the model was trained with, and the columns by role."""
        parameters = self.training.get("parameters")
        if parameters is None:
            # A champion is known by its run alone.
            record = self._mlflow().record(self.training["run_id"])
            parameters = (record.config.get("parameters") if record else None) or {}
        return {
            "parameters": parameters,
            "columns": column_config(self._datasets().manifest(self.dataset["dataset_id"])),
        }

    def _mlflow(self) -> MLflowHook:
        from airflow_mlops.hooks.mlflow.hook import MLflowHook

        return MLflowHook(self.mlflow_conn_id)

    def _datasets(self) -> DatasetStore:
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.datasets.versions import DatasetStore

        return DatasetStore(open_store(self.store), self.application)

    def _keep_predictions(self, output: Path) -> str | None:
        """Put what the job predicted of the test split beside the dataset version; returns its key."""
        from airflow_mlops.stores.predictions import TestPredictions

        return TestPredictions(self._datasets()).keep(self.dataset, self._job_name, output / PREDICTIONS)


class EvaluateModelOperator(TrainedModelOperator):
    """
    Evaluate the candidate on the test split, and log its metrics to its run.

    Where the model code wrote ``output/predictions.parquet``, the metrics that are known here are measured from it and
    the targets of the dataset version, and stand in place of the model code's own figures of the same name.
    Returns ``{"run_id", "metrics", "reported", "predictions"}``: all metrics, those that were replaced, and the key of
    the predictions in the store.

    :param threshold: the probability from which a prediction counts as 1.
    """

    command: ClassVar[str] = "evaluate"

    def __init__(self, *, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold

    def take_over(self, context: Context, output: Path, state: JobState) -> dict[str, Any]:  # noqa: ARG002
        """Measure, log and return."""
        from airflow_mlops.hooks.mlflow.hook import THRESHOLD_TAG
        from airflow_mlops.primitives.evaluation.measures import with_measured

        reported = read_metrics(output / "output/metrics.json")
        rows = self._predicted(output)
        metrics, replaced = with_measured(reported, rows)
        if not metrics:
            raise ContractError(
                f"{self._code_name()} evaluated and gave no metric. Cure: log one, or write output/predictions.parquet."
            )
        mlflow = self._mlflow()
        mlflow.log_evaluation(self.training["run_id"], metrics)
        # Who evaluates again measures by the same.
        mlflow.set_tags(self.training["run_id"], {THRESHOLD_TAG: self.threshold})
        return {
            "run_id": self.training["run_id"],
            "metrics": metrics,
            "reported": replaced,
            "predictions": self._keep_predictions(output),
        }

    def _predicted(self, output: Path) -> PredictedRows | None:
        from airflow_mlops.primitives.evaluation.predicted import read_predicted
        from airflow_mlops.stores.predictions import test_split

        predictions = output / PREDICTIONS
        if not predictions.is_file():
            self.log.warning(
                "%s evaluated and wrote no output/predictions.parquet: its own figures count, and comparisons have no "
                "paired rows.",
                self._code_name(),
            )
            return None
        with scratch_folder() as scratch:
            split = test_split(self._datasets(), self.dataset["dataset_id"], Path(scratch))
            return read_predicted(
                split, predictions, paradigm=self.paradigm, threshold=self.threshold, seed=self.seed
            )


class EvaluateChampionOperator(TrainedModelOperator):
    """
    Evaluate the champion on the candidate's test split, in the image that trained it.

    Skipped when there is no champion. A champion that cannot be evaluated, because it does not know the new features or
    its image is gone, is a result and no failure: the gate decides what it means.
    Returns ``{"run_id", "version", "metrics", "predictions"}``, or with ``failure`` in place of the last one.

    :param model: name of the registered model.
    """

    command: ClassVar[str] = "evaluate"

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(training=None, **kwargs)
        self.model = model
        self._last_try = False

    def execute(self, context: Context) -> Any:
        """Find the champion, then evaluate it."""
        self._find_champion()
        self._last_try = not self._retried(context)
        try:
            return super().execute(context)
        except AirflowFailException as error:
            return self._inconclusive(str(error))

    def carried(self) -> dict[str, Any]:
        """The champion that is being evaluated, whoever may be it when the job has ended."""
        return {"training": self.training}

    def complete(self, context: Context, event: dict[str, Any], job: str, carried: dict[str, Any]) -> Any:
        """Go on with that champion."""
        self.training = carried["training"]
        self._last_try = not self._retried(context)
        try:
            return super().complete(context, event, job, carried)
        except AirflowFailException as error:
            return self._inconclusive(str(error))

    def accepts(self, kind: str, output: Path) -> bool:  # noqa: ARG002
        """A champion that fails of itself, again and again, is a result."""
        return self._last_try and kind in ("failed", "out_of_memory")

    def take_over(self, context: Context, output: Path, state: JobState) -> dict[str, Any]:  # noqa: ARG002
        """Return the metrics; the champion's own run stays as it was."""
        if state.exit_code != 0:
            from airflow_mlops.hooks.connections.secrets import without_secrets

            said = without_secrets(read_text(output / "output/failure").strip(), self.secrets or {})[
                :FAILURE_LIMIT
            ]
            return self._inconclusive(f"exit code {state.exit_code}: {said}")
        metrics = read_metrics(output / "output/metrics.json")
        kept = self._keep_predictions(output)
        return {**self._names(), "metrics": metrics, "predictions": kept}

    def _inconclusive(self, failure: str) -> dict[str, Any]:
        self.log.warning(
            "Version %s of %s could not be evaluated on the new test split: %s",
            self.training["version"],
            self.model,
            failure,
        )
        return {**self._names(), "metrics": [], "failure": failure[:FAILURE_LIMIT]}

    def _names(self) -> dict[str, Any]:
        return {"run_id": self.training["run_id"], "version": self.training["version"]}

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
        """Read the JUnit report, hold it against the exit code, and keep it with the MLflow run."""
        report = output / "output/tests.xml"
        if not report.is_file():
            raise ContractError(f"{self._code_name()} tested and wrote no output/tests.xml (JUnit).")
        from airflow_mlops.contract.protocol.failures import CasesFailedError
        from airflow_mlops.hooks.connections.masking import without_known_secrets
        from airflow_mlops.primitives.container_output.judging import judge
        from airflow_mlops.primitives.evaluation.cases import TestSummary

        counted = judge(
            "airflow_mlops.primitives.evaluation.cases:count_cases", str(report), what="output/tests.xml"
        )
        summary = TestSummary.from_dict(counted)
        if state.exit_code == CasesFailedError.exit_code:
            summary = summary.with_unnamed_failure()
        text = report.read_text(errors="surrogateescape")
        report.write_text(without_known_secrets(text), errors="surrogateescape")
        self._mlflow().log_file(self.training["run_id"], report, "evaluation")
        failed = tuple(without_known_secrets(dict(case)) for case in summary.failed)
        return replace(summary, failed=failed).to_dict()
