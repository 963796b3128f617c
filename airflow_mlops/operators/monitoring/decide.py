"""The decision on a window: OK, WARN or RETRAIN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.assets import retraining_asset
from airflow_mlops.operators.errors import airflow_errors
from airflow_mlops.operators.links import (
    MLflowModelLink,
    MLflowReportLink,
    MLflowRunLink,
    show_model,
    show_run,
)
from airflow_mlops.operators.monitoring.windows import (
    MonitoringOperator,
    names_of,
)
from airflow_mlops.quirks.events import read_events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_mlops.primitives.delivery.batch import PredictionBatch
    from airflow_mlops.primitives.monitoring.alarms import Decision
    from airflow_mlops.primitives.reasons import Alarm
    from airflow_mlops.stores.windows import WindowStore


class DecideRetrainingOperator(MonitoringOperator):
    """
    Decide for every window with both reports: OK, WARN or RETRAIN.

    A decision is written once and never changes. Returns ``{"decision": the most serious one, "windows": [{"window_id",
    "decision", "message"}], "alarms": [evidence]}``; ``windows`` are those decided now, ``alarms`` all of which Airflow
    has no event yet, so that none is lost when a task dies between deciding and raising, or while it raises.

    The events are those of the task's inlets, which are ``retraining_asset(application)`` unless given.

    :param rules: ``{"drift": {...} | None, "performance": {...} | None, "retraining": {"on": [...]}}``.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``, for the task's links to the model that was watched.
    """

    template_fields: Sequence[str] = ("rules",)
    operator_extra_links = (MLflowRunLink(), MLflowReportLink(), MLflowModelLink())

    def __init__(self, *, rules: dict[str, Any], mlflow_conn_id: str | None = None, **kwargs: Any) -> None:
        kwargs["inlets"] = kwargs.get("inlets") or [retraining_asset(kwargs["application"])]
        super().__init__(**kwargs)
        self.rules = rules
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Decide each window once, and collect what is still to be said."""
        with airflow_errors():
            predictions, windows = self._open()
            batches = predictions.batches()
            decided: list[dict[str, str]] = []
            alarms: list[Alarm] = []
            for index, batch in enumerate(batches):
                decision = windows.decision(batch.window_id)
                if decision is None:
                    fresh = self._decide(windows, batch, batches[index + 1 :])
                    if fresh is None:
                        continue
                    decision = windows.put_decision(fresh)
                    say = self.log.info if decision.kind == "OK" else self.log.warning
                    say("%s: %s. %s", batch.window_id, decision.kind, decision.message)
                    decided.append(
                        {**names_of(batch), "decision": decision.kind, "message": decision.message}
                    )
                if decision.alarm and not windows.is_raised(batch.window_id):
                    alarms.append(decision.alarm)
            self._show(batches, alarms)
            alarms = self._not_raised(context, windows, alarms)
            kinds = {entry["decision"] for entry in decided} | ({"RETRAIN"} if alarms else set())
            worst = next((kind for kind in ("RETRAIN", "WARN") if kind in kinds), "OK")
            return {
                "decision": worst,
                "windows": decided,
                "alarms": [alarm.to_json() for alarm in alarms],
            }

    def _show(self, batches: list[PredictionBatch], alarms: list[Alarm]) -> None:
        """Lead to the model of the newest alarm, or of the newest window."""
        from airflow_mlops.hooks.mlflow.hook import MLflowHook

        if not batches or not self.mlflow_conn_id:
            return
        about = alarms[-1].window_id if alarms else batches[-1].window_id
        batch = next(batch for batch in batches if batch.window_id == about)
        mlflow = MLflowHook(self.mlflow_conn_id)
        show_model(self, mlflow, batch.model, batch.model_version)
        show_run(self, mlflow, batch.run_id)

    def _not_raised(self, context: Context, windows: WindowStore, alarms: list[Alarm]) -> list[Alarm]:
        """Alarms without an event; one that has an event is marked, and is not looked for again."""
        from airflow_mlops.primitives.monitoring.windows import RaisedAlarm
        from airflow_mlops.primitives.reasons import alarm_ids

        if not alarms:
            return []
        raised = {
            told: event
            for asset in self.inlets
            for event in read_events(context, asset)[0]
            for told in alarm_ids(event.extra)  # whatever was posted
        }
        for alarm in alarms:
            if event := raised.get(alarm.alarm_id):
                seen = RaisedAlarm(alarm.alarm_id, event.source_run_id, event.id)
                windows.put_raised(alarm.window_id, seen)
        return [alarm for alarm in alarms if alarm.alarm_id not in raised]

    def _decide(
        self, windows: WindowStore, batch: PredictionBatch, later: list[PredictionBatch]
    ) -> Decision | None:
        from airflow_mlops.primitives.monitoring.alarms import decide_window
        from airflow_mlops.primitives.monitoring.rules import DriftRule, PerformanceRule

        drift, performance = self.rules.get("drift"), self.rules.get("performance")
        inputs = windows.inputs(batch.window_id) if drift is not None else None
        measured = windows.performance(batch.window_id) if performance is not None else None
        lacking = (drift is not None and inputs is None) or (performance is not None and measured is None)
        if lacking or (drift is None and performance is None):
            return None
        successors = [entry.model_version for entry in later if entry.model_version != batch.model_version]
        return decide_window(
            batch,
            inputs,
            measured,
            drift_rule=DriftRule.from_mapping(drift),
            performance_rule=PerformanceRule.from_mapping(performance),
            retrain_on=(self.rules.get("retraining") or {}).get("on") or (),
            superseded_by=successors[-1] if successors else None,
        )
