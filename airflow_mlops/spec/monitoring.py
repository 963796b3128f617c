"""``monitoring:``: how data and predictions are watched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from airflow_mlops.spec.values import (
    Number,
    Probability,
    Schedule,
    Section,
    UniqueColumns,
    WholeNumber,
    complaint,
    section,
    unstated,
)

Alarm = Literal["warn", "retrain"]
Loss = Literal["brier", "error", "absolute_error"]
LOSSES: dict[str, tuple[Loss, ...]] = {
    "classification": ("brier", "error"),
    "regression": ("absolute_error",),
    "other": ("absolute_error", "brier", "error"),
}
"""Paradigm → losses that make sense for it, the default first; a paradigm that is not here has none."""


class DriftMonitoring(Section):
    """Are the inputs still those that the champion was trained on."""

    alarm: Alarm = Field(default="warn", description="What moved inputs mean: tell people, or retrain.")
    false_alarm_rate: Probability = Field(
        default=1e-4, description="Chance that a window without any change shows a moved input."
    )
    min_rows: WholeNumber = Field(default=1000, ge=1, description="Fewer rows are not judged.")
    columns: UniqueColumns | None = Field(
        default=None, min_length=1, description="Inputs to watch; null for all."
    )
    min_columns: WholeNumber = Field(
        default=2, ge=1, description="How many inputs must have moved for an alarm.", validate_default=True
    )

    @field_validator("min_columns")
    @classmethod
    def _can_be_reached(cls, value: int, info: ValidationInfo) -> int:
        columns = info.data.get("columns")
        if columns is not None and value > len(columns):
            raise complaint(
                "is more than the watched columns, so that no alarm could ever be raised",
                expected=f"at most {len(columns)}",
                cure=f"write min_columns: {len(columns)}, or watch more columns",
            )
        return value


class PerformanceMonitoring(Section):
    """Are the predictions still as good as they were on the test split."""

    alarm: Alarm = Field(
        default="retrain", description="What worse predictions mean: tell people, or retrain."
    )
    loss: Loss = Field(
        default="brier",
        description="What is compared: brier or error (classification), absolute_error (regression), any of them "
        "(other). Default: the first that fits the paradigm.",
        json_schema_extra=unstated,
    )
    false_alarm_rate: Probability = Field(
        default=1e-6,
        description="Without any change, at most one false alarm in 1 / rate rows on average, however often one looks.",
    )
    min_rows: WholeNumber = Field(
        default=1000, ge=1, description="Rows with known targets of a model version before its first alarm."
    )
    min_labelled: Number = Field(
        default=0.95,
        gt=0,
        le=1,
        description="Share of a window's rows whose targets must be known before the window is measured. It is also "
        "measured when examples of a later time have theirs: no more are coming.",
    )


class Monitoring(Section):
    """How data and predictions are watched."""

    schedule: Schedule | None = Field(
        default=None,
        description="When to look, in addition to each arrival of this application's predictions: "
        "cron (UTC), {assets: [...]}, or null.",
    )
    drift: DriftMonitoring = section("The inputs.")
    performance: PerformanceMonitoring | None = Field(
        default_factory=PerformanceMonitoring,
        description="The predictions. null: they are not compared with what came true, which is the default for "
        "paradigms without a loss for each prediction, and without targets.",
    )
