"""Rules about the values of a column, or of a row: each row keeps them or breaks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.assumptions.kind import Kind, RowWise
from airflow_mlops.primitives.assumptions.rules import Finding
from airflow_mlops.primitives.sql.present import is_float, present_sql
from airflow_mlops.primitives.sql.type_names import same_type
from airflow_mlops.primitives.sql.words import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Bounds",
    "Condition",
    "KnownBy",
    "Length",
    "Matches",
    "NotNull",
    "NullShare",
    "OneOf",
    "Type",
    "Valueless",
]


class NotNull(RowWise):
    """No value is missing."""

    says = "null"

    def fault(self) -> str:
        """NULL, or NaN: writers that know no NULL say so."""
        name = self.rule.columns[0]
        return f"NOT {present_sql(identifier(name), self.table.columns[name])}"


class NullShare(NotNull):
    """A limited share of values is missing."""

    def judge(self) -> Finding:
        """Compare the share."""
        share = self.seen[0] / self.rows if self.rows else 0.0
        said = f"{self.seen[0]} of {self.rows} rows null ({share:.6g})"
        return Finding(self.rule, share <= self.rule.value, said, int(self.seen[0]))


class Bounds(RowWise):
    """Values lie between bounds: ``between``, ``above`` and ``below``. NaN lies nowhere."""

    def fault(self) -> str:
        """Outside, or NaN."""
        name = identifier(self.rule.columns[0])
        low, high = {
            "between": self.rule.value,
            "above": (self.rule.value, None),
            "below": (None, self.rule.value),
        }[self.rule.check]
        or_equal = "" if self.rule.check == "between" else "="
        kind = self.table.columns[self.rule.columns[0]]
        outside = [f"{name} <{or_equal} {_of_type(low, kind)}"] if low is not None else []
        outside += [f"{name} >{or_equal} {_of_type(high, kind)}"] if high is not None else []
        if is_float(kind):
            outside.append(f"isnan({name})")
        return f"({' OR '.join(outside)})"

    def measures(self) -> tuple[str, ...]:
        """The rows outside, and the extremes."""
        name = identifier(self.rule.columns[0])
        within = f" FILTER (WHERE {self.within()})" if self.rule.where else ""
        return (
            *super().measures(),
            f"min({name}){within}::VARCHAR",
            f"max({name}){within}::VARCHAR",
        )

    def judge(self) -> Finding:
        """Not one outside."""
        failing, low, high = self.seen
        text = f"{failing} of {self.rows} rows outside; values from {low} to {high}"
        return Finding(self.rule, failing == 0, text, int(failing))


class OneOf(RowWise):
    """Values are in a list."""

    says = "have another value"

    def fault(self) -> str:
        """Not in it."""
        name = identifier(self.rule.columns[0])
        kind = self.table.columns[self.rule.columns[0]]
        is_text = same_type(kind, "string")
        known = _known_texts(name, self.rule.value) if is_text else _in(name, kind, self.rule.value)
        return f"{present_sql(name, kind)} AND NOT ({known})"


class Matches(RowWise):
    """Texts match a regular expression as a whole."""

    says = "do not match"

    def fault(self) -> str:
        """NULL for NULL, which no filter lets pass."""
        return f"NOT regexp_full_match({identifier(self.rule.columns[0])}, {literal(self.rule.value)})"


class Length(RowWise):
    """Texts have so many characters, lists so many items."""

    def fault(self) -> str:
        """Too short or too long."""
        low, high = self.rule.value
        length = f"length({identifier(self.rule.columns[0])})"
        bounds = [f"{length} < {low}"] if low is not None else []
        bounds += [f"{length} > {high}"] if high is not None else []
        return f"({' OR '.join(bounds)})"

    def measures(self) -> tuple[str, ...]:
        """The rows outside, and the extremes."""
        length = f"length({identifier(self.rule.columns[0])})"
        within = f" FILTER (WHERE {self.within()})" if self.rule.where else ""
        return (*super().measures(), f"min({length}){within}", f"max({length}){within}")

    def judge(self) -> Finding:
        """Not one outside."""
        failing, low, high = self.seen
        text = f"{failing} of {self.rows} rows shorter or longer; lengths from {low} to {high}"
        return Finding(self.rule, failing == 0, text, int(failing))


class Condition(RowWise):
    """A condition in SQL; as in a CHECK constraint, NULL counts as true."""

    says = "break it"

    def fault(self) -> str:
        """The line end closes a comment in the condition."""
        return f"NOT ({self.rule.value}\n)"


class KnownBy(RowWise):
    """A value was known at the time of its example."""

    says = "became known later"

    def lacking(self) -> str | None:
        """The time of an example."""
        return None if self.table.context.timestamp else "no column with the time of an example here"

    def fault(self) -> str:
        """Later than the example; a value that is missing gives nothing away."""
        value, known = identifier(self.rule.columns[0]), identifier(self.rule.value)
        asked = identifier(self.table.context.timestamp or "")
        return f"{value} IS NOT NULL AND {known}::TIMESTAMPTZ > {asked}::TIMESTAMPTZ"

    def columns(self) -> tuple[str, ...]:
        """Both times."""
        return (*self.rule.columns, self.table.context.timestamp or self.rule.value)


class Type(Kind):
    """The type of a column, by any of its usual names."""

    def judge(self) -> Finding:
        """Compare the names."""
        found = self.table.columns[self.rule.columns[0]]
        return Finding(self.rule, same_type(found, str(self.rule.value)), f"type {found}")


class Valueless(Kind):
    """Any rule about values, of a column that has none in any row: only those about missing values are broken by it."""

    def judge(self) -> Finding:
        """Kept."""
        return Finding(self.rule, True, "no value in any row")


def _in(column: str, kind: str, values: Sequence[Any]) -> str:
    return f"{column} IN ({', '.join(_of_type(value, kind) for value in values)})"


def _known_texts(column: str, values: Sequence[Any]) -> str:
    """Whether a text says one of the values: numbers and booleans as numbers and booleans, so that no text is an error."""
    texts = [value for value in values if not isinstance(value, int | float)]
    flags = [value for value in values if isinstance(value, bool)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    said = [_in(column, "string", texts)] if texts else []
    said += [f"coalesce(TRY_CAST({column} AS BOOLEAN) = {literal(flag)}, false)" for flag in flags]
    said += [f"coalesce(TRY_CAST({column} AS DOUBLE) = {literal(number)}, false)" for number in numbers]
    return " OR ".join(said)


def _of_type(value: Any, kind: str) -> str:
    """A value as a column of this type would hold it: 0.1 of 32 bits is not 0.1 of 64."""
    narrow = kind == "float" and isinstance(value, int | float)
    return f"{literal(value)}::FLOAT" if narrow else literal(value)
