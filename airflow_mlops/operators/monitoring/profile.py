"""The profile of a window's inputs, and their drift from the training data."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import DataError, MLOpsError, SourceError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.operators.errors import airflow_errors
from airflow_mlops.operators.monitoring.windows import (
    MonitoringOperator,
    names_of,
    of_window,
    raise_all,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_mlops.primitives.delivery.batch import PredictionBatch
    from airflow_mlops.primitives.monitoring.rules import DriftRule
    from airflow_mlops.primitives.statistics.bins import Reference
    from airflow_mlops.primitives.statistics.drift import DriftReport
    from airflow_mlops.stores.datasets.versions import DatasetStore
    from airflow_mlops.stores.windows import WindowStore


class ProfileInputsOperator(MonitoringOperator):
    """
    Profile the inputs of every new window of predictions and compare them with the model's training data.

    Writes a stock whylogs profile and a drift report for each window. A window whose data cannot be read is recorded
    as such, fails this task once and holds up no other window. Returns a list of
    ``{"window_id", "rows", "drifted": [columns]}`` of the windows that were new.

    :param drift: ``false_alarm_rate``, ``min_rows``, ``columns``, ``min_columns``, ``alarm``; all optional.
    """

    template_fields: Sequence[str] = ("drift",)

    def __init__(self, *, drift: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.drift = drift

    def execute(self, context: Context) -> list[dict[str, Any]]:  # noqa: ARG002
        """Apply each window once."""
        from airflow_mlops.primitives.monitoring.rules import DriftRule
        from airflow_mlops.primitives.monitoring.windows import WindowInputs

        with airflow_errors():
            (predictions, windows), rule = self._open(), DriftRule.from_mapping(self.drift)
            applied: list[dict[str, Any]] = []
            broken: list[MLOpsError] = []
            for batch in predictions.batches():
                if windows.has_inputs(batch.window_id):
                    continue
                try:
                    record = WindowInputs.compared(batch, self._apply(windows, batch, rule))
                except MLOpsError as error:
                    broken.append(of_window(batch, error))
                    if not isinstance(error, DataError) or error.retriable:
                        continue  # nothing is known of the window yet
                    record = WindowInputs.unreadable(batch, str(error))
                else:
                    if record.error:
                        broken.append(of_window(batch, SourceError(record.error)))
                record = windows.put_inputs(record)
                drifted = list(record.drifted)
                self.log.info("%s: %d rows, drifted: %s", batch.window_id, record.rows, drifted)
                applied.append({**names_of(batch), "rows": record.rows, "drifted": drifted})
            raise_all(broken)
            return applied

    def _apply(self, windows: WindowStore, batch: PredictionBatch, rule: DriftRule) -> DriftReport:
        from airflow_mlops.hooks.whylogs import profile_parquet
        from airflow_mlops.primitives.statistics.columns import missing_from
        from airflow_mlops.primitives.statistics.drift import compare_window
        from airflow_mlops.stores.datasets.versions import DatasetStore

        datasets = DatasetStore(windows.store, self.application)
        reference = self._reference(windows, datasets, batch.reference_dataset_id)
        with scratch_folder() as scratch:
            paths = datasets.paths(batch.dataset_id, "predict", Path(scratch))
            report = compare_window(reference, paths, rule)
            lacking, _ = missing_from(paths, list(reference.columns))
            there = [name for name in reference.columns if name not in lacking]
            profile = profile_parquet(paths, there, batch.end)
        windows.put_profile(batch.window_id, profile)
        return report

    def _reference(self, windows: WindowStore, datasets: DatasetStore, dataset_id: str) -> Reference:
        """The training split of a dataset version, counted and profiled once."""
        from airflow_mlops.hooks.whylogs import profile_parquet
        from airflow_mlops.primitives.statistics.bins import build_reference

        if found := windows.reference(dataset_id):
            return found
        manifest = datasets.manifest(dataset_id)
        columns = manifest.model_inputs
        with scratch_folder() as scratch:
            paths = datasets.paths(dataset_id, "train", Path(scratch))
            reference = build_reference(dataset_id, paths, columns)
            profile = profile_parquet(paths, columns, datetime.fromisoformat(manifest.window[1]))
        windows.put_reference(reference, profile)
        return reference
