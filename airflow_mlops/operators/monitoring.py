"""Operators that watch what comes in, how well it was predicted, and say when a new model is needed.

Everything about a window lies in ``<application>/monitoring/windows/<window>/`` and is written once:
``profile.bin`` and ``inputs.json``, ``performance.json``, ``decision.json``. A task that runs again finds what is
there and goes on from it. ``raised.json`` says that the event of an alarm was seen in Airflow.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.assets import retraining_asset
from airflow_mlops.exceptions import DataError, MLOpsError, SourceError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors
from airflow_mlops.operators.links import (
    MLflowModelLink,
    MLflowReportLink,
    MLflowRunLink,
    show_model,
    show_run,
)
from airflow_mlops.quirks.events import read_events

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
    from airflow_mlops.primitives.monitoring.rules import DriftRule, PerformanceRule
    from airflow_mlops.primitives.statistics.bins import Reference
    from airflow_mlops.primitives.statistics.drift import DriftReport
    from airflow_mlops.stores.datasets.versions import DatasetStore

Window = dict[str, Any]


class MonitoringOperator(MLOpsTask):
    """
    Base of the monitoring operators: where the windows of an application are.

    :param application: name of the application.
    :param store: URI of the artifact store.
    """

    def __init__(self, *, application: str, store: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.store = store

    def _open(self) -> Store:
        from airflow_mlops.hooks.store.open import open_store

        return open_store(self.store)

    def _windows(self, store: Store) -> list[Window]:
        """Metadata of all published predictions, oldest window first."""
        from airflow_mlops.hooks.store.base import published_batches

        return published_batches(store, self.application)

    def _key(self, window: Window, name: str) -> str:
        return f"{self.application}/monitoring/windows/{window['window_id']}/{name}"

    def _write_once(self, store: Store, window: Window, name: str, value: dict[str, Any]) -> dict[str, Any]:
        """Write unless another run was faster; return what is there now."""
        key = self._key(window, name)
        store.put_json_if_absent(key, {**_names(window), **value})
        written: dict[str, Any] = store.read_json(key)
        return written


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
                    broken.append(_of(window, error))
                    if not isinstance(error, DataError) or error.retriable:
                        continue  # nothing is known of the window yet
                    report = {"error": str(error), "rows": window["rows"], "drifted": []}
                else:
                    if report["error"]:
                        broken.append(_of(window, SourceError(report["error"])))
                report = self._write_once(store, window, "inputs.json", report)
                self.log.info(
                    "%s: %d rows, drifted: %s", window["window_id"], report["rows"], report["drifted"]
                )
                applied.append({**_names(window), "rows": report["rows"], "drifted": report["drifted"]})
            _raise_all(broken)
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
                        broken.append(_of(window, error))
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
            _raise_all(broken)
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
        from airflow_mlops.primitives.datasets.examples import Examples, ExamplesQuery

        sources = AirflowSources(self.examples.get("connection") or "aws_default")
        Examples.open(connection, ExamplesQuery.from_mapping(self.examples), sources)


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
                        {**_names(window), "decision": decision["kind"], "message": decision["message"]}
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


class RaiseAlarmOperator(MonitoringOperator):
    """
    Tell the outlets that a new model is needed, with the evidence; skipped when there is no alarm.

    The event's ``extra`` is the newest alarm (``reason``, ``alarm_id``, ``message``, ``window``, ``figures``,
    ``model_version``, ...) with all of them in ``alarms``. Raising an alarm again is harmless: its id is the same.

    :param decision: what :class:`DecideRetrainingOperator` returned.
    """

    template_fields: Sequence[str] = ("decision",)

    def __init__(self, *, decision: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.decision = decision

    def execute(self, context: Context) -> list[str]:
        """Put the evidence on the outlets' events, which leave with the task's success."""
        from airflow_mlops.contract.protocol.storable import storable

        alarms: list[Any] = list((self.decision or {}).get("alarms") or ())
        if not alarms:
            raise AirflowSkipException("No alarm: no window asks for a new model.")
        for outlet in self.outlets:
            extra = storable({**alarms[-1], "alarms": alarms})
            # What makes the event known is kept, however much there is to say.
            ids = [{"alarm_id": alarm["alarm_id"]} for alarm in alarms]
            told = extra if isinstance(extra["alarms"], list) else {**extra, "alarms": ids}
            context["outlet_events"][outlet].extra = told
        for alarm in alarms:
            self.log.warning("%s alarm %s: %s", alarm["reason"], alarm["alarm_id"], alarm["message"])
        return [alarm["alarm_id"] for alarm in alarms]


def _alarms_of(extra: Any) -> list[Mapping[str, Any]]:
    """The alarms that an event tells of, whatever was posted."""
    if not isinstance(extra, dict):
        return []
    told = extra.get("alarms")
    return [one for one in (extra, *(told if isinstance(told, list) else ())) if isinstance(one, dict)]


def _names(window: Window) -> dict[str, Any]:
    return {"window_id": window["window_id"], "model_version": window["model_version"]}


def _unmeasured(window: Window, error: DataError) -> dict[str, Any]:
    return {"error": str(error), "rows": window["rows"], "labelled": 0, "degraded": False}


def _state(report: Mapping[str, Any]) -> BettingState:
    from airflow_mlops.primitives.monitoring.performance import BettingState

    return BettingState.of(report["state"])


def _of(window: Window, error: MLOpsError) -> MLOpsError:
    """The error with the name of its window, of the same type: some are worth another try."""
    return type(error)(f"Window {window['window_id']}: {error}")


def _raise_all(broken: list[MLOpsError]) -> None:
    """Tell of all windows at once; try again only where another try may help all that failed."""
    if broken:
        final = [error for error in broken if not error.retriable]
        raise type((final or broken)[0])(" ".join(map(str, broken)))
