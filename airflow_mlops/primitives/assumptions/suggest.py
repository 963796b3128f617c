"""Rules that a dataset keeps today, with some room for tomorrow: a first draft for its author to judge."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.assumptions.check import check_table
from airflow_mlops.primitives.assumptions.rules import CheckContext, parse_assumptions
from airflow_mlops.primitives.sql.present import is_float, present_sql
from airflow_mlops.primitives.sql.words import batches, identifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

__all__ = ["suggest_rules"]

FEW_VALUES = 20
"""A column with no more different values than this, each several times, has a fixed set of them."""
ROWS_PER_VALUE = 20
MARGIN = 0.1
"""Room beyond the extremes, as a share of the distance between them."""
TARGET_LEAKAGE = 0.95
SHAPED = 10_000
"""Texts that are looked at for a common shape, at most; all are then held against it."""
_SHAPES = (("[A-Z]+", "A"), ("[a-z]+", "a"), ("[0-9]+", "0"))
_SHAPE_PARTS = {"A": "[A-Z]+", "a": "[a-z]+", "0": "[0-9]+"}


@dataclass(frozen=True)
class _Seen:
    """What was seen of a column.

    :param missing: NULL and NaN.
    :param low: least value; of a text, its length.
    :param high: likewise.
    :param about: roughly how many different values there are.
    :param shape: the one shape that all texts have, if it is one.
    """

    name: str
    type: str
    rows: int
    missing: int
    low: Any
    high: Any
    about: int
    shape: str | None = None
    values: tuple[Any, ...] | None = None


def suggest_rules(
    connection: DuckDBPyConnection,
    relation: str,
    files: Sequence[Path],
    columns: Mapping[str, str],
    *,
    order: str,
    context: CheckContext,
) -> list[dict[str, Any]]:
    """Rules as a YAML file states them; each holds for these rows, and equal rows give equal rules.

    :param connection: its time zone must be UTC.
    :param relation: what stands behind FROM.
    :param files: the Parquet files behind it.
    :param columns: Arrow type of each column; names that begin with ``__`` are passed over.
    :param order: column that gives the rows an order.
    :param context: the roles of the columns.
    """
    named = {name: type_ for name, type_ in columns.items() if not name.startswith("__")}
    seen = _look(connection, relation, order, named)
    rules = [_of_column(column, context) for column in seen] + list(_of_table(seen, context))
    checks = [(number, check) for number, rule in enumerate(rules) for check in parse_assumptions([rule])]
    found = check_table(
        connection,
        [check for _, check in checks],
        files,
        columns,
        order=order,
        shown=(),
        context=context,
        relation=relation,
    )
    kept: list[dict[str, Any]] = [{} for _ in rules]
    for (number, check), finding in zip(checks, found, strict=True):
        about = {"column": rules[number]["column"]} if "column" in rules[number] else {}
        if finding.passed:
            kept[number] |= {**about, check.check: rules[number][check.check]}
    return [_with_severity(rule) for rule in _without_weaker(kept) if rule]


def _look(
    connection: DuckDBPyConnection, relation: str, order: str, columns: Mapping[str, str]
) -> list[_Seen]:
    seen = [
        column for some in batches(list(columns.items())) for column in _measured(connection, relation, some)
    ]
    seen = _with_values(connection, relation, seen)
    rows = seen[0].rows if seen else 0
    drawn = f"{relation} WHERE {identifier(order)} % {max(1, rows // SHAPED)} = 0"
    return _with_shapes(connection, drawn, seen)


def _measured(
    connection: DuckDBPyConnection, relation: str, columns: Sequence[tuple[str, str]]
) -> Iterator[_Seen]:
    measures = [part for name, type_ in columns for part in _measures(name, type_)]
    row = connection.execute(f"SELECT count(*), {', '.join(measures)} FROM {relation}").fetchone() or ()
    for number, (name, type_) in enumerate(columns):
        missing, low, high, about = row[1 + number * 4 : 5 + number * 4]
        yield _Seen(name, type_, int(row[0]), missing, low, high, about)


def _measures(name: str, type_: str) -> Iterator[str]:
    column = identifier(name)
    text = type_ == "string"
    there = present_sql(column, type_)
    measured = f"length({column})" if text else column
    yield f"count(*) - count(*) FILTER (WHERE {there})"
    for extreme in ("min", "max"):
        yield f"{extreme}({measured}) FILTER (WHERE {there})" if text or _is_number(type_) else "NULL"
    yield f"approx_count_distinct({column})"


def _with_shapes(connection: DuckDBPyConnection, drawn: str, columns: Sequence[_Seen]) -> list[_Seen]:
    """The columns with the shape of their texts, if those that are looked at have one."""
    shapes: dict[str, str] = {}
    for some in batches([one.name for one in columns if one.type == "string" and one.values is None]):
        ends = [f"{end}({_shape_sql(name)})" for name in some for end in ("min", "max")]
        row = connection.execute(f"SELECT {', '.join(ends)} FROM {drawn}").fetchone() or ()
        first_and_last = zip(row[::2], row[1::2], strict=True)
        shapes |= {name: one for name, (one, last) in zip(some, first_and_last, strict=True) if one == last}
    return [replace(column, shape=shapes.get(column.name)) for column in columns]


def _shape_sql(name: str) -> str:
    shape = identifier(name)
    for pattern, letter in _SHAPES:
        shape = f"regexp_replace({shape}, '{pattern}', '{letter}', 'g')"
    return shape


def _with_values(connection: DuckDBPyConnection, relation: str, columns: Sequence[_Seen]) -> list[_Seen]:
    """The columns with their different values, where they are few texts: numbers are quantities more often than not."""
    listed = [one.name for one in columns if one.type == "string" and 0 < one.about <= 2 * FEW_VALUES]
    found: dict[str, tuple[Any, ...]] = {}
    for some in batches(listed):
        counts = ", ".join(f"map_entries(histogram({identifier(name)}))" for name in some)
        row = connection.execute(f"SELECT {counts} FROM {relation}").fetchone() or ()
        for name, entries in zip(some, row, strict=True):
            found[name] = tuple(sorted(entry["key"] for entry in entries or () if entry["value"] >= 2))
    return [_if_few(column, found.get(column.name, ())) for column in columns]


def _if_few(column: _Seen, values: tuple[Any, ...]) -> _Seen:
    enough = len(values) <= FEW_VALUES and column.rows - column.missing >= ROWS_PER_VALUE * len(values)
    return replace(column, values=values) if enough and values else column


def _of_column(seen: _Seen, context: CheckContext) -> dict[str, Any]:
    rule: dict[str, Any] = {"column": seen.name, "type": seen.type}
    if not seen.missing:
        rule["not_null"] = True
    elif (share := math.ceil(150 * seen.missing / seen.rows + 1) / 100) < 1:
        rule["max_null_share"] = share
    pattern, bounds = _pattern(seen.shape), _bounds(seen)
    if seen.name in context.keys:
        return rule
    if seen.values is not None:
        return {**rule, "one_of": list(seen.values)}
    if bounds is not None:
        return {**rule, "between": bounds}
    if pattern is not None:
        return {**rule, "matches": pattern}
    if seen.type == "string" and seen.high is not None:
        rule["length"] = [min(1, seen.low), 2 * seen.high]
    return rule


def _of_table(seen: Sequence[_Seen], context: CheckContext) -> Iterator[dict[str, Any]]:
    rows = seen[0].rows if seen else 0
    keys = list(context.keys)
    if keys:
        yield {"unique": keys}
        if context.timestamp:
            yield {"unique": [*keys, context.timestamp]}
    if rows >= 2:
        yield {"min_rows": _down(rows / 2)}
    yield {"rows_vs_previous": [0.5, 2.0]}
    repeated = {column.name for column in seen if column.about < 0.9 * column.rows}
    for key in keys:
        if key in repeated:
            yield {"groups_stay_together": [key]}
    if context.targets:
        yield {"max_target_leakage": TARGET_LEAKAGE}


def _without_weaker(rules: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Columns that are unique are so together with others: that need not be said."""
    unique = [set(rule["unique"]) for rule in rules if "unique" in rule]
    for rule in rules:
        if "unique" not in rule or not any(other < set(rule["unique"]) for other in unique):
            yield rule


