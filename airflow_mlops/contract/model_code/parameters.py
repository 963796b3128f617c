"""Parameters of model code: the part of JSON Schema that needs no library."""

from __future__ import annotations

import difflib
import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

from airflow_mlops.contract.protocol.failures import ParameterError
from airflow_mlops.contract.protocol.results import is_finite

Properties = Mapping[str, Mapping[str, Any]]

_TYPES: dict[str, tuple[type, ...]] = {
    "number": (int, float),
    "integer": (int,),
    "string": (str,),
    "boolean": (bool,),
}
_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("at least", operator.ge),
    "maximum": ("at most", operator.le),
    "exclusiveMinimum": ("more than", operator.gt),
    "exclusiveMaximum": ("less than", operator.lt),
}
_KEYWORDS = {"type", "enum", "default", "title", "description", "examples", "search", *_BOUNDS}
_SEARCH_KEYS = {"low", "high", "log", "step", "choices"}


def parameters_schema(properties: Properties) -> dict[str, Any]:
    """The JSON Schema of an object with these properties and no others.

    :param properties: parameter name → its schema; one without ``default`` is required.
    """
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {name: dict(schema) for name, schema in properties.items()},
        "additionalProperties": False,
    }
    required = [name for name, schema in properties.items() if "default" not in schema]
    return {**schema, "required": required} if required else schema


def check_properties(owner: str, properties: Properties) -> None:
    """Refuse a schema that contract 1 cannot check.

    :param owner: the class that states it, for the message.
    :raises TypeError: an unknown keyword or type, or a default that its own schema refuses.
    """
    for name, schema in properties.items():
        unknown = set(schema) - _KEYWORDS
        if unknown or schema.get("type") not in _TYPES:
            raise TypeError(
                f"{owner}.parameters[{name!r}]: expected `type` one of {', '.join(_TYPES)} and keywords of "
                f"{', '.join(sorted(_KEYWORDS))}; got {dict(schema)}."
            )
        _check_search(f"{owner}.parameters[{name!r}]", schema)
        if "default" in schema and (problem := _problem(schema["default"], schema)):
            raise TypeError(f"{owner}.parameters[{name!r}]: the default {problem}.")


def _check_search(where: str, schema: Mapping[str, Any]) -> None:
    search = schema.get("search")
    if search is None:
        return
    if not isinstance(search, Mapping) or not search or set(search) - _SEARCH_KEYS:
        raise TypeError(
            f"{where}: search: expected a mapping of low, high, log, step, or of choices; got {search}."
        )
    if "choices" in search and not isinstance(search["choices"], list | tuple):
        raise TypeError(f"{where}: search: choices: expected a list, got {search['choices']!r}.")
    for value in [*search.get("choices", ()), *(search[key] for key in ("low", "high") if key in search)]:
        if problem := _problem(value, schema):
            raise TypeError(f"{where}: search: a value {problem}.")


def check_parameters(
    properties: Properties, given: Mapping[str, Any], *, require: bool = True
) -> dict[str, Any]:
    """Typed parameters with the defaults filled in, in the order of the schema.

    :param properties: parameter name → its schema.
    :param given: what the job was given.
    :param require: whether parameters without default must be given.
    :raises ParameterError: naming every problem at once.
    """
    problems = [_unknown(name, properties) for name in given if name not in properties]
    values: dict[str, Any] = {}
    for name, schema in properties.items():
        if name in given:
            if problem := _problem(given[name], schema):
                problems.append(f"{name} {problem}")
            elif schema["type"] == "number":
                values[name] = float(given[name])
            else:
                values[name] = given[name]
        elif "default" in schema:
            values[name] = schema["default"]
        elif require:
            problems.append(f"{name} is missing; expected {_expected(schema)}")
    if problems:
        raise ParameterError("Parameters: " + "; ".join(problems) + ".")
    return values


def parse_strings(properties: Properties, strings: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that came as strings, as the types that the schema wants.

    A string that is no such value stays a string, for :func:`check_parameters` to name.
    """
    return {
        name: _parse(value, str(properties.get(name, {}).get("type", "string")))
        for name, value in strings.items()
    }


def _parse(value: Any, kind: str) -> Any:
    if not isinstance(value, str) or kind == "string":
        return value
    try:
        parsed = json.loads(value.lower() if kind == "boolean" else value)
    except (ValueError, RecursionError):
        return value
    return parsed if isinstance(parsed, _TYPES[kind]) else value


def _unknown(name: str, properties: Properties) -> str:
    near = difflib.get_close_matches(name, properties, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(properties) or 'none'}"
    return f"{name} is not known ({hint})"


def _problem(value: Any, schema: Mapping[str, Any]) -> str:
    """What is wrong with the value, or the empty string."""
    kind = schema["type"]
    right_type = isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
    if kind == "number":
        right_type = is_finite(value)
    enum = schema.get("enum")
    if (
        not right_type
        or (enum is not None and value not in enum)
        or not all(holds(value, schema[key]) for key, (_, holds) in _BOUNDS.items() if key in schema)
    ):
        return f"is {value!r} ({type(value).__name__}); expected {_expected(schema)}"
    return ""


def _expected(schema: Mapping[str, Any]) -> str:
    words = [str(schema["type"])]
    words += [f"{word} {schema[key]}" for key, (word, _) in _BOUNDS.items() if key in schema]
    if "enum" in schema:
        words.append(f"one of {', '.join(map(repr, schema['enum']))}")
    return ", ".join(words)
