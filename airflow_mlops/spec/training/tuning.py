"""``training.tuning:``: which parameters are tried, how many, and what counts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, ValidationInfo, WithJsonSchema, field_validator

from airflow_mlops.spec.values import (
    Flag,
    Number,
    PositiveDuration,
    Section,
    Text,
    WholeNumber,
    complaint,
    no_doubles,
)

Direction = Literal["maximize", "minimize"]


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


_TEXT = {"type": "string"}
_DIRECTION = {"type": "string", "enum": ["maximize", "minimize"]}


def _one_or_several(item: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]})


Objectives = Annotated[tuple[Text, ...], BeforeValidator(_listed), _one_or_several(_TEXT)]
Directions = Annotated[tuple[Direction, ...], BeforeValidator(_listed), _one_or_several(_DIRECTION)]


class SearchDimension(Section):
    """The values that one parameter may take: bounds, or a list."""

    low: Number | None = Field(default=None, description="Smallest value.")
    high: Number | None = Field(default=None, description="Largest value.")
    log: Flag | None = Field(default=None, description="Try orders of magnitude alike.")
    step: Number | None = Field(default=None, gt=0, description="Distance between two values.")
    choices: tuple[JsonValue, ...] | None = Field(
        default=None, description="The values themselves, instead of bounds."
    )


class EarlyStop(Section):
    """End the tuning when it no longer gets better."""

    trials: WholeNumber = Field(
        ge=1, le=10_000, description="Finished trials in a row without an improvement."
    )
    min_improvement: Number = Field(
        default=0.0, ge=0, description="What counts as an improvement, in the objective's unit."
    )


class Tuning(Section):
    """Search of the parameters, before the model is trained with the best of them."""

    objective: Objectives = Field(
        min_length=1,
        description="Metric that counts, as validation.auc: split and name as in metrics.json. A list for several.",
    )
    direction: Directions = Field(
        default=("maximize",),
        min_length=1,
        description="Which way is better; a list, one for each objective.",
    )
    trials: WholeNumber = Field(default=30, ge=1, le=10_000, description="Trainings at most.")
    parallel: WholeNumber = Field(default=2, ge=1, le=256, description="Containers at the same time.")
    timeout: PositiveDuration | None = Field(
        default=None, description="Longest time of the whole tuning; the best by then counts."
    )
    sampler: Literal["tpe", "random", "grid", "cmaes"] = Field(
        default="tpe", description="How the next parameters are chosen."
    )
    pruner: Literal["none", "median", "asha"] = Field(
        default="none", description="Which trials are stopped half-way, by the progress that they report."
    )
    search_space: dict[Text, SearchDimension] = Field(
        default={}, description="Narrows what the model code describes: parameter → values."
    )
    early_stop: EarlyStop | None = Field(
        default=None, description="End when it no longer gets better; null: use the whole budget."
    )
    best: Literal["retrain", "reuse"] = Field(
        default="retrain", description="Train again with the best parameters, or take the best trial's model."
    )
    trials_per_container: WholeNumber = Field(
        default=1,
        ge=1,
        le=1_000,
        description="Trials that one container does one after the other, for short ones.",
    )
    failures: WholeNumber = Field(
        default=3, ge=1, le=1_000, description="Failed trials in a row that end the tuning."
    )
    seed: WholeNumber | None = Field(
        default=None, ge=0, le=2**32 - 1, description="Seed of the sampler; null: training.seed."
    )

    _each_once = field_validator("objective")(no_doubles)

    @field_validator("objective")
    @classmethod
    def _not_the_test_split(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, name in enumerate(value):
            if name.startswith("test."):
                raise complaint(
                    "chooses by the test split, which must stay unseen",
                    expected="a metric of the validation split",
                    cure=f"write validation.{name.removeprefix('test.')}",
                    at=(number,) if len(value) > 1 else (),
                )
        return value

    @field_validator("direction")
    @classmethod
    def _one_for_each(cls, value: tuple[Direction, ...], info: ValidationInfo) -> tuple[Direction, ...]:
        objectives = info.data.get("objective")
        if objectives is None or len(value) == len(objectives):
            return value
        if len(value) == 1:
            return value * len(objectives)
        raise complaint(
            f"has {len(value)} directions for {len(objectives)} objectives",
            expected="one for each",
            cure="write as many directions as objectives",
        )

    @field_validator("sampler")
    @classmethod
    def _of_one_objective(cls, value: str, info: ValidationInfo) -> str:
        if value == "cmaes" and len(info.data.get("objective") or ()) > 1:
            raise complaint("takes one objective only", cure="write sampler: tpe")
        return value

    @field_validator("pruner")
    @classmethod
    def _on_progress(cls, value: str, info: ValidationInfo) -> str:
        if value != "none" and len(info.data.get("objective") or ()) > 1:
            raise complaint("takes one objective only", cure="write pruner: none")
        return value

    @field_validator("trials_per_container")
    @classmethod
    def _whole_containers(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and info.data.get("pruner") not in (None, "none"):
            raise complaint("above 1 leaves nothing to stop half-way", cure="write pruner: none")
        if value > 1 and info.data.get("best") == "reuse":
            raise complaint("above 1 keeps no model", cure="write best: retrain")
        return value
