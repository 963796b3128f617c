"""``provisioning:``: how a dataset is made, and what is taken for granted about it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from airflow_mlops.spec.values import (
    ColumnName,
    ConnectionId,
    Duration,
    FolderPath,
    Number,
    PositiveDuration,
    Schedule,
    Section,
    Share,
    Text,
    UniqueColumns,
    WholeNumber,
    complaint,
    duration,
    section,
)

OF_COLUMN = ("not_null", "max_null_share", "between", "one_of", "type")
OF_TABLE = ("unique", "min_rows")
_PREDICTION = "prediction"  # the column that model code adds beside the keys


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else "other"


class Assumption(Section):
    """What one column must be like (one or more rules), or what all rows must be like (one rule)."""

    column: ColumnName | None = Field(default=None, description="The column that the rule is about.")
    not_null: Literal[True] | None = Field(
        default=None, description="true: no value of the column is missing."
    )
    max_null_share: Number | None = Field(
        default=None, ge=0, le=1, description="At most this share of the column's values is missing."
    )
    between: tuple[Any, ...] | None = Field(
        default=None,
        description="[low, high], both included, for every value that is not missing; null for no bound.",
    )
    one_of: tuple[Any, ...] | None = Field(
        default=None,
        min_length=1,
        description="Every value of the column that is not missing is one of these.",
    )
    type: Text | None = Field(default=None, description="Type of the column, for example double or varchar.")
    unique: UniqueColumns | None = Field(
        default=None, min_length=1, description="No two examples agree in all these columns."
    )
    min_rows: WholeNumber | None = Field(
        default=None, ge=1, description="The dataset has at least this many examples."
    )
    severity: Literal["fail", "warn"] = Field(
        default="fail",
        description="fail stops the run, warn is only reported.",
        validate_default=True,
    )

    @field_validator("between")
    @classmethod
    def _low_and_high(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if value is None:
            return None
        kinds = {_kind(bound) for bound in value if bound is not None}
        if len(value) != 2 or len(kinds) != 1 or "other" in kinds:
            raise complaint(
                "is not a low and a high bound",
                expected="two numbers, or two times as text; null for no bound on one side",
                cure="write between: [lowest, highest]",
            )
        if None not in value and value[0] > value[1]:
            raise complaint("has its low bound above its high bound", cure=f"write [{value[1]}, {value[0]}]")
        return value

    @field_validator("one_of")
    @classmethod
    def _scalars(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if value is not None and any(not isinstance(item, (str, int, float, bool)) for item in value):
            raise complaint("has an item that is not a plain value", expected="texts, numbers, true or false")
        return value

    @field_validator("severity")
    @classmethod
    def _some_rule(cls, value: str, info: ValidationInfo) -> str:
        if not {"column", *OF_COLUMN, *OF_TABLE} <= info.data.keys():
            return value  # a part is wrong in itself: said already
        column = info.data["column"] is not None
        given = [rule for rule in (*OF_COLUMN, *OF_TABLE) if info.data[rule] is not None]
        known = OF_COLUMN if column else OF_TABLE
        odd = [rule for rule in given if rule not in known]
        if odd and column:
            cure = f"write {odd[0]} as a list item of its own, without column"
            raise complaint(f"mixes column with {odd[0]}, which is about all rows", cure=cure, at=("..",))
        if odd:
            raise complaint(
                f"does not say which column {odd[0]} is about", cure="add column: name", at=("..",)
            )
        if len(given) != 1 and not (given and column):
            raise complaint(
                "has two rules" if given else "has no rule",
                expected=f"one of {', '.join(OF_TABLE)}, or column with {', '.join(OF_COLUMN)}",
                cure="write one list item per rule" if given else f"add {known[0]}: ...",
                at=("..",),
            )
        return value


class Examples(Section):
    """Where examples come from: one row for each case to learn from or to predict."""

    folder: FolderPath = Field(
        default=".",
        description="Folder that paths in sql and parquet are relative to; itself relative to the file that "
        "names it. Default: the folder of the application's file. Usually written in defaults.yaml.",
    )
    sql: Text | None = Field(
        default=None, description="DuckDB query that gives the examples. Either sql or parquet."
    )
    parquet: Text | None = Field(
        default=None,
        description="Parquet file or glob with the examples. Either sql or parquet.",
        validate_default=True,
    )
    keys: UniqueColumns = Field(
        min_length=1,
        description="Columns that identify an example; Feast joins by those that are its entities.",
    )
    timestamp: ColumnName = Field(description="Column with the time at which the prediction is asked for.")
    targets: UniqueColumns = Field(min_length=1, max_length=1, description="The column to learn.")
    targets_known_at: ColumnName | None = Field(
        default=None,
        description="Column with the time at which the target became known. Default: known with the example.",
        validate_default=True,
    )

    @field_validator("parquet")
    @classmethod
    def _one_source(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "sql" in info.data and (value is None) == (info.data["sql"] is None):
            raise complaint(
                "names no source" if value is None else "names two sources, sql and parquet",
                expected="exactly one of sql and parquet",
                cure="add sql: SELECT ... or parquet: data/*.parquet"
                if value is None
                else "remove one of them",
                at=("..",) if value is None else (),
            )
        return value

    @field_validator("targets_known_at")
    @classmethod
    def _one_role_each(cls, value: str | None, info: ValidationInfo) -> str | None:
        keys: tuple[str, ...] = info.data.get("keys", ())
        targets: tuple[str, ...] = info.data.get("targets", ())
        timestamp = [info.data["timestamp"]] if "timestamp" in info.data else []
        roles = [("keys", name) for name in keys] + [("timestamp", name) for name in timestamp]
        roles += [("targets", name) for name in targets]
        if value is not None and value not in timestamp:
            roles.append(("targets_known_at", value))
        seen: dict[str, str] = {}
        for role, name in roles:
            if name in seen or (role == "keys" and name == _PREDICTION):
                other = seen.get(name, "the column with predictions")
                raise complaint(
                    f"names {name}, which is also {other}"
                    if name in seen
                    else f"names {name}, a reserved name",
                    expected="a column of its own for keys, timestamp, targets and targets_known_at",
                    cure="give one of them another name in the SQL: SELECT ... AS ...",
                    at=("..", role),
                )
            seen[name] = role
        return value


class Split(Section):
    """How examples are divided: the oldest train, the newest test."""

    by: Literal["time"] = Field(default="time", description="Oldest examples first.")
    train: Share = Field(default=0.7, description="Share of the examples to learn from.")
    validation: Share = Field(default=0.15, description="Share to choose by, within the training.")
    test: Share = Field(default=0.15, description="Share to judge by, the newest.", validate_default=True)
    gap: Duration = Field(default=duration("0s"), description="Time left out between two splits.")

    @field_validator("test")
    @classmethod
    def _whole(cls, value: float, info: ValidationInfo) -> float:
        if {"train", "validation"} <= info.data.keys():
            total = info.data["train"] + info.data["validation"] + value
            if abs(total - 1) > 1e-6:
                raise complaint(
                    f"and the other shares make {total:.6g}",
                    expected="train + validation + test = 1",
                    cure="write all three, for example train: 0.7, validation: 0.15, test: 0.15",
                )
        return value


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
