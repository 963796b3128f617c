"""The JSON schema of the YAML, for editors, and what :mod:`.reference` prints of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from airflow_mlops.spec.application import ApplicationSpec
from airflow_mlops.spec.features.pipeline import FeaturesSpec
from airflow_mlops.spec.values import Section, format_duration, format_size

if TYPE_CHECKING:
    from pydantic_core import core_schema


class AsTyped(GenerateJsonSchema):
    """Defaults as an author would type them: ``365d`` and ``4g``, not ``P1Y`` and ``4294967296``."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Add the default to the schema of its value."""
        found = super().default_schema(schema)
        default = schema.get("default")
        if isinstance(default, timedelta):
            found["default"] = format_duration(default)
        elif isinstance(default, int) and found.get("type") == "string":
            found["default"] = format_size(default)
        return found


Kind = Literal["application", "features"]

_MODELS: dict[Kind, type[Section]] = {"application": ApplicationSpec, "features": FeaturesSpec}
_TITLES = {"application": "airflow-mlops application", "features": "airflow-mlops feature pipeline"}


def full_schema(kind: Kind = "application") -> dict[str, Any]:
    """JSON schema of a file with everything that its defaults may supply: required keys are required."""
    return _MODELS[kind].model_json_schema(mode="validation", schema_generator=AsTyped)


def json_schema(kind: Kind = "application") -> dict[str, Any]:
    """JSON schema (draft 2020-12) of an application's or a feature pipeline's YAML, for editors.

    It describes one file as it is typed. Keys that a ``defaults.yaml`` may supply are not required by it.
    """
    schema = full_schema(kind)
    items = _list_items(schema, schema["$defs"])
    for name, section in {"": schema, **schema["$defs"]}.items():
        if name not in items:
            section.pop("required", None)
    schema["required"] = [kind]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": _TITLES[kind]}


def _list_items(schema: dict[str, Any], sections: dict[str, Any]) -> set[str]:
    """Names of the definitions that items of lists are made of: these are never merged with defaults."""
    found: set[str] = set()
    todo = [value["items"] for value in _mappings(schema) if "items" in value]
    while todo:
        for value in _mappings(todo.pop()):
            name = str(value.get("$ref", "")).rsplit("/", 1)[-1]
            if name and name not in found:
                found.add(name)
                todo.append(sections[name])
    return found


def _mappings(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
    for value in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _mappings(value)
