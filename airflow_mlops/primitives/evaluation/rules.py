"""The rules of a gate, as a YAML or an operator's argument says them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from airflow_mlops.exceptions import SpecError

About = Literal["metric", "fairness", "latency", "size"]

#: Quantiles of the latency that the contract reports.
LATENCIES = ("p50", "p90", "p95", "p99")
#: Fairness by rates of decisions; any other name is a metric whose gap is taken.
RATES = ("demographic_parity", "equal_opportunity")
CONFIDENCE = 0.95
MINIMUM_ROWS = 200

_ABOUT: tuple[About, ...] = ("metric", "fairness", "latency", "size")
_KEYS = {
    "metric": {
        *("metric", "split", "slice", "per_slice", "minimum_rows", "at_least", "at_most"),
        *("against", "no_worse_by", "better_by", "confidence", "if_champion_fails"),
    },
    "fairness": {"fairness", "column", "at_most", "minimum_rows"},
    "latency": {"latency", "at_most"},
    "size": {"size", "at_most"},
}
_BOUNDS = ("at_least", "at_most")


@dataclass(frozen=True)
class Rule:
    """One rule.

    :param about: what is judged.
    :param name: of the metric, of the rate, of the latency's quantile.
    :param slice: one part of the split, as ``origin=JFK``.
    :param per_slice: columns; the rule must hold in each of their values.
    :param champion: whether it compares with the champion.
    :param no_worse_by: how much worse still passes, surely.
    :param better_by: how much better is asked for, surely; ``None`` when no better is asked for.
    :param confidence: how sure; ``None`` for the figure itself.
    :param lenient: whether it passes when the champion cannot be evaluated.
    :param minimum_rows: a smaller part is not judged.
    """

    about: About
    name: str
    at_least: float | None = None
    at_most: float | None = None
    split: str = "test"
    slice: str | None = None
    per_slice: tuple[str, ...] = ()
    champion: bool = False
    no_worse_by: float = 0.0
    better_by: float | None = None
    confidence: float | None = None
    lenient: bool = True
    minimum_rows: int = MINIMUM_ROWS
    column: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the split that it needs."""
        named = (self.slice.partition("=")[0].strip(),) if self.slice and "=" in self.slice else ()
        return (*self.per_slice, *((self.column,) if self.column else ()), *named)


def read_rules(stated: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """Read the rules of ``evaluation.require``.

    :raises SpecError: a rule that says something it cannot mean.
    """
    return [_read(f"evaluation.require[{number}]", given) for number, given in enumerate(stated)]


def _read(where: str, stated: Mapping[str, Any]) -> Rule:
    given = {key: value for key, value in stated.items() if value is not None}
    about = [key for key in _ABOUT if key in given]
    if len(about) != 1 or not isinstance(given[about[0]], str):
        raise SpecError(f"{where} must have one of the keys {', '.join(_ABOUT)}, got {given}.")
    if unknown := set(given) - _KEYS[about[0]]:
        raise SpecError(
            f"{where}: {', '.join(sorted(unknown))} means nothing beside {about[0]}, which goes with "
            f"{', '.join(sorted(_KEYS[about[0]] - {about[0]}))}."
        )
    _check_numbers(where, given)
    if about[0] == "metric":
        _check_metric(where, given)
    elif "at_most" not in given or (about[0] == "fairness" and "column" not in given):
        raise SpecError(
            f"{where} needs at_most{' and column' if about[0] == 'fairness' else ''}, got {given}."
        )
    if about[0] == "latency" and given["latency"] not in LATENCIES:
        raise SpecError(f"{where}.latency must be one of {', '.join(LATENCIES)}, got {given['latency']!r}.")
    champion = "against" in given
    cut = given.get("per_slice") or ()
    return Rule(
        about=about[0],
        name=given[about[0]],
        at_least=given.get("at_least"),
        at_most=given.get("at_most"),
        split=given.get("split", "test"),
        slice=given.get("slice"),
        per_slice=(cut,) if isinstance(cut, str) else tuple(cut),
        champion=champion,
        no_worse_by=float(given.get("no_worse_by", 0.0)),
        better_by=given.get("better_by"),
        confidence=given.get("confidence", CONFIDENCE if champion else None),
        lenient=given.get("if_champion_fails", "pass") == "pass",
        minimum_rows=int(given.get("minimum_rows", MINIMUM_ROWS)),
        column=given.get("column", ""),
    )


def _check_metric(where: str, given: Mapping[str, Any]) -> None:
    bounds = [key for key in _BOUNDS if key in given]
    if ("against" in given) == bool(bounds):
        raise SpecError(f"{where} needs either at_least/at_most or against: champion, got {dict(given)}.")
    if given.get("against", "champion") != "champion":
        raise SpecError(f"{where}.against must be champion, got {given['against']!r}.")
    for key in ("no_worse_by", "better_by", "if_champion_fails"):
        if key in given and "against" not in given:
            raise SpecError(f"{where}.{key} means nothing without against: champion.")
    if given.get("no_worse_by", 0) and "better_by" in given:
        raise SpecError(f"{where} asks for no_worse_by and better_by at once, got {dict(given)}.")
    if given.get("if_champion_fails", "pass") not in ("pass", "fail"):
        raise SpecError(
            f"{where}.if_champion_fails must be pass or fail, got {given['if_champion_fails']!r}."
        )
    if "slice" in given and "per_slice" in given:
        raise SpecError(f"{where} names one slice and asks for each slice, got {dict(given)}.")


def _check_numbers(where: str, given: Mapping[str, Any]) -> None:
    for key in (*_BOUNDS, "no_worse_by", "better_by", "confidence", "minimum_rows"):
        value = given.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SpecError(f"{where}.{key} must be a finite number, got {value!r}.")
    for key in ("no_worse_by", "better_by", "minimum_rows"):
        if given.get(key, 0) < 0:
            raise SpecError(f"{where}.{key} must not be negative, got {given[key]}.")
    if not 0.5 <= given.get("confidence", CONFIDENCE) < 1:
        raise SpecError(f"{where}.confidence must lie from 0.5 to below 1, got {given['confidence']}.")
