"""Our values as MLflow wants them: names of metrics, texts of parameters and tags, types of columns."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from airflow_mlops.primitives.documents import json_text

Value = TypeVar("Value")

#: Characters of a tag that MLflow takes on every back end.
TAG_LENGTH = 5000

#: Type in MLflow's schema → first words of the types of Arrow and DuckDB that it stands for.
_COLUMN_TYPES = {
    "boolean": "bool boolean",
    "integer": "int8 int16 int32 uint8 uint16 tinyint smallint integer utinyint usmallint",
    "long": "int64 uint32 uint64 bigint uinteger ubigint hugeint",
    "float": "float float32 halffloat",
    "double": "double float64 decimal",
    "datetime": "timestamp date date32 date64",
    "binary": "binary large_binary blob",
}


def metric_name(entry: Mapping[str, Any]) -> str:
    """Name of a metric in MLflow: ``auc``, ``test.auc``, ``slice/test.auc/origin:JFK``.

    MLflow allows letters, digits and ``_-. :/`` only; anything else becomes ``_``. A slice stands in a folder of
    its own, which MLflow's page shows as a group of charts.

    :param entry: a metric as in ``metrics.json``: ``name``, and perhaps ``split`` and ``slice``.
    """
    name = ".".join(str(part) for part in (entry.get("split"), entry["name"]) if part)
    cut = entry.get("slice")
    if cut:
        if isinstance(cut, Mapping):
            cut = ",".join(f"{key}={value}" for key, value in sorted(cut.items()))
        name = f"slice/{name.replace('/', '_')}/{str(cut).replace('=', ':').replace('/', '_')}"
    parts = [re.sub(r"[^\w.\- :]", "_", part) for part in name.split("/")]
    name = "/".join("_" if part in ("", ".", "..") else part for part in parts)[:250]
    # MLflow takes it for a way out of its folder.
    return f"_{name[1:]}" if name.startswith("..") else name


def to_metric(entry: Mapping[str, Any], start: int) -> dict[str, Any]:
    """An entry of ``metrics.json`` as MLflow's REST API takes it.

    :param start: milliseconds, for an entry without ``timestamp``.
    """
    return {
        "key": metric_name(entry),
        "value": float(entry["value"]),
        "timestamp": int(entry.get("timestamp") or start),
        "step": int(entry.get("step") or 0),
    }


def to_text(value: Any) -> str:
    """A parameter as text: itself, or JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json_text(value, sort_keys=True, default=str)


def to_tags(tags: Mapping[str, Any] | None) -> dict[str, str]:
    """Tags as text; those without a value are left out."""
    return {key: to_text(value) for key, value in (tags or {}).items() if value is not None}


def to_pairs(values: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Tags as MLflow's REST API takes them; those without a value are left out."""
    return [{"key": key, "value": value[:TAG_LENGTH]} for key, value in to_tags(values).items()]


def to_column(column: Mapping[str, str]) -> dict[str, Any]:
    """A column as MLflow's page shows it; an unknown type counts as text."""
    word = re.split(r"[^a-z0-9_]", column["type"].lower())[0]
    known = next((name for name, words in _COLUMN_TYPES.items() if word in words.split()), "string")
    return {"name": column["name"], "type": known, "required": True}


def batches(values: Sequence[Value], size: int) -> Iterator[list[Value]]:
    """Cut a sequence into lists of at most ``size``."""
    for start in range(0, len(values), size):
        yield list(values[start : start + size])
