"""What follows from a window: nothing, a warning for people, or the wish for a new model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from airflow_mlops.primitives.reasons import Alarm
from airflow_mlops.primitives.texts.records import Fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_mlops.primitives.delivery.batch import PredictionBatch
    from airflow_mlops.primitives.monitoring.performance import PerformanceReport
    from airflow_mlops.primitives.monitoring.rules import DriftRule, PerformanceRule
    from airflow_mlops.primitives.monitoring.windows import WindowInputs, WindowPerformance
    from airflow_mlops.primitives.reasons import ReasonKind
    from airflow_mlops.primitives.statistics.drift import DriftReport

DecisionKind = Literal["OK", "WARN", "RETRAIN"]
_SHOWN = 10  # columns in the evidence
_NAMED = 5  # columns in the message


@dataclass(frozen=True)
class Decision:
    """What follows from one window.

    :param window_id: the window.
    :param model_version: version in the MLflow registry that predicted it.
    :param kind: ``OK``, ``WARN`` (people should look) or ``RETRAIN``.
    :param message: one line for people.
    :param alarm: the evidence of a ``RETRAIN``.
    """

    window_id: str
    model_version: str
    kind: DecisionKind
    message: str
    alarm: Alarm | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values for the store."""
        return {
            "window_id": self.window_id,
            "model_version": self.model_version,
            "kind": self.kind,
            "message": self.message,
            "alarm": self.alarm.to_json() if self.alarm else None,
        }

    @classmethod
    def from_json(cls, document: Any, where: str = "A decision") -> Decision:
        """Read what :meth:`to_json` wrote.

        :raises DataError: a field is missing or has another type.
        """
        read = Fields(document, where)
        alarm = document.get("alarm")
        return cls(
            window_id=read.text("window_id"),
            model_version=read.text("model_version"),
            kind=cast("DecisionKind", read.choice("kind", get_args(DecisionKind))),
            message=read.text("message"),
            alarm=Alarm.from_json(alarm, f"{where}: alarm") if alarm else None,
        )


def alarm_id(application: str, model_version: str, reference_dataset_id: str, window_id: str) -> str:
    """The same alarm always has the same id, whoever computes it and however often."""
    text = f"{application}|{model_version}|{reference_dataset_id}|{window_id}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def decide_window(
    batch: PredictionBatch,
    inputs: WindowInputs | None,
    performance: WindowPerformance | None,
    *,
    drift_rule: DriftRule,
    performance_rule: PerformanceRule,
    retrain_on: Sequence[str],
    superseded_by: str | None = None,
) -> Decision:
    """Decide about one window.

    :param batch: the window's predictions.
    :param inputs: how its inputs compare with the training data; ``None`` when they are not watched.
    :param performance: how well it was predicted; ``None`` when that is not watched.
    :param drift_rule: what the inputs' report may do.
    :param performance_rule: what the performance report may do.
    :param retrain_on: reasons for which the application is trained again at all.
    :param superseded_by: model version that has taken over since; an alarm is a warning then.
    """
    findings: list[tuple[ReasonKind, str, bool]] = [
        ("performance", performance_rule.alarm, bool(performance and performance.degraded)),
        ("drift", drift_rule.alarm, len(inputs.drifted if inputs else ()) >= drift_rule.min_columns),
    ]
    raised = [(reason, alarm) for reason, alarm, found in findings if found]
    message = (
        " ".join(filter(None, [_say_performance(performance), _say_inputs(inputs)])) or "Nothing to compare."
    )
    retrain = [reason for reason, alarm in raised if alarm == "retrain" and reason in retrain_on]
    window = (batch.window_id, batch.model_version)
    if retrain and superseded_by is None:
        return Decision(*window, "RETRAIN", message, _alarm(batch, inputs, performance, retrain[0], message))
    if retrain:
        message += f" Model version {batch.model_version} has been replaced by {superseded_by} since."
    broken = (inputs and inputs.error) or (performance and performance.error)
    return Decision(*window, "WARN" if raised or broken else "OK", message)


def _alarm(
    batch: PredictionBatch,
    inputs: WindowInputs | None,
    performance: WindowPerformance | None,
    reason: ReasonKind,
    message: str,
) -> Alarm:
    return Alarm(
        alarm_id=alarm_id(
            batch.application, batch.model_version, batch.reference_dataset_id, batch.window_id
        ),
        reason=reason,
        message=message,
        window_id=batch.window_id,
        window=batch.window,
        model=batch.model,
        model_version=batch.model_version,
        reference_dataset_id=batch.reference_dataset_id,
        figures={
            **_performance_figures(performance.report if performance else None),
            **_input_figures(inputs.report if inputs else None),
        },
    )


def _performance_figures(report: PerformanceReport | None) -> dict[str, Any]:
    if report is None:
        return {}
    return {
        "loss": report.loss,
        "labels": report.labelled,
        "actual": _rounded(report.mean),
        "actual_interval": _rounded(report.interval),
        "tested": _rounded(report.tested["mean"]),
        "tested_bound": _rounded(report.tested["bound"]),
        "auc": _rounded(report.auc),
        "auc_interval": _rounded(report.auc_interval),
        "tested_auc": _rounded(report.tested["auc"]),
        "e_value": float(f"{report.e_value:.3g}"),
        "fired_after": report.fired_after,
    }


def _input_figures(report: DriftReport | None) -> dict[str, Any]:
    if report is None:
        return {}
    drifted = [column for column in report.columns if column.drifted]
    return {
        "columns": sum(column.p_value is not None for column in report.columns),
        "drifted": len(drifted),
        "drifted_columns": [
            {"column": column.column, "p_value": column.p_value, **column.effects}
            for column in drifted[:_SHOWN]
        ],
    }


def _say_performance(performance: WindowPerformance | None) -> str:
    if performance is None:
        return ""
    report = performance.report
    if report is None:
        return f"The performance could not be measured: {performance.error}"
    if report.mean is None or report.interval is None:
        return f"None of {report.rows} predictions has a label."
    low, high = report.interval
    tested = report.tested
    verdict = "worse than tested" if report.degraded else "as tested"
    return (
        f"{report.loss} {report.mean:.4f} ({low:.4f} to {high:.4f}) over "
        f"{report.labelled} labels, {verdict} ({tested['mean']:.4f}, at most {tested['bound']:.4f})."
    )


def _say_inputs(inputs: WindowInputs | None) -> str:
    if inputs is None:
        return ""
    error = f"The inputs could not be compared: {inputs.error}" if inputs.error else ""
    if inputs.report is None:
        return error
    return " ".join(filter(None, [_say_compared(inputs.report), error.replace("The inputs", "Other inputs")]))


def _say_compared(report: DriftReport) -> str:
    if not report.judged:
        return f"{report.rows} rows are too few to judge the inputs."
    drifted = report.drifted
    if not drifted:
        return f"None of {len(report.columns)} inputs has drifted."
    names = ", ".join(drifted[:_NAMED]) + (", ..." if len(drifted) > _NAMED else "")
    return f"{len(drifted)} of {len(report.columns)} inputs have drifted: {names}."


def _rounded(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
