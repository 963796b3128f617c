"""What a YAML, or the description itself, leaves of what the schema of a parameter allows."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from airflow_mlops.exceptions import ParameterError
from airflow_mlops.primitives.training.parameters import taker
from airflow_mlops.primitives.training.search_space.dimension import (
    EXACT,
    Dimension,
    different,
    exact,
    is_number,
    is_scalar,
    said,
)
from airflow_mlops.primitives.training.search_space.schema import Branch, allowed, branches

#: Keys of one entry, in the description and in the YAML.
KEYS = ("low", "high", "log", "step", "choices")


def narrow(rule: Any, entry: Any, offered: Dimension | None = None) -> Dimension:
    """One parameter as it is to be searched, within what its schema allows.

    :param rule: its schema, with references followed.
    :param entry: keys of the YAML or of the description; ``None`` for all that there is.
    :param offered: what the description offers to search, which the entry may narrow and never widen.
    :raises ParameterError: it leaves what is allowed, or is not to be searched.
    """
    if entry is None:
        return bounded(offered or allowed(rule))
    if not isinstance(entry, Mapping):
        raise ParameterError(f"must be a mapping of {', '.join(KEYS)}, got {entry!r}")
    if unknown := [key for key in entry if key not in KEYS]:
        raise ParameterError(f"has unknown keys {', '.join(map(str, unknown))}; known: {', '.join(KEYS)}")
    if "choices" in entry:
        if len(entry) > 1:
            raise ParameterError("has both choices and bounds; expected one of them")
        return _chosen(rule, offered, entry["choices"])
    return _between(rule, offered, entry)


def bounded(dimension: Dimension) -> Dimension:
    """The dimension, fit to be searched.

    :raises ParameterError: it has no end, no values, or more than can be told apart.
    """
    if dimension.kind == "choices":
        if not dimension.choices:
            raise ParameterError("has no bounds and no choices: give it choices")
        return dimension
    if problem := next(_problems(dimension), None):
        raise ParameterError(problem)
    low, high, step = dimension.low, dimension.high, dimension.step
    if dimension.kind == "int":
        return replace(dimension, low=int(low), high=int(high), step=int(step or 1))
    return replace(dimension, low=float(low), high=float(high))


def _chosen(rule: Any, offered: Dimension | None, choices: Any) -> Dimension:
    """Choices that the schema takes, each by whichever of its branches."""
    if not isinstance(choices, list | tuple) or not choices:
        raise ParameterError(f"choices: expected a list of values, got {choices!r}")
    takes = taker(rule)
    odd = [
        value
        for value in choices
        if not is_scalar(value) or not takes(value) or (offered and not offered.contains(value))
    ]
    if odd:
        raise ParameterError(f"is allowed as {_words(rule, offered)}; not allowed: {_shown(odd)}")
    return Dimension("choices", choices=different(choices))


def _words(rule: Any, offered: Dimension | None) -> str:
    found = [Branch(offered)] if offered else branches(rule)
    words = dict.fromkeys(map(_of_branch, found))
    return " or ".join([*words, *(["null"] if not offered and taker(rule)(None) else [])]) or "nothing"


def _of_branch(branch: Branch) -> str:
    one = branch.dimension
    if one.kind == "choices":
        return _shown(one.choices) or "any text that its schema takes"
    if branch.multiple is not None and branch.multiple != 1:
        return f"multiples of {float(branch.multiple):g}"
    return f"{said(one.low)} to {said(one.high)}"


def _shown(values: Iterable[Any]) -> str:
    return ", ".join("null" if value is None else repr(value) for value in values)


def _between(rule: Any, offered: Dimension | None, entry: Mapping[str, Any]) -> Dimension:
    """Bounds within the first of the schema's branches that they fit."""
    for key in ("low", "high", "step"):
        if key in entry and not is_number(entry[key]):
            raise ParameterError(f"{key}: expected a number, got {entry[key]!r}")
    if not isinstance(entry.get("log", False), bool):
        raise ParameterError(f"log: expected true or false, got {entry['log']!r}")
    found = branches(rule)
    if offered:
        found = [Branch(offered, next((one.multiple for one in found if one.multiple), None))]
    # A float before a whole number: it is the wider one.
    numbers = sorted(
        (one for one in found if one.dimension.kind != "choices"), key=lambda one: one.dimension.kind
    )
    if not numbers:
        raise ParameterError(f"is no number: expected choices of {_words(rule, offered)}, got {dict(entry)}")
    problems = []
    for one in numbers:
        try:
            return _within(one, entry)
        except ParameterError as error:
            problems.append(str(error))
    raise ParameterError("; or ".join(dict.fromkeys(problems)))


def _within(branch: Branch, entry: Mapping[str, Any]) -> Dimension:
    given, multiple = branch
    if multiple is not None:
        _check_multiples(multiple, entry, whole=given.kind == "int")
    low, high = entry.get("low", given.low), entry.get("high", given.high)
    if low < given.low or high > given.high:
        raise ParameterError(
            f"is allowed from {said(given.low)} to {said(given.high)}, got {said(low)} to {said(high)}"
        )
    step, log = entry.get("step", given.step), entry.get("log", given.log)
    return bounded(replace(given, low=low, high=high, log=log, step=step))


def _check_multiples(multiple: Fraction, entry: Mapping[str, Any], *, whole: bool) -> None:
    """Refuse bounds and steps that leave the multiples that the schema wants."""
    for key in ("low", "high", "step"):
        if key in entry and exact(entry[key]) % multiple:
            raise ParameterError(f"{key}: expected a multiple of {float(multiple):g}, got {entry[key]!r}")
    if entry.get("log") and not (whole and multiple == 1):
        raise ParameterError(f"is log, and takes only multiples of {float(multiple):g}: give it choices")


def _problems(dimension: Dimension) -> Iterator[str]:
    """What keeps a number from being searched, the first first."""
    low, high = dimension.low, dimension.high
    if not is_number(low) or not is_number(high):
        yield f"has no {'high' if is_number(low) else 'low'}: give it one"
        return
    if low > high:
        yield f"has low {said(low)} above high {said(high)}: no value is left"
    yield from _step_problems(dimension)
    whole = dimension.kind == "int"
    if not whole and not is_number(float(high) - float(low)):
        yield "is wider than a float can say: give it nearer bounds"
    elif dimension.step and dimension.count > (2**62 if whole else EXACT):
        yield f"has more than {'2^62' if whole else '2^53'} values: give it nearer bounds or a larger step"


def _step_problems(dimension: Dimension) -> Iterator[str]:
    low, high, log, step = dimension.low, dimension.high, dimension.log, dimension.step
    whole = dimension.kind == "int"
    if whole and any(number != int(number) for number in (low, high, step or 1)):
        yield "is a whole number, so low, high and step must be too"
    if step is not None and step <= 0:
        yield f"step: expected more than 0, got {step:g}"
    if log and step is not None and not (whole and step == 1):
        yield "has both log and step; expected one of them"
    if log and low <= 0:
        yield f"is log, which needs low above 0, got {said(low)}"
    if (log or step) and 0 < low <= sys.float_info.min:
        yield "may be as small as can be, which log and step do not mean: give it a low above 0"
    if log and dimension.beyond_floats:
        yield "is log, and has whole numbers beyond 2^53: give it choices"
