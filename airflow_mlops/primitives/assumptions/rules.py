"""A stated assumption, what it is held against, and what came of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from airflow_mlops.exceptions import SpecError

__all__ = [
    "Assumption",
    "CheckContext",
    "DistributionTest",
    "Finding",
    "Severity",
    "few",
    "of_predictions",
    "parse_assumptions",
]

Severity = Literal["fail", "warn"]
_OF_TRAININGS = frozenset(
    (
        "min_rows",
        "max_rows",
        "rows_vs_previous",
        "distribution",
        "groups_stay_together",
        "no_duplicates_across_splits",
        "max_target_leakage",
        "known_by",
    )
)
DistributionTest = Callable[[Sequence[Path], Mapping[str, Any], Sequence[str]], Mapping[str, Any]]
"""Compares rows with another dataset version: their Parquet files, the rule's ``distribution`` and the model's inputs
→ ``{"against": id or None, "reference_rows", "judged", "columns": [{"column", "kind", "drifted", "p_value", "effects",
"note"}]}``; ``against`` is ``None`` where there is no such version yet."""


@dataclass(frozen=True)
class Assumption:
    """One check of one rule.

    :param check: the rule's key in the YAML, such as ``not_null``.
    :param value: what the rule says to it.
    :param columns: the columns it is about; none for those about all rows, such as ``min_rows``.
    :param severity: ``fail`` stops the dataset, ``warn`` is recorded.
    :param where: condition on the rows that it is about.
    :param where_columns: columns that this condition names.
    """

    check: str
    value: Any
    columns: tuple[str, ...] = ()
    severity: Severity = "fail"
    where: str | None = None
    where_columns: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """The assumption in words."""
        words = _WORDS[self.check](self.value, self.columns)
        return f"{words} where {' '.join(self.where.split())}" if self.where else words


@dataclass(frozen=True)
class Finding:
    """What came of one assumption.

    :param assumption: the assumption.
    :param passed: whether it holds.
    :param observed: what was seen instead or nevertheless, in words.
    :param failing: how many rows break it; ``None`` where rows are not the measure.
    :param examples: up to five of them.
    :param volatile: the same rows may give another outcome tomorrow: it depends on the clock, on earlier versions or
        on another file. It belongs to the record of a run, not to a dataset version.
    """

    assumption: Assumption
    passed: bool
    observed: str
    failing: int | None = None
    examples: tuple[Mapping[str, Any], ...] = ()
    volatile: bool = False

    def to_json(self, *, examples: bool = True) -> dict[str, Any]:
        """The finding as JSON values."""
        rule = self.assumption
        found: dict[str, Any] = {
            "rule": rule.check,
            "column": ", ".join(rule.columns) or None,
            "severity": rule.severity,
            "expected": rule.expected,
            "observed": self.observed,
            "passed": self.passed,
            "failing_rows": self.failing,
        }
        return {**found, "examples": [dict(row) for row in self.examples]} if examples else found

    def __str__(self) -> str:
        rule = self.assumption
        about = f"{', '.join(rule.columns)}: " if rule.columns else ""
        rows = f" e.g. {dict(self.examples[0])}" if self.examples else ""
        return f"{about}expected {rule.expected}, observed {self.observed}{rows}"


@dataclass(frozen=True)
class CheckContext:
    """What rules may need to know beside the rows; a rule that lacks what it needs fails and says so.

    :param timestamp: column with the time of an example.
    :param keys: columns that identify an example.
    :param targets: what is to be predicted.
    :param split: column with the name of a row's split; NULL for rows that are left out.
    :param features: the inputs of the model.
    :param moment: end of the window.
    :param now: the clock's time; the real one by default.
    :param previous_rows: rows of the earlier versions, newest first.
    :param distribution: compares the rows with another dataset version.
    """

    timestamp: str | None = None
    keys: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    split: str | None = None
    features: tuple[str, ...] = ()
    moment: datetime | None = None
    now: datetime | None = None
    previous_rows: tuple[int, ...] = ()
    distribution: DistributionTest | None = None

    @property
    def clock(self) -> datetime:
        """The time that counts as now."""
        return self.now or datetime.now(UTC)


def parse_assumptions(rules: Sequence[Mapping[str, Any]]) -> tuple[Assumption, ...]:
    """Rules as a YAML file states them; one rule may hold several checks of its column.

    :raises SpecError: a rule says something that is no check.
    """
    from pydantic import ValidationError

    from airflow_mlops.spec.data.assumptions import Assumption as Rule

    found: list[Assumption] = []
    for number, rule in enumerate(rules, 1):
        try:
            stated = Rule.model_validate(dict(rule))
        except ValidationError as error:
            problems = "; ".join(_problem(one, tuple(Rule.model_fields)) for one in error.errors())
            raise SpecError(f"assumption {number} ({dict(rule)}): {problems}") from error
        found += _checks(stated.model_dump(mode="json", exclude_none=True))
    return tuple(found)


def of_predictions(rules: Sequence[Assumption], answers: Iterable[str]) -> tuple[Assumption, ...]:
    """The rules that mean something for rows that are to be predicted: none of a target, a split or a dataset's size.

    A rule about another column that such rows lack stays, and does not hold.

    :param answers: columns that they cannot have: targets, and the time at which these are known.
    """
    unknown = {name.lower() for name in answers}
    return tuple(
        rule
        for rule in rules
        if rule.check not in _OF_TRAININGS
        and not unknown & {name.lower() for name in (*rule.columns, *rule.where_columns)}
    )


def few(values: Sequence[Any]) -> str:
    """Up to a dozen values, and how many there are."""
    shown = ", ".join(str(value) for value in values[:12])
    return shown if len(values) <= 12 else f"{shown}, … ({len(values)} in all)"


def _checks(rule: dict[str, Any]) -> list[Assumption]:
    from airflow_mlops.spec.data.expressions import expression_columns

    column, severity, where = rule.pop("column", None), rule.pop("severity"), rule.pop("where", None)
    about = (column,) if column else ()
    found = []
    for check, value in rule.items():
        columns = (*about, *_named(check, value))
        if check == "sql":
            columns = expression_columns(value)
        filtered = expression_columns(where) if where else ()
        columns = tuple(dict.fromkeys(columns))
        found.append(Assumption(check, value, columns, cast("Severity", severity), where, filtered))
    return found


def _named(check: str, value: Any) -> tuple[str, ...]:
    """Columns that a check names beside the one it is about."""
    if check in ("unique", "groups_stay_together", "increasing_per"):
        return tuple(value)
    if check == "known_by":
        return (value,)
    if check == "newest":
        return (value["column"],) if "column" in value else ()
    return tuple(value.get("columns", ())) if check == "distribution" else ()


def _problem(error: Any, known: tuple[str, ...]) -> str:
    """One of pydantic's errors as a clause."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where, known, n=1)
        return f"{where} is no rule; " + (
            f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        )
    context = error.get("ctx", {})
    if error["type"] != "complaint":
        return f"{where}: {error['msg']}"
    if ".." in context["at"]:
        where = "it"
    expected = f", expected {context['expected']}" if context["expected"] else ""
    return f"{where} {context['what']}{expected}" + (f". Cure: {context['cure']}" if context["cure"] else "")


