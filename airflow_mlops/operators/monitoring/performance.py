"""The performance on a window, measured when its labels are known."""

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
    of_window,
    raise_all,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context
    from duckdb import DuckDBPyConnection

    from airflow_mlops.hooks.store.base import Store
    from airflow_mlops.primitives.monitoring.performance import (
        BettingState,
        ExpectedLoss,
        PerformanceReport,
    )
    from airflow_mlops.primitives.monitoring.rules import PerformanceRule


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

        with airflow_errors():
            store, rule = self._open(), PerformanceRule.from_mapping(self.performance)
            states: dict[str, BettingState] = {}
            waiting: set[str] = set()
            measured: list[dict[str, Any]] = []
            broken: list[MLOpsError] = []
            for window in self._windows(store):
                version = window["model_version"]
                if version in waiting:
                    continue
                report = store.read_json(self._key(window, "performance.json"))
                if report is None:
                    try:
                        tested = self._promise(window, rule)
                        fresh = self._measure(store, window, rule, tested, states.get(version))
                    except MLOpsError as error:
                        broken.append(of_window(window, error))
                        if isinstance(error, DataError) and not isinstance(error, SourceError):
                            self._write_once(store, window, "performance.json", _unmeasured(window, error))
                        else:  # the next try may find the source in order
                            waiting.add(version)
                        continue
                    if fresh is None:
                        waiting.add(version)
                        self.log.info("%s waits for its labels.", window["window_id"])
                        continue
                    report = self._write_once(store, window, "performance.json", fresh.to_json())
                    summary = ("window_id", "model_version", "labelled", "loss", "mean", "auc", "degraded")
                    measured.append({name: report[name] for name in summary})
                    self.log.info("%s", measured[-1])
                if "state" in report:
                    states[version] = _state(report)
            raise_all(broken)
            return measured

    def _promise(self, window: Window, rule: PerformanceRule) -> ExpectedLoss:
        from airflow_mlops.primitives.monitoring.performance import expected_loss

        where = f"Model {window['model']} version {window['model_version']}"
        return expected_loss(window["reference"]["metrics"], rule.loss, where)

    def _measure(
        self,
        store: Store,
        window: Window,
        rule: PerformanceRule,
        tested: ExpectedLoss,
        state: BettingState | None,
    ) -> PerformanceReport | None:
        from airflow_mlops.primitives.delivery.batch import predictions_key
        from airflow_mlops.primitives.monitoring.labels import join_labels, labels_are_complete
        from airflow_mlops.primitives.monitoring.performance import BettingState, measure

        key = predictions_key(window)
        with scratch_folder() as scratch:
            found = join_labels(store.local(key, Path(scratch)), self.examples, self._open_examples)
        if not labels_are_complete(found, datetime.fromisoformat(window["window"][1]), rule.min_labelled):
            return None
        if found.replaced:
            self.log.warning(
                "%s: %d older label(s) of the same key and time were replaced by newer ones.",
                window["window_id"],
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


def _unmeasured(window: Window, error: DataError) -> dict[str, Any]:
    return {"error": str(error), "rows": window["rows"], "labelled": 0, "degraded": False}


def _state(report: Mapping[str, Any]) -> BettingState:
    from airflow_mlops.primitives.monitoring.performance import BettingState

    return BettingState.of(report["state"])
