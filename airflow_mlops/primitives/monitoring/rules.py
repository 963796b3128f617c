"""What the author of an application says about monitoring, with defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from airflow_mlops.exceptions import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

Alarm = Literal["warn", "retrain"]
ALARMS = ("warn", "retrain")
LOSSES = ("brier", "error", "absolute_error")


class _FromMapping:
    @classmethod
    def from_mapping(cls, data: Mapping[str, Any] | None) -> Self:
        """Build from JSON values; absent keys and ``None`` take the default.

        :raises SpecError: an unknown key or a value outside its range.
        """
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        given = {key: value for key, value in (data or {}).items() if value is not None}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise SpecError(
                f"monitoring: unknown {cls.__name__} key {', '.join(unknown)}; known are {', '.join(known)}."
            )
        return cls(**given)


@dataclass(frozen=True)
class DriftRule(_FromMapping):
    """When inputs count as moved, and what follows.

    :param alarm: ``warn`` tells people; ``retrain`` asks for a new model.
    :param false_alarm_rate: chance that a window of unchanged data shows any drifted column.
    :param min_rows: windows with fewer rows are not judged.
    :param columns: the inputs to compare; all of the model's by default.
    :param min_columns: how many columns must have moved for an alarm.
    """

    alarm: Alarm = "warn"
    false_alarm_rate: float = 1e-4
    min_rows: int = 1000
    columns: list[str] | None = None
    min_columns: int = 2

    def __post_init__(self) -> None:
        _check_choice("drift.alarm", self.alarm, ALARMS)
        _check_rate("drift.false_alarm_rate", self.false_alarm_rate)


@dataclass(frozen=True)
class PerformanceRule(_FromMapping):
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
    loss: str = "brier"
    false_alarm_rate: float = 1e-6
    min_rows: int = 1000
    min_labelled: float = 0.95

    def __post_init__(self) -> None:
        _check_choice("performance.alarm", self.alarm, ALARMS)
        _check_choice("performance.loss", self.loss, LOSSES)
        _check_rate("performance.false_alarm_rate", self.false_alarm_rate)


def _check_choice(where: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SpecError(f"monitoring.{where}: expected one of {', '.join(choices)}, got {value!r}.")


def _check_rate(where: str, value: float) -> None:
    if not 0 < value < 1:
        raise SpecError(f"monitoring.{where}: expected a number between 0 and 1, got {value!r}.")
