"""``split:``: how examples are divided into what is learnt from, what is chosen by, and what is judged by."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from airflow_mlops.spec.values import (
    ColumnName,
    Columns,
    Duration,
    Number,
    Section,
    Text,
    WholeNumber,
    complaint,
    duration,
    unstated,
)

__all__ = ["Split", "SplitValues"]

_SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str | int | float) else value


_Values = Annotated[tuple[str | int | float | bool, ...], BeforeValidator(_listed)]


_Part = Annotated[Number, Field(ge=0, le=1)]


class SplitValues(Section):
    """Which values of the column stand for which split."""

    train: _Values = Field(min_length=1, description="Values of the examples to learn from.")
    validation: _Values | None = Field(
        default=None, min_length=1, description="Values of those to choose by."
    )
    test: _Values | None = Field(
        default=None, min_length=1, description="Values of those to judge by.", validate_default=True
    )

    @field_validator("test")
    @classmethod
    def _apart(cls, value: _Values | None, info: ValidationInfo) -> _Values | None:
        seen: dict[str, str] = {}
        for name, values in {**info.data, "test": value}.items():
            for one in values or ():
                if str(one) in seen:
                    raise complaint(
                        f"names {one} for {seen[str(one)]} and for {name}",
                        expected="each value once",
                        cure="keep it for one of both",
                        at=("..",),
                    )
                seen[str(one)] = name
        return value


class Split(Section):
    """How examples are divided: by default the oldest train, the newest test."""

    by: Literal["time", "hash", "group", "column"] = Field(
        default="time",
        description="time: oldest examples first. hash: by a published hash of key, so that an example never "
        "changes sides when data grow. group: the same, and key must be said; no group is torn apart. column: "
        "by a column that says it.",
    )
    key: Columns | None = Field(
        default=None,
        description="Columns whose hash decides, for hash, group and their folds. Default: keys of the examples.",
    )
    column: ColumnName | None = Field(
        default=None,
        description="The column that says train, validation or test, for by: column. Null leaves an example out. "
        "It is no model input.",
    )
    values: SplitValues | None = Field(
        default=None, description="What the values of column stand for, unless they are the names themselves."
    )
    stratify: ColumnName | None = Field(
        default=None,
        description="The shares hold in every class of this column, for hash and group. Examples whose hash lies "
        "at a cut may then change sides when data grow.",
    )
    train: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Share of the examples to learn from. Default: 0.7, but none for by: column. Shares that are left "
        "out are 0 where those that are given make 1.",
        json_schema_extra=unstated,
    )
    validation: _Part | None = Field(
        default=None,
        description="Share to choose by, within the training. Default: 0.15.",
        json_schema_extra=unstated,
    )
    test: _Part | None = Field(
        default=None,
        description="Share to judge by; by time it is the newest. Default: 0.15.",
        json_schema_extra=unstated,
        validate_default=True,
    )
    gap: Duration = Field(
        default=duration("0s"), description="Time left out between two splits and two folds, by time."
    )
    folds: WholeNumber | None = Field(
        default=None,
        ge=2,
        le=100,
        description="Folds within train for cross-validation: by time with a rolling origin, else by hash of key.",
    )
    freeze: Text | None = Field(
        default=None,
        description="Id or reference of a dataset version of this application: its test examples stay the test, "
        "and no other example joins them.",
    )
    seed: WholeNumber = Field(
        default=0, ge=0, description="Another number gives another division by hash.", validate_default=True
    )

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("by") == "column":
            return value
        stated = [value[name] for name in _SHARES if value.get(name) is not None]
        if any(type(share) not in (int, float) for share in stated) or (stated and _is_one(sum(stated))):
            return value
        return {**value, **{name: share for name, share in _SHARES.items() if value.get(name) is None}}

    @field_validator("train", "validation", "test")
    @classmethod
    def _no_shares_of_a_column(cls, value: float | None, info: ValidationInfo) -> float | None:
        if info.data.get("by") == "column" and value is not None:
            raise complaint("has no meaning for by: column", cure="remove it: the column says who goes where")
        return value

    @field_validator("test")
    @classmethod
    def _whole(cls, value: float | None, info: ValidationInfo) -> float | None:
        if info.data.get("by") in (None, "column") or not {"train", "validation"} <= info.data.keys():
            return value
        if not info.data["train"]:
            raise complaint("leaves nothing to learn from", cure="add train: 0.7", at=("..", "train"))
        total = sum(share or 0.0 for share in (info.data["train"], info.data["validation"], value))
        if not _is_one(total):
            raise complaint(
                f"and the other shares make {total:.6g}",
                expected="train + validation + test = 1",
                cure="write all three, for example train: 0.7, validation: 0.15, test: 0.15",
            )
        return value

    @field_validator("seed")
    @classmethod
    def _together(cls, value: int, info: ValidationInfo) -> int:
        given: dict[str, Any] = info.data
        if "by" not in given:
            return value  # said already
        by = given["by"]
        for name, fits, cure in (
            ("key", by in ("hash", "group") or (by == "column" and given.get("folds")), "by: group"),
            ("column", by == "column", "by: column"),
            ("values", by == "column", "by: column"),
            ("stratify", by in ("hash", "group"), "by: hash or by: group"),
            ("gap", by == "time", "by: time"),
        ):
            if given.get(name) and not fits:
                raise complaint(
                    f"has no meaning for by: {by}", cure=f"remove it, or write {cure}", at=("..", name)
                )
        needed = {"group": "key", "column": "column"}.get(by)
        if needed and needed in given and not given[needed]:
            raise complaint(
                f"by: {by} lacks {needed}",
                cure=f"add {needed}: {'[patient]' if needed == 'key' else 'part'}",
                at=("..",),
            )
        return value


def _is_one(total: float) -> bool:
    return abs(total - 1) <= 1e-6
