"""A case of the conformance suite of point-in-time joins, and how an answer to it is judged.

A case gives feature views with their rows, examples, and what must come out, written by hand. Each
example has a number ``n``, by which answers are compared: Feast promises no order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

__all__ = ["Alias", "Case", "CaseResult", "Outcome", "Row", "View", "judge"]

Outcome = Literal["pass", "fails", "not supported"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class View:
    """A feature view and its rows.

    :param rows: values by column of the source; ``time`` is the timestamp, ``created`` the created time.
    :param features: Feast name → type: ``int64``, ``float64``, ``string`` or ``bool``.
    :param keys: join key → type.
    :param ttl: zero for no limit.
    :param created: whether the source has created times.
    :param naive: whether times are stored without zone.
    :param renamed: column of the source → name in Feast.
    """

    name: str
    rows: tuple[Row, ...]
    features: Mapping[str, str]
    keys: Mapping[str, str] = field(default_factory=lambda: {"k": "int64"})
    ttl: timedelta = timedelta(0)
    created: bool = False
    naive: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Alias:
    """A view that is joined once more, by other columns of the examples.

    :param join_keys: join key of the view → column of the examples.
    """

    view: str
    name: str
    join_keys: Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """One question to a store.

    :param name: short, in snake case.
    :param about: the rule, in a sentence.
    :param examples: ``n``, join keys and ``event_timestamp``.
    :param expected: what must come out, by column, in order of ``n``.
    :param sql: whether the examples are given as a query.
    :param full_names: whether features are named ``view__feature``.
    :param created_filter: whether rows that were created later must not be seen.
    :param integers: columns that must be integers, although some are missing.
    :param refused: whether it must be an error instead.
    """

    name: str
    about: str
    views: tuple[View, ...]
    examples: tuple[Row, ...]
    expected: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    aliases: tuple[Alias, ...] = ()
    sql: bool = False
    full_names: bool = False
    created_filter: bool = False
    integers: tuple[str, ...] = ()
    refused: bool = False


@dataclass(frozen=True)
class CaseResult:
    """How a store answered a case.

    :param case: the case's name.
    :param about: the rule.
    :param detail: what was wrong, or why it is not supported.
    """

    case: str
    about: str
    outcome: Outcome
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """As JSON values."""
        return {"case": self.case, "about": self.about, "outcome": self.outcome, "detail": self.detail}


def judge(case: Case, rows: list[Row]) -> str:
    """What is wrong with an answer; nothing when it is right.

    :param rows: the rows that a store gave, in any order.
    """
    if case.refused:
        return f"gave {len(rows)} row(s) instead of an error"
    if len(rows) != len(case.examples):
        return f"{len(rows)} rows for {len(case.examples)} examples"
    answers = sorted(rows, key=lambda row: int(row["n"]))
    for column, values in case.expected.items():
        for example, (answer, value) in enumerate(zip(answers, values, strict=True)):
            if column not in answer:
                return f"no column {column}; there are {', '.join(answer)}"
            if not _equal(answer[column], value):
                return f"example {example}: {column} is {answer[column]!r}, expected {value!r}"
            if column in case.integers and isinstance(answer[column], float):
                return f"example {example}: {column} is {answer[column]!r}, no integer"
    return ""


def _equal(answer: Any, value: Any) -> bool:
    missing = answer is None or (isinstance(answer, float) and math.isnan(answer))
    return missing if value is None else not missing and bool(answer == value)
