"""What follows from a window: nothing, a warning for people, or the wish for a new model."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_mlops.primitives.monitoring.rules import DriftRule, PerformanceRule

DecisionKind = Literal["OK", "WARN", "RETRAIN"]
_SHOWN = 10  # columns in the evidence
_NAMED = 5  # columns in the message


@dataclass(frozen=True)
class Decision:
    """What follows from one window.

    :param window_id: the window.
    :param kind: ``OK``, ``WARN`` (people should look) or ``RETRAIN``.
    :param message: one line for people.
    :param alarm: the evidence of a ``RETRAIN``: ``alarm_id``, ``reason``, ``window``, ``figures``, ...
    """

    window_id: str
    kind: DecisionKind
    message: str
    alarm: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values for the store."""
        return asdict(self)


def alarm_id(application: str, model_version: str, reference_dataset_id: str, window_id: str) -> str:
    """The same alarm always has the same id, whoever computes it and however often."""
    text = f"{application}|{model_version}|{reference_dataset_id}|{window_id}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def decide_window(
    batch: Mapping[str, Any],
    inputs: Mapping[str, Any] | None,
    performance: Mapping[str, Any] | None,
    *,
    drift_rule: DriftRule,
    performance_rule: PerformanceRule,
    retrain_on: Sequence[str],
    superseded_by: str | None = None,
) -> Decision:
    """Decide about one window.

    :param batch: metadata of the window's predictions.
    :param inputs: its drift report, or ``{"error": ...}`` when its data could not be read.
    :param performance: its performance report, or ``{"error": ...}``; ``None`` when not watched.
    :param drift_rule: what the inputs' report may do.
    :param performance_rule: what the performance report may do.
    :param retrain_on: reasons for which the application is trained again at all.
    :param superseded_by: model version that has taken over since; an alarm is a warning then.
    """
    inputs = inputs or {}
    findings = [
        ("performance", performance_rule.alarm, bool(performance and performance["degraded"])),
        ("drift", drift_rule.alarm, len(inputs.get("drifted", ())) >= drift_rule.min_columns),
    ]
    raised = [(reason, alarm) for reason, alarm, found in findings if found]
    message = (
        " ".join(filter(None, [_say_performance(performance), _say_inputs(inputs)])) or "Nothing to compare."
    )
    retrain = [reason for reason, alarm in raised if alarm == "retrain" and reason in retrain_on]
    if retrain and superseded_by is None:
        return Decision(
            batch["window_id"], "RETRAIN", message, _evidence(batch, inputs, performance, retrain[0], message)
        )
    if retrain:
        message += f" Model version {batch['model_version']} has been replaced by {superseded_by} since."
    broken = inputs.get("error") or (performance or {}).get("error")
    return Decision(batch["window_id"], "WARN" if raised or broken else "OK", message)


def _evidence(
    batch: Mapping[str, Any],
    inputs: Mapping[str, Any],
    performance: Mapping[str, Any] | None,
    reason: str,
    message: str,
) -> dict[str, Any]:
    return {
        "alarm_id": alarm_id(
            batch["application"], batch["model_version"], batch["reference_dataset_id"], batch["window_id"]
        ),
        "reason": reason,
        "message": message,
        "window_id": batch["window_id"],
        "window": list(batch["window"]),
        "model": batch["model"],
        "model_version": batch["model_version"],
        "reference_dataset_id": batch["reference_dataset_id"],
        "figures": {**_performance_figures(performance), **_input_figures(inputs)},
    }


def _performance_figures(performance: Mapping[str, Any] | None) -> dict[str, Any]:
    if not performance or performance.get("error"):
        return {}
    tested = performance["tested"]
    return {
        "loss": performance["loss"],
        "labels": performance["labelled"],
        "actual": _rounded(performance["mean"]),
        "actual_interval": _rounded(performance["interval"]),
        "tested": _rounded(tested["mean"]),
        "tested_bound": _rounded(tested["bound"]),
        "auc": _rounded(performance["auc"]),
        "auc_interval": _rounded(performance["auc_interval"]),
        "tested_auc": _rounded(tested["auc"]),
        "e_value": float(f"{performance['e_value']:.3g}"),
        "fired_after": performance["fired_after"],
    }


def _input_figures(inputs: Mapping[str, Any]) -> dict[str, Any]:
    if "columns" not in inputs:
        return {}
    drifted = [column for column in inputs["columns"] if column["drifted"]]
    return {
        "columns": sum(column["p_value"] is not None for column in inputs["columns"]),
        "drifted": len(drifted),
        "drifted_columns": [
            {"column": column["column"], "p_value": column["p_value"], **column["effects"]}
            for column in drifted[:_SHOWN]
        ],
    }


def _say_performance(performance: Mapping[str, Any] | None) -> str:
    if not performance:
        return ""
    if performance.get("error"):
        return f"The performance could not be measured: {performance['error']}"
    if performance["mean"] is None:
        return f"None of {performance['rows']} predictions has a label."
    low, high = performance["interval"]
    tested = performance["tested"]
    verdict = "worse than tested" if performance["degraded"] else "as tested"
    return (
        f"{performance['loss']} {performance['mean']:.4f} ({low:.4f} to {high:.4f}) over "
        f"{performance['labelled']} labels, {verdict} ({tested['mean']:.4f}, at most {tested['bound']:.4f})."
    )


def _say_inputs(inputs: Mapping[str, Any]) -> str:
    error = f"The inputs could not be compared: {inputs['error']}" if inputs.get("error") else ""
    if "columns" not in inputs:
        return error
    return " ".join(filter(None, [_say_compared(inputs), error.replace("The inputs", "Other inputs")]))


def _say_compared(inputs: Mapping[str, Any]) -> str:
    if not inputs["judged"]:
        return f"{inputs['rows']} rows are too few to judge the inputs."
    drifted = inputs["drifted"]
    if not drifted:
        return f"None of {len(inputs['columns'])} inputs has drifted."
    names = ", ".join(drifted[:_NAMED]) + (", ..." if len(drifted) > _NAMED else "")
    return f"{len(drifted)} of {len(inputs['columns'])} inputs have drifted: {names}."


def _rounded(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
