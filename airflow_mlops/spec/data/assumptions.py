"""``assumptions:``: what is taken for granted about data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from airflow_mlops.spec.values import (
    ColumnName,
    Number,
    PositiveDuration,
    Probability,
    Section,
    Text,
    UniqueColumns,
    WholeNumber,
    complaint,
)

__all__ = ["OF_COLUMN", "OF_TABLE", "UNFILTERED", "Assumption", "Distribution", "FoundIn", "Newest"]

OF_COLUMN = (
    "not_null",
    "max_null_share",
    "between",
    "above",
    "below",
    "one_of",
    "matches",
    "length",
    "type",
    "found_in",
    "known_by",
    "increasing_per",
    "max_target_leakage",
)
OF_TABLE = (
    "unique",
    "min_rows",
    "max_rows",
    "rows_vs_previous",
    "newest",
    "sql",
    "distribution",
    "groups_stay_together",
    "no_duplicates_across_splits",
    "max_target_leakage",
)
#: Rules that are not about single rows: ``where`` means nothing to them.
UNFILTERED = ("type", "rows_vs_previous", "distribution", "no_duplicates_across_splits", "max_target_leakage")


class FoundIn(Section):
    """A file with the values that a column may have."""

    parquet: Text | None = Field(
        default=None, description="Parquet file or glob. A relative path is below the examples' folder."
    )
    csv: Text | None = Field(default=None, description="CSV file with a header, likewise.")
    column: ColumnName = Field(description="The file's column with the values.", validate_default=True)

    @field_validator("column")
    @classmethod
    def _one_file(cls, value: str, info: ValidationInfo) -> str:
        if {"parquet", "csv"} <= info.data.keys() and (info.data["parquet"] is None) == (
            info.data["csv"] is None
        ):
            raise complaint(
                "names no file" if info.data["csv"] is None else "names two files",
                expected="exactly one of parquet and csv",
                cure="write found_in: {csv: airports.csv, column: code}",
                at=("..",),
            )
        return value


class Newest(Section):
    """How far the newest time may be from now, or from the end of the window."""

    within: PositiveDuration = Field(description="At most this far, before or after.")
    of: Literal["now", "window"] = Field(
        default="now", description="now: when the rule is checked; window: the end of the dataset's window."
    )
    column: ColumnName | None = Field(
        default=None, description="The column with the times. Default: the time of the examples."
    )


class Distribution(Section):
    """Values must be distributed as in another dataset version: the test that monitoring uses."""

    against: Text = Field(
        default="latest",
        description="latest: the newest training dataset; serving: the newest prediction dataset; another "
        "reference by its name, or the id of a dataset version.",
    )
    columns: UniqueColumns | None = Field(
        default=None, min_length=1, description="The columns to compare. Default: all inputs of the model."
    )
    max_drifted: WholeNumber = Field(default=0, ge=0, description="At most this many columns have moved.")
    false_alarm_rate: Probability = Field(
        default=0.0001,
        description="Chance that any column of unchanged data counts as moved; a difference must also be large "
        "enough to matter.",
    )
    min_rows: WholeNumber = Field(
        default=1000,
        ge=1,
        description="With fewer examples on either side nothing is compared, and the rule holds.",
    )


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else "other"


class Assumption(Section):
    """What one column must be like (one or more rules), or what all rows must be like (one rule)."""

    column: ColumnName | None = Field(default=None, description="The column that the rule is about.")
    not_null: Literal[True] | None = Field(
        default=None, description="true: no value of the column is missing; NaN counts as missing."
    )
    max_null_share: Number | None = Field(
        default=None, ge=0, le=1, description="At most this share of the column's values is missing."
    )
    between: tuple[Any, ...] | None = Field(
        default=None,
        description="[low, high], both included, for every value that is not missing; null for no bound. NaN is "
        "never within.",
    )
    above: Any = Field(
        default=None,
        description="Every value that is not missing is greater than this number or time (text).",
    )
    below: Any = Field(default=None, description="Every value that is not missing is less than this.")
    one_of: tuple[Any, ...] | None = Field(
        default=None,
        min_length=1,
        description="Every value of the column that is not missing is one of these.",
    )
    matches: Text | None = Field(
        default=None,
        description="Regular expression (RE2) that every text that is not missing matches as a whole.",
    )
    length: tuple[WholeNumber | None, ...] | None = Field(
        default=None,
        description="[shortest, longest] number of characters of a text, or of items of a list; null for no bound.",
    )
    type: Text | None = Field(default=None, description="Type of the column, for example double or varchar.")
    found_in: FoundIn | None = Field(
        default=None, description="Every value that is not missing is found in a column of this file."
    )
    known_by: ColumnName | None = Field(
        default=None,
        description="Column with the time at which the value became known: not after the example's time.",
    )
    increasing_per: UniqueColumns | None = Field(
        default=None,
        description="In order of time, no value of the column is less than the one before it with the same values "
        "in these columns; [] for all rows together.",
    )
    unique: UniqueColumns | None = Field(
        default=None, min_length=1, description="No two examples agree in all these columns."
    )
    min_rows: WholeNumber | None = Field(
        default=None, ge=1, description="The dataset has at least this many examples."
    )
    max_rows: WholeNumber | None = Field(
        default=None, ge=1, description="The dataset has at most this many examples."
    )
    rows_vs_previous: tuple[Number | None, ...] | None = Field(
        default=None,
        description="[least, most] examples as a multiple of the median of the last five versions, for example "
        "[0.5, 2]; null for no bound. It holds for a first version.",
    )
    newest: Newest | None = Field(
        default=None, description="How far the newest time may be from now, or from the end of the window."
    )
    sql: Text | None = Field(
        default=None,
        description="Condition on each row, in DuckDB's SQL: arrival > departure. As in a CHECK constraint, NULL "
        "counts as true.",
    )
    distribution: Distribution | None = Field(
        default=None, description="Values are distributed as in another dataset version."
    )
    groups_stay_together: UniqueColumns | None = Field(
        default=None,
        min_length=1,
        description="Rows that agree in all these columns, such as those of one customer, are in one split.",
    )
    no_duplicates_across_splits: Literal[True] | None = Field(
        default=None,
        description="true: no two examples of different splits agree in all inputs of the model.",
    )
    max_target_leakage: Number | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="No single input tells more than this share of the target (0.95, say): predicted R², or for "
        "classes the Brier skill, of a leave-one-out prediction from that input alone. With column: that one.",
    )
    where: Text | None = Field(
        default=None,
        description="Condition on a row, as in sql: the rule is about those rows only for which it is true.",
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
        return _ordered(value)

    @field_validator("length", "rows_vs_previous")
    @classmethod
    def _least_and_most(cls, value: tuple[Any, ...] | None, info: ValidationInfo) -> tuple[Any, ...] | None:
        if value is None:
            return None
        if (
            len(value) != 2
            or value == (None, None)
            or any(bound is not None and bound < 0 for bound in value)
        ):
            raise complaint(
                "is not a least and a most",
                expected="two numbers of at least 0; null for no bound on one side",
                cure=f"write {info.field_name}: [{'0.5, 2.0' if info.field_name == 'rows_vs_previous' else '1, 20'}]",
            )
        return _ordered(value)

    @field_validator("above", "below")
    @classmethod
    def _bound(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and _kind(value) == "other":
            raise complaint(
                "is not a bound", expected="a number, or a time as text", cure=f"write {info.field_name}: 0"
            )
        return value

    @field_validator("one_of")
    @classmethod
    def _scalars(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if value is not None and any(not isinstance(item, (str, int, float, bool)) for item in value):
            raise complaint(
                "has an item that is not a plain value",
                expected="texts, numbers, true or false",
                cure="write [a, b]",
            )
        return value

    @field_validator("matches")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        if value is None:
            return None
        from airflow_mlops.spec.data.expressions import pattern_problem  # few files have patterns

        if problem := pattern_problem(value):
            raise complaint(
                f"is not a regular expression: {problem}",
                expected="the syntax of RE2, which has no look-around and no back references",
                cure="write, for example, matches: '[A-Z]{3}'",
            )
        return value

    @field_validator("sql", "where")
    @classmethod
    def _condition(cls, value: str | None) -> str | None:
        if value is not None:
            from airflow_mlops.spec.data.expressions import ExpressionError, expression_columns

            try:
                expression_columns(value)
            except ExpressionError as error:
                raise complaint(
                    str(error),
                    expected="one condition on the columns of a row: arrival > departure",
                    cure="keep the condition alone; what needs other rows belongs into the examples' query",
                ) from error
        return value

    @field_validator("severity")
    @classmethod
    def _some_rule(cls, value: str, info: ValidationInfo) -> str:
        if not {"column", "where", *OF_COLUMN, *OF_TABLE} <= info.data.keys():
            return value  # a part is wrong in itself: said already
        column = info.data["column"] is not None
        given = [rule for rule in dict.fromkeys((*OF_COLUMN, *OF_TABLE)) if info.data[rule] is not None]
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
        unfiltered = [rule for rule in given if rule in UNFILTERED]
        if info.data["where"] is not None and unfiltered:
            raise complaint(
                f"mixes where with {unfiltered[0]}, which is not about single rows",
                cure="remove where, or write the rules as two list items",
                at=("..",),
            )
        return value


def _ordered(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if None not in value and value[0] > value[1]:
        raise complaint("has its low bound above its high bound", cure=f"write [{value[1]}, {value[0]}]")
    return value
