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
    Window,
    names_of,
    of_window,
    raise_all,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_mlops.hooks.store.base import Store
    from airflow_mlops.primitives.monitoring.rules import DriftRule
    from airflow_mlops.primitives.statistics.bins import Reference
    from airflow_mlops.primitives.statistics.drift import DriftReport
    from airflow_mlops.stores.datasets.versions import DatasetStore


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

        with airflow_errors():
            store, rule = self._open(), DriftRule.from_mapping(self.drift)
            applied: list[dict[str, Any]] = []
            broken: list[MLOpsError] = []
            for window in self._windows(store):
                if store.exists(self._key(window, "inputs.json")):
                    continue
                try:
                    report = self._apply(store, window, rule).to_json()
                except MLOpsError as error:
                    broken.append(of_window(window, error))
                    if not isinstance(error, DataError) or error.retriable:
                        continue  # nothing is known of the window yet
                    report = {"error": str(error), "rows": window["rows"], "drifted": []}
                else:
                    if report["error"]:
                        broken.append(of_window(window, SourceError(report["error"])))
                report = self._write_once(store, window, "inputs.json", report)
                self.log.info(
                    "%s: %d rows, drifted: %s", window["window_id"], report["rows"], report["drifted"]
                )
                applied.append({**names_of(window), "rows": report["rows"], "drifted": report["drifted"]})
            raise_all(broken)
            return applied

    def _apply(self, store: Store, window: Window, rule: DriftRule) -> DriftReport:
        from airflow_mlops.hooks.whylogs import profile_parquet
        from airflow_mlops.primitives.statistics.columns import missing_from
        from airflow_mlops.primitives.statistics.drift import compare_window
        from airflow_mlops.stores.datasets.versions import DatasetStore

        datasets = DatasetStore(store, self.application)
        reference = self._reference(store, datasets, window["reference_dataset_id"])
        with scratch_folder() as scratch:
            paths = datasets.paths(window["dataset_id"], "predict", Path(scratch))
            report = compare_window(reference, paths, rule)
            until = datetime.fromisoformat(window["window"][1])
            lacking, _ = missing_from(paths, list(reference.columns))
            there = [name for name in reference.columns if name not in lacking]
            profile = profile_parquet(paths, there, until)
        store.put_if_absent(self._key(window, "profile.bin"), profile)
        return report

    def _reference(self, store: Store, datasets: DatasetStore, dataset_id: str) -> Reference:
        """The training split of a dataset version, counted and profiled once."""
        from airflow_mlops.hooks.whylogs import profile_parquet
        from airflow_mlops.primitives.statistics.bins import Reference, build_reference

        key = f"{self.application}/monitoring/references/{dataset_id}"
        if found := store.read_json(f"{key}.json"):
            return Reference.from_json(found)
        manifest = datasets.manifest(dataset_id)
        columns = manifest.model_inputs
        with scratch_folder() as scratch:
            paths = datasets.paths(dataset_id, "train", Path(scratch))
            reference = build_reference(dataset_id, paths, columns)
            profile = profile_parquet(paths, columns, datetime.fromisoformat(manifest.window[1]))
        store.put_if_absent(f"{key}.bin", profile)
        store.put_json_if_absent(f"{key}.json", reference.to_json())
        return reference
