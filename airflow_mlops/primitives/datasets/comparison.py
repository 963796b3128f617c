"""How two dataset versions differ: columns, rows, splits, distributions, and what they were made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import DataError
from airflow_mlops.primitives.sql.words import identifier, literal, parquet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.datasets.manifest import Column, Manifest

__all__ = ["SHOWN", "Side", "compare_manifests", "compare_pins", "compare_rows", "json_value", "rows_of"]

SHOWN = 5
"""How many rows stand for all added, removed or changed ones."""

_PLAIN = ("int", "uint", "float", "double", "halffloat", "bool", "string")


@dataclass(frozen=True)
class Side:
    """A version and its files.

    :param manifest: the version.
    :param files: local Parquet file of each chunk, by digest.
    """

    manifest: Manifest
    files: Mapping[str, Path]


def compare_manifests(old: Manifest, new: Manifest) -> dict[str, Any]:
    """What two versions say about themselves, as far as it differs; no data is read.

    :return: ``columns``, ``splits`` (rows before and after), ``pins``, and under ``rules`` pairs of what was
        asked for: ``window``, ``as_of``, ``examples``, ``features``, ``split``, ``assumptions``, ``purpose``.
    """
    one, other = _rules(old), _rules(new)
    names = [*old.splits, *(name for name in new.splits if name not in old.splits)]
    return {
        "same": old.id == new.id,
        "columns": _columns(old.columns, new.columns),
        "splits": {name: [old.splits.get(name, 0), new.splits.get(name, 0)] for name in names},
        "shared_chunks": len({c.digest for c in old.chunks} & {c.digest for c in new.chunks}),
        "pins": compare_pins(old.sources, new.sources),
        "rules": {key: [one[key], other[key]] for key in one if one[key] != other[key]},
    }


def compare_pins(
    old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Sources that were added, removed, or are no longer the same.

    :return: ``added`` and ``removed`` pins, and ``changed``: ``of``, ``pattern``, ``file`` and both pins.
    """
    before, after = ({_name_of(pin): dict(pin) for pin in pins} for pins in (old, new))
    return {
        "added": [after[name] for name in after if name not in before],
        "removed": [before[name] for name in before if name not in after],
        "changed": [
            {
                "of": name[0],
                "pattern": name[1],
                "file": name[2],
                "before": before[name],
                "after": after[name],
            }
            for name in before
            if name in after and before[name] != after[name]
        ],
    }


