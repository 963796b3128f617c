"""The rules of monitoring as the YAML states them: when inputs have drifted, and when a model is worse than tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.spec.monitoring import Alarm, DriftMonitoring, Loss, PerformanceMonitoring

__all__ = ["DriftRule", "PerformanceRule"]


@dataclass(frozen=True)
class DriftRule:
    """When inputs count as drifted, and what follows.

    :param alarm: ``warn`` tells people; ``retrain`` asks for a new model.
    :param false_alarm_rate: chance that a window of unchanged data shows any drifted column.
    :param min_rows: windows with fewer rows are not judged.
    :param columns: the inputs to compare; all of the model's by default.
    :param min_columns: how many columns must have drifted for an alarm.
    """

    alarm: Alarm = "warn"
    false_alarm_rate: float = 1e-4
    min_rows: int = 1000
    columns: list[str] | None = None
    min_columns: int = 2

    @classmethod
    def of(cls, section: DriftMonitoring) -> DriftRule:
        """The rule of a section that was read."""
        return cls(**section.model_dump(mode="json"))

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any] | None) -> DriftRule:
        """Read ``monitoring.drift``; ``None`` and absent keys stand for the defaults.

        :raises SpecError: a key or a value that the YAML refuses as well.
        """
        from airflow_mlops.spec.reading.sections import read_section

        return cls.of(read_section(DriftMonitoring, "monitoring.drift", _given(data)))


@dataclass(frozen=True)
class PerformanceRule:
    """When actual performance counts as worse than tested, and what follows.

    :param alarm: ``warn`` tells people; ``retrain`` asks for a new model.
    :param loss: ``brier`` (squared error of a probability), ``error`` (wrong side of one half) or
        ``absolute_error`` (of a number; capped at ten times what was tested, which keeps the test valid).
    :param false_alarm_rate: one false alarm in ``1 / rate`` labels at most, on average, however often
        anybody looks, while each label's expected loss is as tested.
    :param min_rows: labels needed before the first alarm.
    :param min_labelled: share of a window's rows that must have labels before it is measured (see
        :func:`~airflow_mlops.primitives.monitoring.labels.labels_are_complete`).
    """

    alarm: Alarm = "retrain"
    loss: Loss = "brier"
    false_alarm_rate: float = 1e-6
    min_rows: int = 1000
    min_labelled: float = 0.95

    @classmethod
    def of(cls, section: PerformanceMonitoring) -> PerformanceRule:
        """The rule of a section that was read."""
        return cls(**section.model_dump(mode="json"))

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any] | None) -> PerformanceRule:
        """Read ``monitoring.performance``; ``None`` and absent keys stand for the defaults.

        :raises SpecError: a key or a value that the YAML refuses as well.
        """
        from airflow_mlops.spec.reading.sections import read_section

        return cls.of(read_section(PerformanceMonitoring, "monitoring.performance", _given(data)))


def _given(data: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (data or {}).items() if value is not None}
