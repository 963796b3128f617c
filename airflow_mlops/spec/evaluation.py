"""``evaluation:``: what a model must reach."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator

from airflow_mlops.spec.values import (
    ColumnName,
    Columns,
    Flag,
    Number,
    Section,
    Share,
    Text,
    WholeNumber,
    complaint,
)

Latency = Literal["p50", "p90", "p95", "p99"]
#: Quantiles of the latency that the contract reports.
LATENCIES: tuple[str, ...] = get_args(Latency)
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_BYTES = {"k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_AMOUNT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(us|ms|s|[kmgt])")
#: What a rule may be about, and the keys that go with it besides ``at_most``.
_GO_WITH: dict[str, tuple[str, ...]] = {
    "metric": (
        *("split", "slice", "per_slice", "at_least", "against", "no_worse_by", "better_by"),
        *("confidence", "if_champion_fails", "minimum_rows"),
    ),
    "fairness": ("column", "minimum_rows"),
    "latency": (),
    "size": (),
}


def _amount(value: Any) -> Any:
    """A number, or a time or size with its unit, which the rule's kind turns into seconds or bytes."""
    if type(value) in (int, float) or (isinstance(value, str) and _AMOUNT.fullmatch(value)):
        return value
    raise complaint(
        "is no bound",
        expected="a number; with latency a time such as 50ms; with size a size such as 200m",
        cure="write at_most: 0.2",
    )


Amount = Annotated[
    Any,
    BeforeValidator(_amount),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number"},
                {
                    "type": "string",
                    "pattern": f"^{_AMOUNT.pattern}$",
                    "examples": ["50ms", "200m"],
                },
            ]
        }
    ),
]


class Requirement(Section):
    """One condition: on a metric, absolute or against the champion; on fairness, latency, or the model's size."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [about]} for about in _GO_WITH]}
    )

    metric: Text | None = Field(
        default=None,
        description="Name of a metric: one that is measured from the predictions (see the how-to on evaluation), or any "
        "that the model code reports.",
    )
    fairness: Text | None = Field(
        default=None,
        description="Gap between the groups of column: demographic_parity (of the share predicted as 1), "
        "equal_opportunity (of the recall), or of any metric.",
    )
    latency: Latency | None = Field(
        default=None, description="Quantile of the time of one call, as the model code measured it."
    )
    size: Literal["model"] | None = Field(default=None, description="Size of the model directory.")
    split: Text | None = Field(
        default=None, description="Split that the metric is of. Default: test; others are taken as reported."
    )
    slice: Text | None = Field(default=None, description="One part of the split: origin=JFK.")
    per_slice: Columns | None = Field(
        default=None,
        description="Column, or list of columns: the condition must hold for each of their values.",
    )
    column: ColumnName | None = Field(default=None, description="Column with the groups, for fairness.")
    at_least: Number | None = Field(default=None, description="Smallest value that passes.")
    at_most: Amount | None = Field(
        default=None,
        description="Largest value that passes; with latency a time (50ms), with size a size (200m).",
    )
    against: Literal["champion"] | None = Field(
        default=None, description="Compare with the champion on the same rows."
    )
    better_by: Number | None = Field(
        default=None,
        ge=0,
        description="How much better than the champion it must be, surely, in the metric's unit. Needs against.",
    )
    if_champion_fails: Literal["pass", "fail"] | None = Field(
        default=None,
        description="What a champion that cannot be evaluated means, because it cannot read the new features, say. "
        "Default: pass, with a note in the report.",
    )
    confidence: Share | None = Field(
        default=None,
        ge=0.5,
        description="How sure it must be: a bound on one side, from the paired rows. 0.5: the figures themselves "
        "decide. Default: 0.95 against the champion, none otherwise.",
    )
    minimum_rows: WholeNumber | None = Field(
        default=None, ge=1, description="Smaller slices and groups are not judged. Default: 200."
    )
    no_worse_by: Number | None = Field(
        default=None,
        ge=0,
        description="How much worse than the champion still passes, in the metric's unit. Needs against. Default: 0.",
        validate_default=True,
    )

    @field_validator("at_most")
    @classmethod
    def _in_its_unit(cls, value: float | str | None, info: ValidationInfo) -> float | None:
        if not isinstance(value, str):
            return None if value is None else float(value)
        found = _AMOUNT.fullmatch(value)
        number, unit = (float(found[1]), found[2]) if found else (0.0, "")
        units, example = (_SECONDS, "50ms") if info.data.get("latency") else (_BYTES, "200m")
        if not (info.data.get("latency") or info.data.get("size")):
            raise complaint(
                "has a unit, and a metric has none", expected="a number", cure="write at_most: 0.2"
            )
        if unit not in units:
            raise complaint(
                f"is in {unit}", expected=f"one of {', '.join(units)}", cure=f"write at_most: {example}"
            )
        return number * units[unit]

    @field_validator("no_worse_by")
    @classmethod
    def _one_condition(cls, value: float | None, info: ValidationInfo) -> float | None:
        if cls.model_fields.keys() - info.data.keys() - {"no_worse_by"}:
            return value  # a part is wrong in itself: said already
        given = {key: one for key, one in {**info.data, "no_worse_by": value}.items() if one is not None}
        about = [key for key in _GO_WITH if key in given]
        if len(about) != 1:
            raise complaint(
                f"is about {' and '.join(about)}" if about else "is missing",
                expected=f"one of {', '.join(_GO_WITH)}",
                cure="write one item per condition" if about else "add metric: auc",
                at=("..",) if about else ("..", "metric"),
            )
        _check_together(about[0], given)
        return 0.0 if "against" in given and value is None and "better_by" not in given else value


def _check_together(about: str, given: dict[str, Any]) -> None:
    """Refuse keys that mean nothing together."""
    for key in given:
        if key not in (about, "at_most", *_GO_WITH[about]):
            raise complaint(f"means nothing beside {about}", cure="remove it", at=("..", key))
    for key in ("no_worse_by", "better_by", "if_champion_fails"):
        if key in given and "against" not in given:
            raise complaint("has nothing to compare with", cure="add against: champion", at=("..", key))
    if about == "fairness" and "column" not in given:
        raise complaint("does not say whose groups", cure="add column: sex", at=("..",))
    if "slice" in given and "per_slice" in given:
        raise complaint("names one slice and each slice", cure="remove one of them", at=("..", "slice"))
    if given.get("no_worse_by") and "better_by" in given:
        raise complaint("mixes better_by with no_worse_by", cure="remove one of them", at=("..",))
    absolute = "at_least" in given or "at_most" in given
    if absolute == ("against" in given):
        raise complaint(
            "mixes two conditions" if absolute else "has no condition",
            expected="either at_least or at_most, or against: champion with no_worse_by or better_by",
            cure="write one item per condition" if absolute else f"add {_EXAMPLES[about]}",
            at=("..",),
        )


_EXAMPLES = {
    "metric": "at_least: 0.6",
    "fairness": "at_most: 0.1",
    "latency": "at_most: 50ms",
    "size": "at_most: 200m",
}


class Evaluation(Section):
    """The gate between a trained and a registered model."""

    mode: Literal["enforce", "dry_run"] = Field(
        default="enforce",
        description="enforce: a model that fails is not registered. dry_run: everything is worked out and said, and the "
        "model is registered all the same.",
    )
    threshold: Share = Field(
        default=0.5,
        description="Probability from which a prediction counts as 1, in accuracy, precision, recall, f1 and fairness.",
    )
    require: tuple[Requirement, ...] = Field(default=(), description="Conditions that must all hold.")
    cases: Flag = Field(default=True, description="The test cases of the model code must pass.")
