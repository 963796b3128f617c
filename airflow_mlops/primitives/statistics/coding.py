"""How a target of two classes is coded: 0 and 1, and the SQL that makes it so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.sql.words import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["binary_sql", "is_binary"]

_YES = ("true", "t", "yes", "y", "positive", "pos", "on")


def is_binary(values: Iterable[Any]) -> bool:
    """Whether all values are 0 or 1, or true or false; as numbers, not as text."""
    return all(not isinstance(value, str) and value in (0, 1) for value in values)


def binary_sql(target: str, values: Iterable[Any]) -> str:
    """SQL that makes a column of two values 0 or 1, and leaves NULL as it is.

    :param target: the column.
    :param values: its values; of more than two, the first word for yes or else the last value becomes 1.
    """
    known = sorted(set(values), key=lambda value: (str(type(value)), value))
    # Of numbers the greater one is yes: 1 of -1 and 1, 2 of 1 and 2.
    words = (value for value in known if isinstance(value, str) and value.strip().lower() in _YES)
    positive = next(words, known[-1] if known else 1)
    others = [value for value in known if value != positive] or [0]
    cases = " ".join(
        f"WHEN {_value(value)} THEN {int(value == positive)}" for value in [*others[:3], positive]
    )
    return f"CASE {identifier(target)} {cases} END AS {identifier(target)}"


def _value(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return literal(int(value) if whole else value)
