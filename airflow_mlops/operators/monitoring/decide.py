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
    Window,
    names_of,
)
from airflow_mlops.quirks.events import read_events

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_mlops.hooks.store.base import Store


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
            store = self._open()
            windows = self._windows(store)
            decided: list[dict[str, str]] = []
            alarms: list[Mapping[str, Any]] = []
            for index, window in enumerate(windows):
                decision = store.read_json(self._key(window, "decision.json"))
                if decision is None:
                    decision = self._decide(store, window, windows[index + 1 :])
                    if decision is None:
                        continue
                    decision = self._write_once(store, window, "decision.json", decision)
                    say = self.log.info if decision["kind"] == "OK" else self.log.warning
                    say("%s: %s. %s", window["window_id"], decision["kind"], decision["message"])
                    decided.append(
                        {**names_of(window), "decision": decision["kind"], "message": decision["message"]}
                    )
                if decision["alarm"] and not store.exists(self._key(window, "raised.json")):
                    alarms.append(decision["alarm"])
            self._show(windows, alarms)
            alarms = self._not_raised(context, store, alarms)
            kinds = {entry["decision"] for entry in decided} | ({"RETRAIN"} if alarms else set())
            worst = next((kind for kind in ("RETRAIN", "WARN") if kind in kinds), "OK")
            return {"decision": worst, "windows": decided, "alarms": alarms}

    def _show(self, windows: list[Window], alarms: list[Mapping[str, Any]]) -> None:
        """Lead to the model of the newest alarm, or of the newest window."""
        from airflow_mlops.hooks.mlflow.hook import MLflowHook

        if not windows or not self.mlflow_conn_id:
            return
        about = alarms[-1]["window_id"] if alarms else windows[-1]["window_id"]
        window = next(window for window in windows if window["window_id"] == about)
        mlflow = MLflowHook(self.mlflow_conn_id)
        show_model(self, mlflow, window["model"], window["model_version"])
        show_run(self, mlflow, window["run_id"])

    def _not_raised(
        self, context: Context, store: Store, alarms: list[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """Alarms without an event; one that has an event is marked, and is not looked for again."""
        if not alarms:
            return []
        raised = {
            told["alarm_id"]: event
            for asset in self.inlets
            for event in read_events(context, asset)[0]
            for told in _alarms_of(event.extra)
            if isinstance(told.get("alarm_id"), str)  # whatever was posted
        }
        for alarm in alarms:
            if event := raised.get(alarm["alarm_id"]):
                marker = {"alarm_id": alarm["alarm_id"], "run_id": event.source_run_id, "event": event.id}
                store.put_json_if_absent(self._key(dict(alarm), "raised.json"), marker)
        return [alarm for alarm in alarms if alarm["alarm_id"] not in raised]

    def _decide(self, store: Store, window: Window, later: list[Window]) -> dict[str, Any] | None:
        from airflow_mlops.primitives.monitoring.alarms import decide_window
        from airflow_mlops.primitives.monitoring.rules import DriftRule, PerformanceRule

        watched = {"inputs.json": self.rules.get("drift"), "performance.json": self.rules.get("performance")}
        reports = {
            name: store.read_json(self._key(window, name))
            for name, rule in watched.items()
            if rule is not None
        }
        if not reports or None in reports.values():
            return None
        successors = [
            entry["model_version"] for entry in later if entry["model_version"] != window["model_version"]
        ]
        return decide_window(
            window,
            reports.get("inputs.json"),
            reports.get("performance.json"),
            drift_rule=DriftRule.from_mapping(watched["inputs.json"]),
            performance_rule=PerformanceRule.from_mapping(watched["performance.json"]),
            retrain_on=(self.rules.get("retraining") or {}).get("on") or (),
            superseded_by=successors[-1] if successors else None,
        ).to_json()


def _alarms_of(extra: Any) -> list[Mapping[str, Any]]:
    """The alarms that an event tells of, whatever was posted."""
    if not isinstance(extra, dict):
        return []
    told = extra.get("alarms")
    return [one for one in (extra, *(told if isinstance(told, list) else ())) if isinstance(one, dict)]