def _with_severity(rule: dict[str, Any]) -> dict[str, Any]:
    """What is an estimate only warns."""
    return {**rule, "severity": "warn"} if "max_target_leakage" in rule else rule


def _bounds(seen: _Seen) -> list[Any] | None:
    """A range of numbers with room on both sides; what was never negative stays so."""
    if not _is_number(seen.type) or seen.low is None:
        return None
    low, high = float(seen.low), float(seen.high)
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    room = MARGIN * ((high - low) or abs(high) or 1.0)
    # Round to a tenth of the room: 0 to 24, not 0 to 23.98713.
    step = 10.0 ** (math.floor(math.log10(room)) - 1)
    step = max(1.0, step) if seen.type.startswith(("int", "uint")) else step
    down, up = math.floor((low - room) / step), math.ceil((high + room) / step)
    ends = [max(0, down) if low >= 0 else down, up]
    if step >= 1:
        return [end * int(step) for end in ends]
    return [float(f"{end * step:.12g}") for end in ends]


def _pattern(shape: str | None) -> str | None:
    """A pattern for a shape such as ``A0`` or ``AA-00``: letters and digits by kind, the rest as it is."""
    if not shape or len(shape) > 12 or not re.fullmatch(r"[Aa0 _.:/\-]+", shape) or "0" not in shape:
        return None
    return "".join(_SHAPE_PARTS.get(letter, re.escape(letter)) for letter in shape)


def _is_number(type_: str) -> bool:
    return type_.startswith(("int", "uint", "decimal")) or is_float(type_)


def _down(value: float) -> int:
    step = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return max(1, int(value // step * step))


def _round(value: float) -> float:
    return float(f"{value:.12g}")
