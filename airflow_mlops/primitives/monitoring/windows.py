"""What monitoring records of a window of predictions: its inputs against the training data, and its performance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.monitoring.performance import PerformanceReport
from airflow_mlops.primitives.statistics.drift import DriftReport
from airflow_mlops.primitives.texts.records import Fields

if TYPE_CHECKING:
    from airflow_mlops.primitives.delivery.batch import PredictionBatch

__all__ = ["RaisedAlarm", "WindowInputs", "WindowPerformance"]


@dataclass(frozen=True)
class WindowInputs:
    """
    How the inputs of a window compare with the model's training data.

    :param window_id: the window.
    :param model_version: version in the MLflow registry that predicted it.
    :param rows: number of predictions.
    :param report: the comparison; ``None`` when the data could not be read.
    :param error: why they could not, or which columns could not be compared.
    """

    window_id: str
    model_version: str
    rows: int
    report: DriftReport | None
    error: str = ""

    @classmethod
    def compared(cls, batch: PredictionBatch, report: DriftReport) -> WindowInputs:
        """What is recorded of a window that was compared."""
        return cls(batch.window_id, batch.model_version, report.rows, report, report.error)

    @classmethod
    def unreadable(cls, batch: PredictionBatch, error: str) -> WindowInputs:
        """What is recorded of a window whose data cannot be read."""
        return cls(batch.window_id, batch.model_version, batch.rows, None, error)

    @property
    def drifted(self) -> Sequence[str]:
        """Names of the drifted columns, the largest effect first."""
        return self.report.drifted if self.report else []

    def to_json(self) -> dict[str, Any]:
        """JSON values for the store."""
        found = self.report.to_json() if self.report else {"rows": self.rows, "drifted": []}
        names = {"window_id": self.window_id, "model_version": self.model_version}
        return {**names, **found, "error": self.error}

    @classmethod
    def from_json(cls, document: Any, where: str = "Inputs of a window") -> WindowInputs:
        """Read what :meth:`to_json` wrote, in this or an earlier release.

        :raises DataError: a field is missing or has another type.
        """
        read = Fields(document, where)
        return cls(
            window_id=read.text("window_id"),
            model_version=read.text("model_version"),
            rows=read.whole("rows"),
            report=DriftReport.from_json(document, where) if "columns" in read else None,
            error=read.text("error", ""),
        )


@dataclass(frozen=True)
class WindowPerformance:
    """
    How well a window was predicted, held against the model's own test.

    :param window_id: the window.
    :param model_version: version in the MLflow registry that predicted it.
    :param rows: number of predictions, labelled or not.
    :param report: the measurement; ``None`` when the window cannot be measured.
    :param error: why it cannot.
    """

    window_id: str
    model_version: str
    rows: int
    report: PerformanceReport | None
    error: str = ""

    @classmethod
    def measured(cls, batch: PredictionBatch, report: PerformanceReport) -> WindowPerformance:
        """What is recorded of a window that was measured."""
        return cls(batch.window_id, batch.model_version, report.rows, report)

    @classmethod
    def unmeasured(cls, batch: PredictionBatch, error: str) -> WindowPerformance:
        """What is recorded of a window that cannot be measured."""
        return cls(batch.window_id, batch.model_version, batch.rows, None, error)

    @property
    def degraded(self) -> bool:
        """Whether the model was worse than tested."""
        return bool(self.report and self.report.degraded)

    def to_json(self) -> dict[str, Any]:
        """JSON values for the store."""
        names = {"window_id": self.window_id, "model_version": self.model_version}
        if self.report:
            return {**names, **self.report.to_json()}
        return {**names, "error": self.error, "rows": self.rows, "labelled": 0, "degraded": False}

    @classmethod
    def from_json(cls, document: Any, where: str = "Performance of a window") -> WindowPerformance:
        """Read what :meth:`to_json` wrote, in this or an earlier release.

        :raises DataError: a field is missing or has another type.
        """
        read = Fields(document, where)
        return cls(
            window_id=read.text("window_id"),
            model_version=read.text("model_version"),
            rows=read.whole("rows"),
            report=PerformanceReport.from_json(document, where) if "state" in read else None,
            error=read.text("error", ""),
        )


@dataclass(frozen=True)
class RaisedAlarm:
    """
    That the event of an alarm was seen in Airflow.

    :param alarm_id: the alarm.
    :param run_id: DAG run whose task told it; ``None`` when it was posted from outside.
    :param event: number of the event.
    """

    alarm_id: str
    run_id: str | None
    event: int

    def to_json(self) -> dict[str, Any]:
        """JSON values for the store."""
        return {"alarm_id": self.alarm_id, "run_id": self.run_id, "event": self.event}

    @classmethod
    def from_json(cls, document: Any, where: str = "A raised alarm") -> RaisedAlarm:
        """Read what :meth:`to_json` wrote.

        :raises DataError: a field is missing or has another type.
        """
        read = Fields(document, where)
        return cls(read.text("alarm_id"), read.text("run_id", "") or None, read.whole("event"))
