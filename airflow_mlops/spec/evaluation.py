"""``evaluation:``: what a model must reach."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from airflow_mlops.spec.values import Flag, Number, Section, Text, complaint


class Requirement(Section):
    """One condition on one metric of the test split: absolute, or against the champion."""

    metric: Text = Field(description="Name of a metric that the model code reports for the test split.")
    at_least: Number | None = Field(default=None, description="Smallest value that passes.")
    at_most: Number | None = Field(default=None, description="Largest value that passes.")
    against: Literal["champion"] | None = Field(
        default=None, description="Compare with the champion on the same rows."
    )
    no_worse_by: Number | None = Field(
        default=None,
        ge=0,
        description="How much worse than the champion still passes, in the metric's unit. Needs against. Default: 0.",
        validate_default=True,
    )

    @field_validator("no_worse_by")
    @classmethod
    def _one_condition(cls, value: float | None, info: ValidationInfo) -> float | None:
        if not {"metric", "at_least", "at_most", "against"} <= info.data.keys():
            return value  # a part is wrong in itself: said already
        absolute = info.data["at_least"] is not None or info.data["at_most"] is not None
        if info.data["against"] is None and value is not None:
            raise complaint("has nothing to compare with", cure="add against: champion")
        if absolute == (info.data["against"] is not None):
            raise complaint(
                "mixes two conditions" if absolute else "has no condition",
                expected="either at_least or at_most, or against: champion with no_worse_by",
                cure="write one item per condition" if absolute else "add at_least: 0.6",
                at=("..",),
            )
        return 0.0 if info.data["against"] and value is None else value


class Evaluation(Section):
    """The gate between a trained and a registered model."""

    require: tuple[Requirement, ...] = Field(default=(), description="Conditions that must all hold.")
    cases: Flag = Field(default=True, description="The test cases of the model code must pass.")
