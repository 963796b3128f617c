"""Our values as MLflow wants them: names of metrics, texts of parameters and tags, types of columns."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from airflow_mlops.contract.protocol.storable import storable_text
from airflow_mlops.primitives.texts.documents import json_text

Value = TypeVar("Value")

#: Characters of a tag, and of a parameter's value, that MLflow takes on every back end.
TAG_LENGTH, PARAMETER_LENGTH = 5000, 6000
#: Characters of a name that MLflow takes.
NAME_LENGTH = 250

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
    return safe_name(name)


def safe_name(name: str) -> str:
    """A name of a metric or a parameter as MLflow takes it: anything but letters, digits and ``_-. :/`` becomes ``_``."""
    parts = [re.sub(r"[^\w.\- :]", "_", part) for part in name.split("/")]
    name = "/".join("_" if part in ("", ".", "..") else part for part in parts)[:NAME_LENGTH]
    if name.endswith("/"):
        name = f"{name[:-1]}_"
    # MLflow takes it for a way out of its folder.
    return f"_{name[1:]}" if name.startswith("..") else name


class MetricNames:
    """The names of one run's metrics in MLflow: of different ones that would be called alike, the later get a suffix."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}

    def of(self, entry: Mapping[str, Any]) -> str:
        """Name of a metric, as :func:`metric_name` makes it, and its own."""
        name = metric_name(entry)
        own = json_text([str(entry.get(key) or "") for key in ("name", "split", "slice")])
        while self._owners.setdefault(name, own) != own:
            name = _apart(name, own)
        return name


def to_parameters(parameters: Mapping[str, Any]) -> list[dict[str, str]]:
    """Parameters as MLflow's REST API takes them: with names that it allows, and texts that every back end can keep.

    Of names that would become one, the one that needs no change keeps it, and the others get a suffix.
    """
    safe = {name: safe_name(name) for name in sorted(parameters)}
    alike = Counter(safe.values())
    owners = {name: name for name in safe if safe[name] == name}
    for name, plain in safe.items():
        own = plain if alike[plain] == 1 else _apart(plain, name)
        while name not in owners and owners.setdefault(own, name) != name:
            own = _apart(own, name)
    named = {name: key for key, name in owners.items()}
    return [{"key": named[name], "value": _kept(to_text(parameters[name]))} for name in safe]


def _apart(name: str, own: str) -> str:
    mark = hashlib.sha256(f"{name} {own}".encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{name[: NAME_LENGTH - 9]}-{mark}"


def _kept(text: str) -> str:
    """A text without what databases refuse: lone surrogates, zero bytes, and more characters than MLflow keeps."""
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return text if len(text) <= PARAMETER_LENGTH else f"{text[: PARAMETER_LENGTH - 1]}…"


def to_metric(name: str, entry: Mapping[str, Any], start: int) -> dict[str, Any]:
    """An entry of ``metrics.json`` as MLflow's REST API takes it.

    :param name: as :class:`MetricNames` gives it.
    :param start: milliseconds, for an entry without ``timestamp``.
    """
    return {
        "key": name,
        "value": float(entry["value"]),
        "timestamp": int(entry.get("timestamp") or start),
        "step": int(entry.get("step") or 0),
    }


def to_text(value: Any) -> str:
    """A parameter as text: itself, or JSON."""
    if isinstance(value, str):
        return storable_text(value, len(value) * 6)
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