def compare_rows(connection: DuckDBPyConnection, old: Side, new: Side) -> dict[str, Any]:
    """Rows that were added, removed, changed or moved to another split, told apart by keys and time.

    Chunks that both versions share are not read. What does not fit into the connection's memory is spilled.

    :return: ``added``, ``removed``, ``changed`` and ``moved``, each with ``rows`` and up to five ``examples``;
        ``changed`` also has ``columns``: how many rows changed in each.
    :raises DataError: the versions have other keys.
    """
    keys = _keys(old.manifest, new.manifest)
    shared = {(c.digest, c.split) for c in old.manifest.chunks} & {
        (c.digest, c.split) for c in new.manifest.chunks
    }
    kept = {column.name for column in new.manifest.columns}
    names = [column.name for column in old.manifest.columns if column.name in kept]
    values = [name for name in names if name not in keys]
    types = ({c.name: c.type for c in side.manifest.columns} for side in (old, new))
    before, after = types
    columns = {name: before[name] == after[name] for name in values}
    for table, side in (("_old", old), ("_new", new)):
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {table} AS {rows_of(side, shared)}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _changes AS {_changes(keys, columns)}")
    found = {
        kind: _some(connection, kind, condition, keys, before)
        for kind, condition in (
            ("added", "_before IS NULL"),
            ("removed", "_after IS NULL"),
            ("moved", "_before <> _after"),
            ("changed", "len(_columns) > 0"),
        )
    }
    counted = connection.execute(
        "SELECT name, count(*) FROM (SELECT unnest(_columns) AS name FROM _changes) GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    found["changed"]["columns"] = {str(name): int(rows) for name, rows in counted}
    for example in found["changed"]["examples"]:
        example["values"] = _values(connection, example, before, after)
    return found


def _rules(manifest: Manifest) -> dict[str, Any]:
    split = {key: value for key, value in manifest.split.items() if key not in ("bounds", "dropped")}
    features = dict(manifest.features or {})
    stated = [
        {
            key: value
            for key, value in rule.items()
            if key in ("rule", "column", "expected", "severity", "name")
        }
        for rule in manifest.assumptions
    ]
    return {
        "application": manifest.application,
        "purpose": manifest.purpose,
        "window": list(manifest.window),
        "as_of": manifest.as_of,
        "examples": dict(manifest.examples),
        "features": features or None,
        "split": split,
        "assumptions": stated,
    }


def _columns(old: Sequence[Column], new: Sequence[Column]) -> dict[str, Any]:
    before, after = ({column.name: column for column in columns} for columns in (old, new))
    changed = []
    for name, column in before.items():
        if name in after and after[name] != column:
            pairs = {
                part: [getattr(column, part), getattr(after[name], part)]
                for part in ("type", "role", "reference")
            }
            changed.append(
                {"column": name, **{part: pair for part, pair in pairs.items() if pair[0] != pair[1]}}
            )
    return {
        "added": [_described(after[name]) for name in after if name not in before],
        "removed": [_described(before[name]) for name in before if name not in after],
        "changed": changed,
        "moved": [name for name in before if name in after] != [name for name in after if name in before],
    }


def _described(column: Column) -> dict[str, Any]:
    return {"column": column.name, "type": column.type, "role": column.role, "reference": column.reference}


def _name_of(pin: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(pin.get("of", "")), str(pin.get("pattern", "")), str(pin.get("file", ""))


def _keys(old: Manifest, new: Manifest) -> tuple[str, ...]:
    one, other = (manifest.names("key", "timestamp") for manifest in (old, new))
    if set(one) != set(other):
        raise DataError(
            f"the rows of the two versions cannot be told apart by the same keys: {', '.join(one)} in the first, "
            f"{', '.join(other)} in the second"
        )
    return one


def rows_of(side: Side, without: Collection[tuple[str, str]] = ()) -> str:
    """A query of a version's rows with the name of their split, ``__split``.

    :param without: chunks (digest and split) to leave out.
    """
    parts = []
    for split in side.manifest.splits:
        chunks = [c for c in side.manifest.chunks if c.split == split and (c.digest, split) not in without]
        files = tuple(str(side.files[chunk.digest]) for chunk in chunks)
        if files:
            parts.append(f"SELECT *, {literal(split)} AS __split FROM {parquet(files)}")
    if not parts:
        first = str(side.files[side.manifest.chunks[0].digest])
        parts.append(f"SELECT *, NULL::VARCHAR AS __split FROM {parquet((first,))} LIMIT 0")
    return " UNION ALL ".join(parts)


def _changes(keys: Sequence[str], columns: Mapping[str, bool]) -> str:
    names = [f"coalesce(a.{identifier(key)}, b.{identifier(key)}) AS {identifier(key)}" for key in keys]
    on = " AND ".join(f"a.{identifier(key)} IS NOT DISTINCT FROM b.{identifier(key)}" for key in keys)
    changed = [
        f"CASE WHEN {_text('a', name, same)} IS DISTINCT FROM {_text('b', name, same)} THEN {literal(name)} END"
        for name, same in columns.items()
    ]
    both = "a.__split IS NOT NULL AND b.__split IS NOT NULL"
    listed = f"CASE WHEN {both} THEN list_filter([{', '.join(changed)}]::VARCHAR[], lambda x: x IS NOT NULL) ELSE [] END"
    return (
        f"SELECT * FROM (SELECT {', '.join(names)}, a.__split AS _before, b.__split AS _after, {listed} AS _columns "
        f"FROM _old a FULL JOIN _new b ON {on}) WHERE _before IS DISTINCT FROM _after OR len(_columns) > 0"
    )


def _text(table: str, name: str, same: bool) -> str:
    """A column for a comparison: as text if its type changed."""
    return f"{table}.{identifier(name)}" + ("" if same else "::VARCHAR")


def _shown(name: str, kind: str) -> str:
    """A column as Python can take it: times come as text, which needs no time zones of Python's."""
    return identifier(name) + ("" if kind.startswith(_PLAIN) else "::VARCHAR")


def _some(
    connection: DuckDBPyConnection, kind: str, condition: str, keys: Sequence[str], types: Mapping[str, str]
) -> dict[str, Any]:
    found = connection.execute(f"SELECT count(*) FROM _changes WHERE {condition}").fetchone()
    names = ", ".join(identifier(key) for key in keys)
    shown = ", ".join(_shown(key, types[key]) for key in keys)
    rows = connection.execute(
        f"SELECT {shown}, _before, _after, _columns FROM _changes WHERE {condition} ORDER BY {names} LIMIT {SHOWN}"
    ).fetchall()
    examples: list[dict[str, Any]] = []
    for row in rows:
        example: dict[str, Any] = {
            "keys": dict(zip(keys, (json_value(value) for value in row), strict=False))
        }
        if kind == "moved":
            example["split"] = [row[-3], row[-2]]
        if kind == "changed":
            example["columns"] = row[-1]
        examples.append(example)
    return {"rows": int(found[0]) if found else 0, "examples": examples}


def _values(
    connection: DuckDBPyConnection, example: dict[str, Any], *types: Mapping[str, str]
) -> dict[str, list[Any]]:
    """What the changed columns of one row were, and are."""
    names: list[str] = example.pop("columns")
    # Compared as text, because that is how the keys came out.
    where = " AND ".join(
        f"{identifier(key)}::VARCHAR IS NOT DISTINCT FROM {literal(value)}::VARCHAR"
        for key, value in example["keys"].items()
    )
    pair = [
        connection.execute(
            f"SELECT {', '.join(_shown(name, kinds[name]) for name in names)} FROM {table} WHERE {where} LIMIT 1"
        ).fetchone()
        or (None,) * len(names)
        for table, kinds in zip(("_old", "_new"), types, strict=True)
    ]
    return {name: [json_value(a), json_value(b)] for name, a, b in zip(names, *pair, strict=True)}


def json_value(value: Any) -> Any:
    """A value of a row for people and JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
