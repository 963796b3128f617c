"""The JSON schema of the YAML, for editors, and what :mod:`.reference` prints of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from airflow_mlops.spec.application import ApplicationSpec
from airflow_mlops.spec.values import format_duration, format_size

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


def full_schema() -> dict[str, Any]:
    """JSON schema of an application with everything that its defaults may supply: required keys are required."""
    return ApplicationSpec.model_json_schema(mode="validation", schema_generator=AsTyped)


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of an application's YAML, for editors.

    It describes one file as it is typed. Keys that a ``defaults.yaml`` may supply are not required by it.
    """
    schema = full_schema()
    items = _list_items(schema)
    for name, section in {"": schema, **schema["$defs"]}.items():
        if name not in items:
            section.pop("required", None)
    schema["required"] = ["application"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "airflow-mlops application",
    }


def _list_items(schema: Any) -> set[str]:
    """Names of the definitions that stand for items of lists: these are never merged with defaults."""
    found: set[str] = set()
    for value in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        found |= _list_items(value)
    if isinstance(schema, dict) and isinstance(schema.get("items"), dict) and "$ref" in schema["items"]:
        found.add(schema["items"]["$ref"].rsplit("/", 1)[-1])
    return found
