"""What a tuning may try: the parameters that the model code offers, narrowed by the YAML."""

from __future__ import annotations

import difflib
import itertools
import math
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from airflow_mlops.exceptions import ContractError, ParameterError

Kind = Literal["float", "int", "choices"]

#: Points that a grid may have at most.
GRID_LIMIT = 10_000
#: Whole numbers beyond this are not all floats.
EXACT = 2**53
#: References of a schema that are followed at most.
_REFERENCES = 20
#: Keys of one entry, in the description and in the YAML.
KEYS = ("low", "high", "log", "step", "choices")


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
        return int((_exact(self.high) - _exact(self.low)) // _exact(self.step)) + 1

    def nearest(self, value: Any) -> Any:
        """A value that the dimension contains, or the nearest one that its steps allow."""
        if self.kind == "choices" or self.step is None:
            return value
        return self.at(min(self.number(value), self.count - 1))

    def number(self, value: Any) -> int:
        """Which of its values one is, or is nearest to, counted from 0."""
        step = self.step or 1
        if self.kind == "int":
            return round(Fraction(int(value) - int(self.low), int(step)))
        return round((_exact(value) - _exact(self.low)) / _exact(step))

    def at(self, number: int) -> Any:
        """The value of a number, as :meth:`number` counts."""
        if self.kind == "int":
            return int(self.low) + number * int(self.step or 1)
        # In decimals, as people write them: 0 + 3 * 0.1 would be more than a high of 0.3.
        value = _exact(self.low) + number * _exact(self.step or 0)
        return float(value)

    def contains(self, value: Any) -> bool:
        """Whether the dimension's bounds or choices allow the value; steps do not count."""
        if self.kind == "choices":
            return any(_same(value, choice) for choice in self.choices)
        right = isinstance(value, int if self.kind == "int" else (int, float)) and not isinstance(value, bool)
        return right and self.low <= value <= self.high


def search_space(
    schema: Mapping[str, Any], narrowed: Mapping[str, Mapping[str, Any]], fixed: Sequence[str] = ()
) -> dict[str, Dimension]:
    """The dimensions to search.

    By default they are the parameters whose schema says ``search`` (``{"low", "high", "log", "step"}`` or
    ``{"choices"}``); where none does, those with ``minimum`` and ``maximum``, an ``enum``, or two states. What
    ``narrowed`` names is searched too, within what the schema allows.

    :param schema: JSON Schema of the parameters, as ``describe`` prints it.
    :param narrowed: ``training.tuning.search_space`` of the YAML.
    :param fixed: parameters that somebody has given a value.
    :raises ParameterError: an entry names an unknown parameter, or leaves what is allowed, or nothing is left.
    :raises ContractError: the description's own search space is broken.
    """
    properties = {name: _resolved(rule, schema) for name, rule in (schema.get("properties") or {}).items()}
    offered = _offered(properties)
    problems = [_problem(name, properties, fixed) for name in narrowed]
    found: dict[str, Dimension] = {}
    for name in [*offered, *(name for name in narrowed if name in properties and name not in offered)]:
        if name in fixed:
            continue
        try:
            found[name] = _dimension(properties[name], offered.get(name), narrowed.get(name))
        except ParameterError as error:
            problems.append(f"{name} {error}")
    if shown := [problem for problem in problems if problem]:
        raise ParameterError(
            "training.tuning.search_space does not fit the model code:\n"
            + "\n".join(f"  - {problem}" for problem in shown)
            + "\nCure: correct it in the YAML; it may narrow what the model code describes, never widen it."
        )
    if not found:
        raise ParameterError(
            "There is no parameter to search. Cure: name some under training.tuning.search_space, let the model code "
            'describe them ("search": {"low": …, "high": …}), or give fewer of them a fixed value.'
        )
    return found


def grid(space: Mapping[str, Dimension], seed: int) -> list[dict[str, Any]]:
    """Every combination of the space's values, shuffled by the seed so that a part of them says something too.

    :raises ParameterError: a dimension has endlessly many values, or there are too many combinations.
    """
    counts = []
    for name, dimension in space.items():
        try:
            counts.append(dimension.count)
        except ParameterError as error:
            raise ParameterError(
                f"sampler: grid cannot search {name}: {error}. Cure: give it choices or a step under "
                "training.tuning.search_space, or write sampler: random."
            ) from error
    points = math.prod(counts)
    if points > GRID_LIMIT:
        raise ParameterError(
            f"sampler: grid would have {points} points; at most {GRID_LIMIT}. Cure: larger steps, fewer choices, or "
            "another sampler."
        )
    values = {name: dimension.values() for name, dimension in space.items()}
    found = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
    random.Random(seed).shuffle(found)  # noqa: S311 (an order, no secret)
    return found


def default_point(space: Mapping[str, Dimension], parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model code's defaults as a point of the space, each at its nearest step.

    ``None`` when the bounds or choices leave one of them out.
    """
    if all(name in parameters and dimension.contains(parameters[name]) for name, dimension in space.items()):
        return {name: dimension.nearest(parameters[name]) for name, dimension in space.items()}
    return None


def _offered(properties: Mapping[str, Any]) -> dict[str, Dimension]:
    said = {name: rule for name, rule in properties.items() if isinstance(rule, Mapping) and "search" in rule}
    if not said:
        return {
            name: dimension
            for name, rule in properties.items()
            if isinstance(rule, Mapping) and _is_bounded(dimension := _allowed(rule))
        }
    found = {}
    for name, rule in said.items():
        try:
            found[name] = _dimension(rule, None, rule["search"])
        except ParameterError as error:
            raise ContractError(
                f"describe gives a broken search space: {name} {error}. Cure: correct the model code's description."
            ) from error
    return found


def _is_bounded(dimension: Dimension) -> bool:
    if dimension.kind == "choices":
        return bool(dimension.choices)
    return math.isfinite(dimension.high - dimension.low)


def _dimension(rule: Any, offered: Dimension | None, entry: Any) -> Dimension:
    """One parameter as it is to be searched, within what its schema allows.

    :param offered: what the description offers, which the entry may narrow.
    :param entry: keys of the YAML or of the description; ``None`` for all that is offered.
    """
    allowed = offered or _allowed(rule)
    if entry is None:
        return _bounded(allowed)
    _check_multiples(rule, entry)
    if (
        isinstance(entry, Mapping)
        and set(entry) == {"choices"}
        and offered is None
        and len(_branches(rule)) > 1
    ):
        return _chosen_of(rule, entry["choices"])
    return _narrowed(allowed, entry)


def _chosen_of(rule: Any, choices: Any) -> Dimension:
    """Choices of which each is allowed by one of several branches, or is ``null`` where that is."""
    if not isinstance(choices, list | tuple) or not choices:
        raise ParameterError(f"choices: expected a list of values, got {choices!r}")
    for value in choices:
        problems = []
        for branch in _branches(rule):
            try:
                _chosen(branch, [value])
            except ParameterError as error:
                problems.append(str(error))
            else:
                break
        else:
            if not (value is None and _takes_null(rule)):
                raise ParameterError("; or ".join(dict.fromkeys(problems)))
    return Dimension("choices", choices=tuple(choices))


def _takes_null(rule: Any) -> bool:
    if not isinstance(rule, Mapping):
        return False
    kinds = rule.get("type")
    return (
        kinds == "null"
        or (isinstance(kinds, list) and "null" in kinds)
        or any(_takes_null(branch) for word in ("anyOf", "oneOf") for branch in rule.get(word) or ())
    )


def _allowed(rule: Any) -> Dimension:
    """What the schema of one parameter allows at all; bounds may be infinite.

    One that takes a number or something else is searched as a number.
    """
    branches = _branches(rule)
    numbers = [branch for branch in branches if branch.kind != "choices"]
    if numbers:
        return next((one for one in numbers if one.kind == "float"), numbers[0])
    if branches and all(branch.choices for branch in branches):
        return Dimension("choices", choices=tuple(dict.fromkeys(c for one in branches for c in one.choices)))
    return Dimension("choices")


def _branches(rule: Any) -> list[Dimension]:
    """What each branch of a schema allows, but for ``null``, which a parameter has by being left out."""
    if not isinstance(rule, Mapping):
        return []
    for word in ("anyOf", "oneOf"):
        if isinstance(rule.get(word), list):
            outer = {key: value for key, value in rule.items() if key not in (word, "default", "search")}
            return [
                one
                for branch in rule[word]
                if isinstance(branch, Mapping)
                for one in _branches({**outer, **branch})
            ]
    kinds = rule.get("type")
    if isinstance(kinds, list):
        return [one for kind in kinds for one in _branches({**rule, "type": kind})]
    if kinds == "null":
        return []
    return [_branch(rule)]


def _branch(rule: Mapping[str, Any]) -> Dimension:
    if isinstance(rule.get("enum"), list):
        return Dimension("choices", choices=tuple(rule["enum"]))
    if "const" in rule:
        return Dimension("choices", choices=(rule["const"],))
    if rule.get("type") == "boolean":
        return Dimension("choices", choices=(False, True))
    if rule.get("type") not in ("number", "integer"):
        return Dimension("choices")
    whole = rule["type"] == "integer"
    low = max(
        _bound(rule.get("minimum"), whole, up=True), _beyond(rule.get("exclusiveMinimum"), whole, up=True)
    )
    high = min(
        _bound(rule.get("maximum"), whole, up=False), _beyond(rule.get("exclusiveMaximum"), whole, up=False)
    )
    step: float | None = 1 if whole else None
    if multiple := _multiple(rule, whole):
        step = int(multiple) if whole else float(multiple)
        # Bounds that are no multiples themselves are not allowed: the next ones inside are.
        low = _on(low, multiple, whole, math.ceil)
        high = _on(high, multiple, whole, math.floor)
    return Dimension("int" if whole else "float", low, high, step=step)


def _resolved(rule: Any, schema: Mapping[str, Any]) -> Any:
    """A schema with its references inside the whole followed, and with what ``allOf`` says in it."""

    def follow(part: Any, left: int) -> Any:
        if not isinstance(part, Mapping) or not left:
            return part
        found = {key: value for key, value in part.items() if key not in ("$ref", "allOf")}
        below = [_referred(part.get("$ref"), schema), *(part.get("allOf") or [])]
        for each in below:
            inner = follow(each, left - 1)
            found = {**inner, **found} if isinstance(inner, Mapping) else found
        for word in ("anyOf", "oneOf"):
            if isinstance(found.get(word), list):
                found[word] = [follow(branch, left - 1) for branch in found[word]]
        return found

    return follow(rule, _REFERENCES)


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
    if not _finite(multiple) or multiple <= 0:
        return None
    exact = Fraction(_exact(multiple))
    # Whole multiples of p/q are those of p.
    return Fraction(exact.numerator) if whole else exact


def _on(bound: float, multiple: Fraction, whole: bool, towards: Any) -> float:
    if not math.isfinite(bound):
        return bound
    exact = towards(Fraction(bound if whole else _exact(bound)) / multiple) * multiple
    return int(exact) if whole else float(exact)


def _check_multiples(rule: Any, entry: Any) -> None:
    """Refuse bounds and steps that leave the multiples that the schema wants."""
    if not isinstance(rule, Mapping) or not isinstance(entry, Mapping):
        return
    rules = [
        rule,
        *(each for word in ("anyOf", "oneOf") for each in rule.get(word) or () if isinstance(each, Mapping)),
    ]
    multiple = next(
        (found for each in rules if (found := _multiple(each, each.get("type") == "integer"))), None
    )
    if multiple is None:
        return
    for key in ("low", "high", "step"):
        if _finite(entry.get(key)) and Fraction(_exact(entry[key])) % multiple:
            raise ParameterError(f"{key}: expected a multiple of {float(multiple):g}, got {entry[key]!r}")
    listed = entry.get("choices")
    numbers = [one for one in listed if _finite(one)] if isinstance(listed, list | tuple) else []
    if odd := [one for one in numbers if Fraction(_exact(one)) % multiple]:
        raise ParameterError(
            f"is allowed as multiples of {float(multiple):g}; not allowed: {', '.join(map(repr, odd))}"
        )
    if entry.get("log") and multiple != 1:
        raise ParameterError(f"is log, and takes only multiples of {float(multiple):g}: give it choices")


def _bound(bound: Any, whole: bool, *, up: bool) -> float:
    """A bound as a number; whole ones stay whole, since a float has not all above 2^53."""
    if not _finite(bound):
        return -math.inf if up else math.inf
    if whole:
        return int(math.ceil(bound) if up else math.floor(bound))
    return float(bound)


def _beyond(bound: Any, whole: bool, *, up: bool) -> float:
    if not _finite(bound):
        return -math.inf if up else math.inf
    if whole:
        return int(math.floor(bound) + 1 if up else math.ceil(bound) - 1)
    return math.nextafter(bound, math.inf if up else -math.inf)


def _narrowed(allowed: Dimension, entry: Any) -> Dimension:
    if not isinstance(entry, Mapping):
        raise ParameterError(f"must be a mapping of {', '.join(KEYS)}, got {entry!r}")
    if unknown := [key for key in entry if key not in KEYS]:
        raise ParameterError(f"has unknown keys {', '.join(map(str, unknown))}; known: {', '.join(KEYS)}")
    if "choices" in entry:
        if len(entry) > 1:
            raise ParameterError("has both choices and bounds; expected one of them")
        return _chosen(allowed, entry["choices"])
    if allowed.kind == "choices":
        values = ", ".join(map(repr, allowed.choices)) or "any text"
        raise ParameterError(f"is no number: expected choices of {values}, got {dict(entry)}")
    for key in ("low", "high", "step"):
        if key in entry and not _finite(entry[key]):
            raise ParameterError(f"{key}: expected a number, got {entry[key]!r}")
    low, high = entry.get("low", allowed.low), entry.get("high", allowed.high)
    if low < allowed.low or high > allowed.high:
        raise ParameterError(
            f"is allowed from {_said(allowed.low)} to {_said(allowed.high)}, got {_said(low)} to {_said(high)}"
        )
    return _bounded(
        replace(
            allowed,
            low=low,
            high=high,
            log=bool(entry.get("log", allowed.log)),
            step=entry.get("step", allowed.step),
        )
    )


def _chosen(allowed: Dimension, choices: Any) -> Dimension:
    if not isinstance(choices, list | tuple) or not choices:
        raise ParameterError(f"choices: expected a list of values, got {choices!r}")
    odd = [value for value in choices if not isinstance(value, str | int | float | bool | None)]
    if allowed.kind != "choices" or allowed.choices:
        odd += [value for value in choices if value not in odd and not allowed.contains(value)]
    if odd:
        within = (
            ", ".join(map(repr, allowed.choices))
            if allowed.choices
            else f"{_said(allowed.low)} to {_said(allowed.high)}"
            if allowed.kind != "choices"
            else "text or numbers"
        )
        raise ParameterError(f"is allowed as {within}; not allowed: {', '.join(map(repr, odd))}")
    return Dimension("choices", choices=tuple(choices))


def _bounded(dimension: Dimension) -> Dimension:
    if dimension.kind == "choices":
        if not dimension.choices:
            raise ParameterError("has no bounds and no choices: give it choices")
        return dimension
    if problem := _bounds_problem(dimension):
        raise ParameterError(problem)
    if dimension.kind == "int":
        if any(number != int(number) for number in (dimension.low, dimension.high, dimension.step or 1)):
            raise ParameterError("is a whole number, so low, high and step must be too")
        if dimension.log and (dimension.step or 1) != 1:
            raise ParameterError("has both log and step; expected one of them")
        return replace(
            dimension, low=int(dimension.low), high=int(dimension.high), step=int(dimension.step or 1)
        )
    if dimension.log and dimension.step is not None:
        raise ParameterError("has both log and step; expected one of them")
    return replace(dimension, low=float(dimension.low), high=float(dimension.high))


def _bounds_problem(dimension: Dimension) -> str:
    low, high = dimension.low, dimension.high
    if not math.isfinite(low) or not math.isfinite(high):
        return f"has no {'high' if math.isfinite(low) else 'low'}: give it one"
    if low > high:
        return f"has low {_said(low)} above high {_said(high)}"
    if dimension.log and low <= 0:
        return f"is log, which needs low above 0, got {_said(low)}"
    if (dimension.log or dimension.step) and 0 < low <= sys.float_info.min:
        return "may be as small as can be, which log and step do not mean: give it a low above 0"
    if dimension.beyond_floats and dimension.log:
        return "is log, and has whole numbers beyond 2^53: give it choices"
    return (
        f"step: expected more than 0, got {dimension.step:g}"
        if dimension.step is not None and dimension.step <= 0
        else ""
    )


def _problem(name: str, properties: Mapping[str, Any], fixed: Sequence[str]) -> str:
    if name not in properties:
        near = difflib.get_close_matches(name, properties, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it knows: {', '.join(properties) or 'none'}"
        return f"{name} is not known ({hint})"
    if name in fixed:
        return (
            f"{name} is searched and has a fixed value (training.parameters, or the trigger form); keep one"
        )
    return ""


def _said(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _exact(number: float) -> Decimal:
    return Decimal(str(number))


def _same(value: Any, choice: Any) -> bool:
    return bool(value == choice) and isinstance(value, bool) == isinstance(choice, bool)
