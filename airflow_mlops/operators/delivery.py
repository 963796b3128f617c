"""Operators that deliver predictions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.exceptions import ContractError, TrackingError
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors
from airflow_mlops.operators.evaluation.evaluate import TrainedModelOperator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow.sdk import Context

    from airflow_mlops.runners.protocol import JobState
    from airflow_mlops.stores.predictions import PredictionStore


class PlanBatchOperator(MLOpsTask):
    """
    Find the champion and the examples that it has not predicted yet.

    Returns ``{"run_id", "model", "version", "dataset_id", "code", "metrics", "window_start"}``; skipped when there is
    no champion. ``metrics`` are those of the champion's own test split.

    :param application: name of the application.
    :param store: URI of the artifact store.
    :param model: name of the registered model.
    :param code: ``image``, ``entrypoint``, ``directory``; the image is replaced by the champion's own digest.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    """

    template_fields: Sequence[str] = ("model", "code")

    def __init__(
        self,
        *,
        application: str,
        store: str,
        model: str,
        code: dict[str, Any],
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.application = application
        self.store = store
        self.model = model
        self.code = code
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Read the registry and the ledger of batches."""
        from airflow_mlops.hooks.mlflow.hook import MLflowHook
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.primitives.delivery.batch import next_start
        from airflow_mlops.primitives.registration.lineage import promise_from_tags
        from airflow_mlops.stores.datasets.versions import DatasetStore
        from airflow_mlops.stores.predictions import PredictionStore

        with airflow_errors():
            mlflow = MLflowHook(self.mlflow_conn_id)
            champion = mlflow.champion(self.model)
            if champion is None:
                raise AirflowSkipException(
                    f"Model {self.model} has no champion: nothing can predict. Cure: run {self.application}__training."
                )
            store = open_store(self.store)
            dataset_id = champion.tags.get("airflow_mlops.dataset_id")
            if not dataset_id:
                raise TrackingError(
                    f"Version {champion.version} of model {self.model}, the champion, has no tag airflow_mlops.dataset_id: "
                    f"nobody knows what it was trained on. Cure: give the alias to a version that {self.application}"
                    "__training registered, or set the tag."
                )
            trained_to = DatasetStore(store, self.application).manifest(dataset_id).window[1]
            digest = champion.tags.get("airflow_mlops.image_digest")
            return {
                "run_id": champion.run_id,
                "model": self.model,
                "version": champion.version,
                "dataset_id": dataset_id,
                "metrics": promise_from_tags(champion.tags) or mlflow.evaluation(champion.run_id),
                "code": {**self.code, "image": digest} if digest else self.code,
                "window_start": next_start(PredictionStore(store, self.application).batches(), trained_to),
            }


class PredictBatchOperator(TrainedModelOperator):
    """
    Predict a dataset version with the champion and publish the predictions, all or nothing.

    ``predictions/<window>/<digest>.parquet`` holds the keys, ``request_id``, the example's time, ``prediction``,
    ``predicted_at`` and ``model_version``; ``meta.json`` beside it names the file (``file``), is written last and makes
    the batch exist. Neither is ever replaced.
    Skipped when a later run has predicted these examples since: somebody cleared a task of an old run.
    """

    command: ClassVar[str] = "predict"
    split: ClassVar[str] = "predict"

    def execute(self, context: Context) -> Any:
        """Predict, unless it has been done."""
        with airflow_errors():
            self._skip_overtaken()
            self._datasets().check_writable()
        return super().execute(context)

    def _skip_overtaken(self) -> None:
        from airflow_mlops.primitives.delivery.batch import overtaken_by

        start, end = self.dataset["window"]
        if batch := overtaken_by(self._predictions().batches(), start, end):
            raise AirflowSkipException(
                f"Examples after {start} have been predicted since this run was planned, in batch {batch}. "
                "Cure: start a new run, or clear plan_batch too."
            )

    def take_over(self, context: Context, output: Path, state: JobState) -> dict[str, Any]:  # noqa: ARG002
        """Check the predictions against the examples and publish them."""
        from airflow_mlops.primitives.delivery.batch import PredictionBatch, window_id
        from airflow_mlops.primitives.delivery.predictions import write_predictions

        source = output / "output/predictions.parquet"
        if not source.is_file():
            raise ContractError(f"{self._code_name()} predicted and wrote no output/predictions.parquet.")
        datasets, plan = self._datasets(), self.training
        manifest = datasets.manifest(self.dataset["dataset_id"])
        start, end = self.dataset["window"]
        window, now = window_id(start, end), datetime.now(UTC)
        target = output / "published.parquet"
        rows = write_predictions(
            source,
            datasets.paths(manifest.id, self.split, output / "examples"),
            target,
            application=self.application,
            window=window,
            keys=[column.name for column in manifest.columns if column.role == "key"],
            timestamp=next(column.name for column in manifest.columns if column.role == "timestamp"),
            model_version=plan["version"],
            predicted_at=now,
        )
        batch = PredictionBatch(
            window_id=window,
            window=(start, end),
            rows=rows,
            application=self.application,
            dataset_id=manifest.id,
            model=plan["model"],
            model_version=plan["version"],
            reference_dataset_id=plan["dataset_id"],
            run_id=plan["run_id"],
            predicted_at=now.isoformat(),
            reference={"metrics": plan["metrics"]},
            report=str(self.dataset.get("report") or ""),
        )
        self._skip_overtaken()  # the job took its time
        created, published = self._predictions().publish(batch, target)
        rows, version = published.rows, published.model_version
        how = "Published" if created else "Already published"
        self.log.info("%s %d predictions of %s by version %s", how, rows, window, version)
        return {"window_id": window, "rows": rows, "model_version": version, "created": created}

    def _predictions(self) -> PredictionStore:
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.predictions import PredictionStore

        return PredictionStore(open_store(self.store), self.application)
