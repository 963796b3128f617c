"""What the JSON Schema of one parameter allows a tuning to try."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from airflow_mlops.exceptions import ContractError
from airflow_mlops.primitives.training.parameters import taker
from airflow_mlops.primitives.training.search_space.dimension import (
    Dimension,
    different,
    exact,
    is_number,
    is_same,
    is_scalar,
)

#: References of a schema that are followed at most.
_REFERENCES = 20
#: Parts of a schema that are looked at, with references followed.
_PARTS = 10_000
_BRANCHES = ("anyOf", "oneOf")
#: Of two schemas that both hold, the tighter bound.
_TIGHTER = {"minimum": max, "exclusiveMinimum": max, "maximum": min, "exclusiveMaximum": min}
_NUMBERS = {*_TIGHTER, "multipleOf"}


class Branch(NamedTuple):
    """One of the ways in which a schema allows a parameter.

    :param dimension: bounds may be infinite, choices may be none for any text.
    :param multiple: what every value is a multiple of.
    """

    dimension: Dimension
    multiple: Fraction | None = None


def allowed(rule: Any) -> Dimension:
    """What the schema of one parameter allows at all.

    One that takes a number or something else is searched as a number.
    """
    found = [branch.dimension for branch in branches(rule)]
    numbers = [one for one in found if one.kind != "choices"]
    if numbers:
        return next((one for one in numbers if one.kind == "float"), numbers[0])
    if found and all(one.choices for one in found):
        return Dimension("choices", choices=different(c for one in found for c in one.choices))
    return Dimension("choices")


def branches(rule: Any) -> list[Branch]:
    """The ways in which a schema allows a parameter, but for ``null``, which a parameter has by being left out.

    :param rule: what :func:`resolved` gave.
    """
    if not isinstance(rule, Mapping):
        return []
    for word in _BRANCHES:
        if isinstance(rule.get(word), list):
            outer = {key: value for key, value in rule.items() if key not in (word, "default", "search")}
            return [
                one
                for part in rule[word]
                if isinstance(part, Mapping)
                for one in branches(_both(part, outer))
            ]
    kinds = rule.get("type")
    if isinstance(kinds, list):
        return [one for kind in kinds for one in branches({**rule, "type": kind})]
    return [] if kinds == "null" else [_branch(rule)]


def resolved(rule: Any, schema: Mapping[str, Any]) -> Any:
    """A schema with its references inside the whole followed, and with what ``allOf`` says in it.

    :raises ContractError: it refers to itself again and again.
    """
    parts = itertools.count()

    def follow(part: Any, left: int) -> Any:
        if not isinstance(part, Mapping) or not left:
            return part
        if next(parts) > _PARTS:
            raise ContractError(
                f"describe gives a parameter of more than {_PARTS} parts, with all references followed. "
                "Cure: correct the model code's description; it may refer to itself."
            )
        found = {key: value for key, value in part.items() if key not in ("$ref", "allOf")}
        for each in (_referred(part.get("$ref"), schema), *_listed(part.get("allOf"))):
            inner = follow(each, left - 1)
            found = _both(inner, found) if isinstance(inner, Mapping) else found
        for word in _BRANCHES:
            if isinstance(found.get(word), list):
                found[word] = [follow(branch, left - 1) for branch in found[word]]
        return found

    return follow(rule, _REFERENCES)


def _branch(rule: Mapping[str, Any]) -> Branch:
    if isinstance(rule.get("enum"), list) or "const" in rule:
        listed = rule["enum"] if isinstance(rule.get("enum"), list) else [rule["const"]]
        takes = taker(rule)
        return Branch(Dimension("choices", choices=different(v for v in listed if is_scalar(v) and takes(v))))
    kind = rule.get("type", "number" if _NUMBERS & rule.keys() else None)
    if kind == "boolean":
        return Branch(Dimension("choices", choices=(False, True)))
    if kind not in ("number", "integer"):
        return Branch(Dimension("choices"))
    whole = kind == "integer"
    low, high = _bounds(rule, whole)
    step: float | None = 1 if whole else None
    if multiple := _multiple(rule, whole):
        step = int(multiple) if whole else float(multiple)
        # Bounds that are no multiples themselves are not allowed: the next ones inside are.
        low = _on(low, multiple, whole, math.ceil)
        high = _on(high, multiple, whole, math.floor)
    return Branch(Dimension("int" if whole else "float", low, high, step=step), multiple)


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What two schemas say that both hold; of what cannot be said as one, the other's."""
    found = {**one, **other}
    for key in one.keys() & other.keys():
        mine, its = one[key], other[key]
        if key in _TIGHTER and is_number(mine) and is_number(its):
            found[key] = _TIGHTER[key](mine, its)
        elif key == "multipleOf" and is_number(mine) and is_number(its) and mine > 0 and its > 0:
            found[key] = _common(exact(mine), exact(its))
        elif key == "enum" and isinstance(mine, list) and isinstance(its, list):
            found[key] = [value for value in its if any(is_same(value, known) for known in mine)]
        elif key == "type":
            found[key] = _types(_listed(mine), _listed(its))
    return found


def _types(one: list[Any], other: list[Any]) -> Any:
    wide = [{*kinds, "integer"} if "number" in kinds else {*kinds} for kinds in (one, other)]
    found = [kind for kind in dict.fromkeys([*one, *other]) if all(kind in kinds for kinds in wide)]
    return found[0] if len(found) == 1 else found


def _common(one: Fraction, other: Fraction) -> float:
    both = Fraction(
        math.lcm(one.numerator * other.denominator, other.numerator * one.denominator),
        one.denominator * other.denominator,
    )
    return int(both) if both.denominator == 1 else float(both)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _referred(reference: Any, schema: Mapping[str, Any]) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: Any = schema
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _multiple(rule: Mapping[str, Any], whole: bool) -> Fraction | None:
    multiple: Any = rule.get("multipleOf")
    if not is_number(multiple) or multiple <= 0:
        return None
    # Whole multiples of p/q are those of p.
    return Fraction(exact(multiple).numerator) if whole else exact(multiple)


def _on(bound: float, multiple: Fraction, whole: bool, towards: Any) -> float:
    if not is_number(bound):
        return bound
    found = towards(exact(bound) / multiple) * multiple
    return int(found) if whole else float(found)


def _bounds(rule: Mapping[str, Any], whole: bool) -> tuple[float, float]:
    """Smallest and greatest value; whole ones stay whole, since a float has not all above 2^53."""
    low, least = rule.get("minimum"), rule.get("exclusiveMinimum")
    high, most = rule.get("maximum"), rule.get("exclusiveMaximum")
    lows, highs = [-math.inf], [math.inf]
    lows += [math.ceil(low) if whole else float(low)] if is_number(low) else []
    lows += [math.floor(least) + 1 if whole else math.nextafter(least, math.inf)] if is_number(least) else []
    highs += [math.floor(high) if whole else float(high)] if is_number(high) else []
    highs += [math.ceil(most) - 1 if whole else math.nextafter(most, -math.inf)] if is_number(most) else []
    return max(lows), min(highs)
