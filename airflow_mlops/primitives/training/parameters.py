"""Holding parameters against what the model code says it takes."""

from __future__ import annotations

import copy
import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import ContractError, ParameterError

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

#: Problems that one message lists.
PROBLEMS_LIMIT = 10


def validate_parameters(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters and fill in the defaults. Nothing is converted: ``"7"`` and ``7.0`` are no integers.

    :param schema: JSON Schema (2020-12) of an object, as ``describe`` prints it under ``parameters``. Unknown
        parameters are refused unless it says ``additionalProperties`` itself.
    :param given: parameters by name.
    :return: the parameters with defaults, in the order of the schema.
    :raises ParameterError: naming every parameter that is unknown, missing, or of a wrong type or range.
    :raises ContractError: the schema itself is broken.
    """
    rules = {"type": "object", "additionalProperties": False, **schema}
    validator = _validator(rules)
    filled = _with_defaults(rules, given)
    problems = [problem for error in _errors(validator, filled) for problem in _problems(error)]
    problems += _not_finite(filled)
    if not problems:
        return filled
    shown = "\n".join(f"  - {problem}" for problem in problems[:PROBLEMS_LIMIT])
    more = f"\n  and {len(problems) - PROBLEMS_LIMIT} more" if len(problems) > PROBLEMS_LIMIT else ""
    known = ", ".join(sorted(rules.get("properties") or {})) or "none"
    raise ParameterError(
        f"The model code does not take these parameters:\n{shown}{more}\n"
        f"It knows: {known}. Cure: correct training.parameters in the YAML, or the trigger form."
    )


def taker(rule: Any) -> Callable[[Any], bool]:
    """What says whether the schema of one parameter takes a value; with a reference that leads nowhere, any.

    :raises ContractError: the schema itself is broken.
    """
    from referencing.exceptions import Unresolvable

    validator = _validator(rule)

    def takes(value: Any) -> bool:
        try:
            return validator.is_valid(value)
        except Unresolvable:
            return True

    return takes


def _validator(schema: Any) -> Validator:
    from jsonschema import Draft202012Validator, SchemaError, validators
    from referencing import Registry

    types = Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    strict = validators.extend(Draft202012Validator, {"multipleOf": _is_multiple}, type_checker=types)  # type: ignore[no-untyped-call]
    try:
        strict.check_schema(schema)
    except SchemaError as error:
        path = "/".join(str(part) for part in error.absolute_path) or "its root"
        raise ContractError(
            f"describe gives a broken JSON Schema for the parameters, at {path}: {error.message}. "
            "Cure: correct the model code's description."
        ) from error
    # An explicit registry keeps references from being fetched from the network.
    validator: Validator = strict(schema, registry=Registry())
    return validator


def _is_multiple(_: Validator, multiple: Any, value: Any, __: Any) -> Iterator[ValidationError]:
    """In decimals, as people write them: 0.3 is a multiple of 0.1, which division of floats denies."""
    from jsonschema import ValidationError

    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and abs(value) < math.inf and Fraction(str(value)) % Fraction(str(multiple)):
        yield ValidationError(f"{value!r} is not a multiple of {multiple}")


def _errors(validator: Validator, value: Any) -> list[ValidationError]:
    from referencing.exceptions import Unresolvable

    try:
        return sorted(
            validator.iter_errors(value), key=lambda error: [str(part) for part in error.absolute_path]
        )
    except Unresolvable as error:
        raise ContractError(
            f"describe gives a JSON Schema with a reference that leads nowhere: {error}. "
            "Cure: keep all definitions inside the schema; nothing is fetched."
        ) from error


def _with_defaults(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for name, rule in (schema.get("properties") or {}).items():
        nested = isinstance(rule, Mapping) and "properties" in rule
        if name in given:
            value = given[name]
            filled[name] = _with_defaults(rule, value) if nested and isinstance(value, Mapping) else value
        elif isinstance(rule, Mapping) and "default" in rule:
            filled[name] = copy.deepcopy(rule["default"])
    return {**filled, **{name: value for name, value in given.items() if name not in filled}}


def _problems(error: ValidationError) -> Iterable[str]:
    where = ".".join(str(part) for part in error.absolute_path)
    value: Any = error.instance
    if error.validator == "additionalProperties":
        known, patterns = _known_names(error.schema)
        for name in value:
            if name not in known and not any(re.search(pattern, name) for pattern in patterns):
                yield _unknown(f"{where}.{name}" if where else str(name), str(name), known)
    elif error.validator == "required":
        required: Any = error.validator_value
        missing = [name for name in required if name not in value]
        for name in missing if _is_first(error, missing) else []:
            yield f"{where}.{name} is missing" if where else f"{name} is missing"
    else:
        yield f"{where or 'the parameters'}: expected {_expected(error)}, got {_got(value)}"


def _not_finite(value: Any, where: str = "") -> Iterator[str]:
    """NaN lies in every range, and neither it nor infinity is a number in JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: expected a finite number, got {value}"
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _not_finite(part, f"{where}.{name}" if where else str(name))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _not_finite(part, f"{where}.{number}")


def _known_names(schema: Any) -> tuple[list[str], list[str]]:
    return list(schema.get("properties") or {}), list(schema.get("patternProperties") or {})


def _is_first(error: ValidationError, missing: list[str]) -> bool:
    # jsonschema gives one error for each missing name; all of them are reported with the first.
    return bool(missing) and error.message.startswith(repr(missing[0]))


def _unknown(path: str, name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"{path} is not known" + (f"; did you mean {nearest[0]}?" if nearest else "")


_WORDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "enum": "one of {}",
    "const": "{}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "text that matches {}",
}


def _expected(error: ValidationError) -> str:
    if error.validator == "type":
        types = error.validator_value
        return " or ".join(types) if isinstance(types, list) else str(types)
    words = _WORDS.get(str(error.validator))
    return words.format(error.validator_value) if words else f"{error.validator} {error.validator_value}"


def _got(value: Any) -> str:
    text = repr(value)
    kind = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    name = kind.get(type(value), type(value).__name__)
    return f"{text if len(text) <= 100 else text[:99] + '…'} ({name})"