def _bounds(value: Sequence[Any], of: str) -> str:
    low, high = value
    if high is None:
        return f"{of} ≥ {low}"
    return f"{of} ≤ {high}" if low is None else f"{of} from {low} to {high}"


def _moved(value: Mapping[str, Any]) -> str:
    at_most = f"at most {value['max_drifted']} columns" if value["max_drifted"] else "no column"
    return f"{at_most} distributed otherwise than in {value['against']}"


_WORDS: Mapping[str, Callable[[Any, tuple[str, ...]], str]] = {
    "not_null": lambda _, __: "no null",
    "max_null_share": lambda value, _: f"nulls ≤ {value}",
    "between": lambda value, _: f"between {value[0]} and {value[1]}",
    "above": lambda value, _: f"values > {value}",
    "below": lambda value, _: f"values < {value}",
    "one_of": lambda value, _: f"one of {few(value)}",
    "matches": lambda value, _: f"text like {value}",
    "length": lambda value, _: _bounds(value, "length"),
    "type": lambda value, _: f"type {value}",
    "found_in": lambda value, _: f"values of {value['column']} in {value.get('parquet') or value.get('csv')}",
    "known_by": lambda value, _: f"{value} not after the example's time",
    "known_later": lambda value, _: f"most targets known after {value}",
    "increasing_per": lambda value, _: (
        "values that never decrease" + (f" per {', '.join(value)}" if value else "")
    ),
    "unique": lambda _, __: "each value once",
    "min_rows": lambda value, _: f"rows ≥ {value}",
    "max_rows": lambda value, _: f"rows ≤ {value}",
    "rows_vs_previous": lambda value, _: _bounds(value, "rows as a multiple of earlier versions"),
    "newest": lambda value, _: (
        f"newest within {value['within']} of " + ("now" if value["of"] == "now" else "the window's end")
    ),
    "sql": lambda value, _: " ".join(value.split()),
    "distribution": lambda value, _: _moved(value),
    "groups_stay_together": lambda _, __: "each value in one split",
    "no_duplicates_across_splits": lambda _, __: "no two examples of different splits alike in all inputs",
    "max_target_leakage": lambda value, columns: (
        f"{'the column' if columns else 'no single input'} tells "
        f"{'at most' if columns else 'more than'} {value} of the target"
    ),
}
