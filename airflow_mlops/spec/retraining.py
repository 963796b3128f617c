"""``retraining:``: what starts a training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from airflow_mlops.spec.values import CronSchedule, Section, no_doubles

AlarmReason = Literal["drift", "performance"]


class Retraining(Section):
    """What starts a training, besides a person."""

    schedule: CronSchedule | None = Field(
        default=None,
        description="Train at these times (cron, UTC); null for never by the clock.",
    )
    on: tuple[AlarmReason, ...] = Field(
        default=("drift", "performance"), description="Alarms of the monitoring that start a training."
    )

    _each_once = field_validator("on")(no_doubles)
