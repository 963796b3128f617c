"""``provisioning:``: how a dataset is made, and what is taken for granted about it."""

from __future__ import annotations

from pydantic import Field, field_validator

from airflow_mlops.spec.data.assumptions import Assumption
from airflow_mlops.spec.data.examples import Examples
from airflow_mlops.spec.data.split import Split
from airflow_mlops.spec.values import (
    ConnectionId,
    PositiveDuration,
    Schedule,
    Section,
    Text,
    complaint,
    duration,
    section,
)

__all__ = ["Provisioning", "Split"]


class Provisioning(Section):
    """How a dataset is made: examples, their features at that time, assumptions, splits."""

    feature_store: ConnectionId = Field(
        default="feast_default", description="Airflow connection of type feast."
    )
    features: Text | None = Field(
        description="Feast feature service to join to the examples; null when the examples have all inputs."
    )
    examples: Examples = Field(description="Where examples come from.")
    window: PositiveDuration = Field(
        default=duration("365d"),
        description="How far back examples are taken, from the newest whose target is known.",
    )
    assumptions: tuple[Assumption, ...] = Field(default=(), description="Rules that the data must keep.")
    split: Split = section("How examples are divided.")
    schedule: Schedule | None = Field(
        default=None,
        description="When to make a dataset without training: cron (UTC), {assets: [...]}, or null.",
    )

    @field_validator("split")
    @classmethod
    def _enough_for_a_training(cls, value: Split) -> Split:
        for name in ("validation", "test"):
            frozen = name == "test" and value.freeze
            if value.by != "column" and not frozen and not getattr(value, name):
                raise complaint(
                    "leaves no examples, and a model is chosen by validation and judged by test",
                    expected="a share of each",
                    cure="write train: 0.7, validation: 0.15, test: 0.15",
                    at=(name,),
                )
        return value
