"""The values that one parameter may take in a tuning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal, TypeGuard

from airflow_mlops.exceptions import ParameterError

Kind = Literal["float", "int", "choices"]

#: Whole numbers beyond this are not all floats.
EXACT = 2**53


@dataclass(frozen=True)
class Dimension:
    """The values that one parameter may take in a tuning.

    :param kind: ``float`` and ``int`` have bounds, ``choices`` a list.
    :param low: smallest value, itself allowed.
    :param high: largest value, itself allowed.
    :param log: try orders of magnitude alike.
    :param step: distance between two values; ``None`` for any value between the bounds (floats).
    :param choices: the values, as JSON scalars.
    """

    kind: Kind
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The dimension as JSON values."""
        return {**asdict(self), "choices": list(self.choices)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Dimension:
        """What :meth:`to_dict` gave."""
        return cls(**{**content, "choices": tuple(content["choices"])})

    def values(self) -> list[Any]:
        """All values, in order.

        :raises ParameterError: there are endlessly many.
        """
        if self.kind == "choices":
            return list(self.choices)
        return [self.at(number) for number in range(self.count)]

    @property
    def beyond_floats(self) -> bool:
        """Whether it has whole numbers that a float would change."""
        return self.kind == "int" and max(abs(self.low), abs(self.high)) > EXACT

    @property
    def count(self) -> int:
        """How many values there are.

        :raises ParameterError: there are endlessly many.
        """
        if self.kind == "choices":
            return len(self.choices)
        if self.step is None:
            raise ParameterError("a float without step has endlessly many values")
        if self.kind == "int":
            return int((self.high - self.low) // self.step) + 1
        return int((exact(self.high) - exact(self.low)) // exact(self.step)) + 1

    @property
    def counted(self) -> bool:
        """Whether values are known by their number alone: floats change them, or ``==`` does not tell them apart."""
        choices = self.choices
        return self.beyond_floats or any(one == other for one, other in itertools.combinations(choices, 2))

    def nearest(self, value: Any) -> Any:
        """A value that the dimension contains, or the nearest one that its steps allow."""
        if self.kind == "choices" or self.step is None:
            return value
        return self.at(min(self.number(value), self.count - 1))

    def number(self, value: Any) -> int:
        """Which of its values one is, or is nearest to, counted from 0."""
        if self.kind == "choices":
            return next(number for number, choice in enumerate(self.choices) if is_same(value, choice))
        step = self.step or 1
        if self.kind == "int":
            return round(Fraction(int(value) - int(self.low), int(step)))
        return round((exact(value) - exact(self.low)) / exact(step))

    def at(self, number: int) -> Any:
        """The value of a number, as :meth:`number` counts."""
        if self.kind == "choices":
            return self.choices[number]
        if self.kind == "int":
            return int(self.low) + number * int(self.step or 1)
        # In decimals, as people write them: 0 + 3 * 0.1 would be more than a high of 0.3.
        value = exact(self.low) + number * exact(self.step or 0)
        return float(value)

    def contains(self, value: Any) -> bool:
        """Whether the dimension's bounds or choices allow the value; steps do not count."""
        if self.kind == "choices":
            return any(is_same(value, choice) for choice in self.choices)
        right = isinstance(value, int if self.kind == "int" else (int, float)) and not isinstance(value, bool)
        return right and self.low <= value <= self.high


def exact(number: float) -> Fraction:
    """A number as people write it: 0.1 is a tenth."""
    return Fraction(str(number))


def said(number: float) -> str:
    """A number for messages; whole ones with all their digits."""
    return str(number) if isinstance(number, int) else f"{number:g}"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number, and no boolean."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (isinstance(value, int) or math.isfinite(value))
    )


def is_scalar(value: Any) -> bool:
    """Whether it may be a choice: text, a finite number, true, false or null."""
    return value is None or isinstance(value, str | bool) or is_number(value)


def is_same(value: Any, choice: Any) -> bool:
    """Whether two JSON values are one: 1 and 1.0 are, 1 and true are not."""
    return bool(value == choice) and isinstance(value, bool) == isinstance(choice, bool)


def different(values: Iterable[Any]) -> tuple[Any, ...]:
    """The values, each once."""
    found: list[Any] = []
    for value in values:
        if not any(is_same(value, one) for one in found):
            found.append(value)
    return tuple(found)
