"""The reference of the YAML as Markdown, made of the models: what ``docs/yaml.md`` holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_mlops.spec.reading.schema import Kind, full_schema

_HEAD = """\
<!-- Made by `airflow-mlops schema --markdown`: change the descriptions in airflow_mlops/spec/, not this file. -->
# The YAML

One file is one application, or one feature pipeline: its key `application:` or `features:` says which, and gives its
name. Keys without a default are **required**; an unknown key is an error, with its line and the nearest known key.
`airflow-mlops validate FOLDER` reports every error at once.
[flight_delay.yaml](../dags/applications/flight_delay.yaml) shows every section of an application in use,
[airport_weather.yaml](../dags/features/airport_weather.yaml) a [feature pipeline](#a-feature-pipeline).

**Values.** A *duration* is a whole number and one of `s m h d w` (`90s`, `30d`); a *size* a whole number and one of
`k m g t`, powers of 1024 (`512m`, `4g`). A *schedule* is a cron expression of five fields in UTC, in quotes
(`"0 3 * * 1"`), a preset such as `"@daily"`, or `{assets: [name, ...]}`: an update of any of these Airflow assets
starts the DAG. Airflow's own parser judges a cron expression; one without a time in the next ten years is an error. Such
an asset comes into being with a DAG that names it whole, as the one that brings the data does by
`outlets=[Asset("examples_arrived")]`; from then on events of it may also be made in the UI and by the API. A schedule here
only refers to it by name, and waits. The time of a cron schedule that is over when a training DAG is switched on for the
first time is no reason to train; of the times that a pause has missed, the last one is. A *folder* may be relative to the file that names it. Every text is
taken as it is written: none is a Jinja template, so `LIKE '{%'` is what it says and `{{ ... }}` is filled in by nobody; in
`store` it is an error.

**`defaults.yaml`** (or `defaults.yml`) beside the files holds for all applications of the folder, and so does one in
each folder above, up to the first folder without one. Mappings are merged key by key; lists and values are replaced. The nearer file is the
stronger one, and the application's own the strongest. Every key but the name may stand there, those of applications
beside those of feature pipelines: each file takes the keys of its kind.
"""
_FEATURES_HEAD = """
# A feature pipeline

Each file is a DAG `<name>__features`: extract, transform, publish, apply, materialize. Applications use its views
through a feature service; [how to](howto/feature-pipelines.md) shows a whole one. A key in `<angle brackets>` is a
name of your own.
"""

#: Names of value kinds, by what the schema says of them.
_PATTERNS = {"[smhdw]$": "duration", "[kmgtKMGT]$": "size"}
_KINDS = {
    "boolean": "`true` or `false`",
    "integer": "whole number",
    "number": "number",
    "object": "mapping",
}
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
}
#: Keys whose schema does not say as much as their validator asks for.
_NAMED = {
    "store": "folder",
    "folder": "folder",
    "prepare.process.directory": "folder",
    "code.process.directory": "folder",
    "provisioning.examples.folder": "folder",
    "provisioning.assumptions[].between": "list of 2 values",
}


def markdown() -> str:
    """The whole reference: a table for each section, in the order of the models."""
    application, features = full_schema(), full_schema("features")
    return (
        _HEAD
        + "".join(_sections(application, application, "", "The whole file"))
        + _FEATURES_HEAD
        + "".join(_sections(features, features, "", "The whole file of a feature pipeline"))
    )


def keys(kind: Kind = "application") -> dict[str, str]:
    """Every key path, as ``provisioning.examples.keys``, and its description.

    ``[]`` stands for an item of a list, ``<name>`` for a key of the author's own.
    """
    schema = full_schema(kind)
    return dict(_keys(schema, schema, ""))


def _keys(schema: dict[str, Any], node: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for name, value in node["properties"].items():
        key = f"{path}.{name}" if path else name
        inner, below = _inner(schema, value)
        yield key, _meaning(value, inner)
        if inner is not None:
            yield from _keys(schema, inner, key + below)


def _sections(schema: dict[str, Any], node: dict[str, Any], path: str, title: str) -> Iterator[str]:
    yield f"\n## {title}\n\n"
    if path:
        yield f"{_plain(node['description'])}\n\n"
    yield "| key | value | default | meaning |\n|---|---|---|---|\n"
    required = node.get("required", ())
    below = []
    for name, value in node["properties"].items():
        key = f"{path}.{name}" if path else name
        inner, suffix = _inner(schema, value)
        if inner is not None:
            below.append((inner, key + suffix))
        cells = (
            f"`{name}`",
            _kind(schema, value, key),
            _default(value, required=name in required),
            _meaning(value, inner),
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    for inner, key in below:
        yield from _sections(schema, inner, key, f"`{key}`")


def _inner(schema: dict[str, Any], value: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The section that a key holds, itself, in a list or under names; schedules count as values."""
    for choice in (value, *value.get("anyOf", ())):
        found = _resolved(schema, choice) if "$ref" in choice else {}
        if "properties" in found:
            return found, ""
        below = [(choice.get("items"), "[]")]
        below += [(node, ".<name>") for node in choice.get("patternProperties", {}).values()]
        for node, suffix in below:
            inner, more = _inner(schema, node) if isinstance(node, dict) else (None, "")
            if inner is not None:
                return inner, suffix + more
    return None, ""


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return found


def _kind(schema: dict[str, Any], value: dict[str, Any], key: str) -> str:
    inner, suffix = _inner(schema, value)
    if inner is not None:
        # The anchor that GitHub gives the section's heading.
        anchor = "".join(c for c in key + suffix if c.isalnum() or c in "_-")
        noun = "section" if not suffix else "mapping" if suffix.startswith(".") else "list"
        return f"[{noun}](#{anchor})"
    return _NAMED.get(key) or _words(value)


def _words(value: dict[str, Any]) -> str:
    choices = [choice for choice in value.get("anyOf", ()) if choice.get("type") != "null"]
    if choices:
        nullable = len(choices) < len(value["anyOf"]) and "default" not in value
        optional = " or `null`" if nullable else ""
        return " or ".join(map(_words, choices)) + optional
    if "oneOf" in value:
        return "schedule"
    if "enum" in value or "const" in value:
        return " or ".join(f"`{_text(choice)}`" for choice in value.get("enum") or [value["const"]])
    kind = value.get("type")
    if kind == "array":
        item = _words(value.get("items", {}))
        return f"list of {'1 ' if value.get('maxItems') == 1 else ''}{item}"
    if kind == "string":
        pattern = value.get("pattern", "")
        return next((name for end, name in _PATTERNS.items() if pattern.endswith(end)), "text")
    bounds = [words.format(value[bound]) for bound, words in _BOUNDS.items() if bound in value]
    return ", ".join([_KINDS.get(str(kind), "value"), *bounds])


def _meaning(value: dict[str, Any], inner: dict[str, Any] | None) -> str:
    # pydantic leaves out a description that is also the section's.
    return _plain(str(value.get("description") or (inner or {}).get("description", "")))


def _default(value: dict[str, Any], *, required: bool) -> str:
    if required:
        return "**required**"
    default = value.get("default")
    if default is None or default in ("", [], {}):
        return ""
    return f"`{_text(default)}`"


def _text(value: Any) -> str:
    from airflow_mlops.contract.protocol.documents import json_text

    return value if isinstance(value, str) else json_text(value)


def _plain(description: str) -> str:
    return description.replace("``", "`")
