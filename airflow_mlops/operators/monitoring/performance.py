"""The performance on a window, measured when its labels are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import DataError, MLOpsError, SourceError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.operators.errors import airflow_errors
from airflow_mlops.operators.monitoring.windows import (
    MonitoringOperator,
    of_window,
    raise_all,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.delivery.batch import PredictionBatch
    from airflow_mlops.primitives.monitoring.performance import (
        BettingState,
        PerformanceReport,
    )
    from airflow_mlops.primitives.monitoring.rules import PerformanceRule
    from airflow_mlops.stores.predictions import PredictionStore


class MeasurePerformanceOperator(MonitoringOperator):
    """
    Join predictions with the labels that came since and test whether the model is worse than its own test said.

    A window is measured once, when its labels are complete, and in the order of time, because the test goes on from
    one window of a model version to the next. A window whose model has promised no such loss is recorded as such,
    fails this task once and holds up no other window. Returns a list of
    ``{"window_id", "labelled", "loss", "mean", "auc", "degraded"}`` of the windows that were new.

    :param examples: where the labels are: ``sql`` or ``parquet``, ``keys``, ``timestamp``, ``targets``,
        ``targets_known_at``, ``folder``.
    :param performance: ``loss``, ``false_alarm_rate``, ``min_rows``, ``min_labelled``, ``alarm``; all optional.
    """

    template_fields: Sequence[str] = ("examples", "performance")

    def __init__(
        self, *, examples: dict[str, Any], performance: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.examples = examples
        self.performance = performance

    def execute(self, context: Context) -> list[dict[str, Any]]:  # noqa: ARG002
        """Measure each window once."""
        from airflow_mlops.primitives.monitoring.rules import PerformanceRule
        from airflow_mlops.primitives.monitoring.windows import WindowPerformance

        with airflow_errors():
            (predictions, windows), rule = self._open(), PerformanceRule.from_mapping(self.performance)
            states: dict[str, BettingState] = {}
            waiting: set[str] = set()
            measured: list[dict[str, Any]] = []
            broken: list[MLOpsError] = []
            for batch in predictions.batches():
                version = batch.model_version
                if version in waiting:
                    continue
                record = windows.performance(batch.window_id)
                if record is None:
                    try:
                        fresh = self._measure(predictions, batch, rule, states.get(version))
                    except MLOpsError as error:
                        broken.append(of_window(batch, error))
                        if isinstance(error, DataError) and not isinstance(error, SourceError):
                            windows.put_performance(WindowPerformance.unmeasured(batch, str(error)))
                        else:  # the next try may find the source in order
                            waiting.add(version)
                        continue
                    if fresh is None:
                        waiting.add(version)
                        self.log.info("%s waits for its labels.", batch.window_id)
                        continue
                    record = windows.put_performance(WindowPerformance.measured(batch, fresh))
                    told = record.to_json()
                    summary = ("window_id", "model_version", "labelled", "loss", "mean", "auc", "degraded")
                    measured.append({name: told.get(name) for name in summary})
                    self.log.info("%s", measured[-1])
                if record.report is not None:
                    states[version] = record.report.state
            raise_all(broken)
            return measured

    def _measure(
        self,
        predictions: PredictionStore,
        batch: PredictionBatch,
        rule: PerformanceRule,
        state: BettingState | None,
    ) -> PerformanceReport | None:
        from airflow_mlops.primitives.monitoring.labels import join_labels, labels_are_complete
        from airflow_mlops.primitives.monitoring.performance import BettingState, expected_loss, measure

        where = f"Model {batch.model} version {batch.model_version}"
        tested = expected_loss(batch.metrics, rule.loss, where)
        with scratch_folder() as scratch:
            local = predictions.local(batch, Path(scratch))
            found = join_labels(local, self.examples, self._open_examples)
        if not labels_are_complete(found, batch.end, rule.min_labelled):
            return None
        if found.replaced:
            self.log.warning(
                "%s: %d older label(s) of the same key and time were replaced by newer ones.",
                batch.window_id,
                found.replaced,
            )
        return measure(
            found.prediction,
            found.actual,
            rows=found.rows,
            loss=rule.loss,
            tested=tested,
            state=state or BettingState(),
            false_alarm_rate=rule.false_alarm_rate,
            min_labels=rule.min_rows,
            replaced=found.replaced,
        )

    def _open_examples(self, connection: DuckDBPyConnection) -> None:
        """The view ``examples``, as provisioning reads them."""
        from airflow_mlops.hooks.sources.examples import AirflowSources
        from airflow_mlops.primitives.datasets.examples import Examples
        from airflow_mlops.primitives.datasets.query import ExamplesQuery

        sources = AirflowSources(self.examples.get("connection") or "aws_default")
        Examples.open(connection, ExamplesQuery.from_mapping(self.examples), sources)
