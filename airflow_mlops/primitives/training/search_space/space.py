"""The parameters that a tuning searches, and points of them."""

from __future__ import annotations

import difflib
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_mlops.exceptions import ContractError, ParameterError
from airflow_mlops.primitives.training.search_space.dimension import Dimension, is_number
from airflow_mlops.primitives.training.search_space.narrowing import narrow
from airflow_mlops.primitives.training.search_space.schema import allowed, resolved

#: Points that a grid may have at most.
GRID_LIMIT = 10_000


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
    properties = {name: resolved(rule, schema) for name, rule in (schema.get("properties") or {}).items()}
    said = any(_says(rule) for rule in properties.values())
    offered = _offered(properties) if said else _bounded(properties)
    problems = [_problem(name, properties, fixed) for name in narrowed]
    found: dict[str, Dimension] = {}
    for name in [*offered, *(name for name in narrowed if name in properties and name not in offered)]:
        if name in fixed:
            continue
        try:
            found[name] = narrow(properties[name], narrowed.get(name), offered.get(name) if said else None)
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


def search_space_json(
    schema: Mapping[str, Any], narrowed: Mapping[str, Mapping[str, Any]], fixed: Sequence[str] = ()
) -> dict[str, Any]:
    """As :func:`search_space`, in JSON values: schemas of model code are judged in a process of their own."""
    return {name: one.to_dict() for name, one in search_space(schema, narrowed, fixed).items()}


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


def _says(rule: Any) -> bool:
    return isinstance(rule, Mapping) and "search" in rule


def _offered(properties: Mapping[str, Any]) -> dict[str, Dimension]:
    """What the description offers to search."""
    found: dict[str, Dimension] = {}
    for name, rule in properties.items():
        try:
            found |= {name: narrow(rule, rule["search"])} if _says(rule) else {}
        except ParameterError as error:
            raise ContractError(
                f"describe gives a broken search space: {name} {error}. Cure: correct the model code's description."
            ) from error
    return found


def _bounded(properties: Mapping[str, Any]) -> dict[str, Dimension]:
    """What has bounds or choices, of a description that offers nothing."""
    found = {name: allowed(rule) for name, rule in properties.items() if isinstance(rule, Mapping)}
    return {name: dimension for name, dimension in found.items() if _has_end(dimension)}


def _has_end(dimension: Dimension) -> bool:
    if dimension.kind == "choices":
        return bool(dimension.choices)
    return (
        is_number(dimension.low) and is_number(dimension.high) and is_number(dimension.high - dimension.low)
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
