"""Conditions and patterns that a YAML file may state: DuckDB says whether it could read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

__all__ = ["ExpressionError", "expression_columns", "pattern_problem"]

_REFUSED = {
    "SUBQUERY": "has a query in it",
    "WINDOW": "has a window function in it, but is asked of one row at a time",
    "STAR": "has a star in it",
    "PARAMETER": "has a parameter in it",
    "POSITIONAL_REFERENCE": "names a column by its number",
}
#: Functions that look outside the row although DuckDB does not call them volatile.
_OUTSIDE = frozenset({
    "ago", "current_localtime", "current_localtimestamp", "current_role", "current_setting", "current_user", "getenv",
    "getvariable", "query", "session_user", "user", "version",
})  # fmt: skip
_OUTSIDE_PREFIXES = ("pg_", "has_", "inet_")


class ExpressionError(ValueError):
    """A text is no condition on one row; the message goes on after its name."""


@lru_cache(maxsize=1000)
def expression_columns(sql: str) -> tuple[str, ...]:
    """Check that a text is one condition on one row, and say which columns it names.

    A condition may use every function of DuckDB that gives the same for the same row: no query, no aggregate,
    nothing that reads files, settings, the clock or chance.

    :param sql: such as ``arrival > departure``.
    :raises ExpressionError: it is something else.
    """
    expression = _parse(sql)
    names: dict[str, None] = {}
    for node, bound in _nodes(expression, frozenset()):
        kind = node.get("class")
        if kind in _REFUSED:
            raise ExpressionError(_REFUSED[kind])
        if kind == "FUNCTION":
            _check_function(node)
        if kind == "COLUMN_REF" and node["column_names"][0].lower() not in bound:
            names[node["column_names"][0]] = None
    if not names:
        raise ExpressionError("names no column")
    return tuple(names)


@lru_cache(maxsize=1000)
def pattern_problem(pattern: str) -> str | None:
    """Why DuckDB cannot use a regular expression (RE2); ``None`` when it can."""
    import duckdb

    from airflow_mlops.database import connect

    if "\0" in pattern:
        return "it has a zero byte"
    with connect(files=()) as connection:
        try:
            connection.execute("SELECT regexp_full_match('', ?)", [pattern])
        except duckdb.Error as error:
            return _first_line(error)
    return None


def _parse(sql: str) -> Mapping[str, Any]:
    from airflow_mlops.database import connect

    if "\0" in sql:
        raise ExpressionError("has a zero byte in it")
    with connect(files=()) as connection:
        # The line end closes a comment, which would take the bracket along.
        found = connection.execute("SELECT json_serialize_sql(?)", [f"SELECT (\n{sql}\n)"]).fetchone()
    parsed = json.loads(found[0]) if found else {}
    if parsed.get("error", True):
        said = parsed.get("error_message", "it is no SQL")
        raise ExpressionError(
            f'cannot be read: {said} (a column named as a word of SQL stands in quotes: "at")'
        )
    node = parsed["statements"][0]["node"]
    alone = len(parsed["statements"]) == 1 and node["type"] == "SELECT_NODE"
    if not alone or node["from_table"]["type"] != "EMPTY" or len(node["select_list"]) != 1:
        raise ExpressionError("is more than one expression")
    expression: Mapping[str, Any] = node["select_list"][0]
    return expression


def _nodes(node: Any, bound: frozenset[str]) -> Iterator[tuple[Mapping[str, Any], frozenset[str]]]:
    """Every part of an expression, with the names that a lambda around it binds."""
    if isinstance(node, list):
        for part in node:
            yield from _nodes(part, bound)
    elif isinstance(node, dict):
        if node.get("class") == "LAMBDA":
            bound = bound | {
                name.lower()
                for part, _ in _nodes(node.get("lhs"), bound)
                for name in part.get("column_names", ())
            }
        yield node, bound
        if node.get("class") not in _REFUSED:
            for part in node.values():
                yield from _nodes(part, bound)


def _check_function(node: Mapping[str, Any]) -> None:
    name = str(node["function_name"]).lower()
    kinds, stable = _functions().get(name, (frozenset({"scalar"}), True))
    if "aggregate" in kinds and not kinds & {"scalar", "macro"}:
        raise ExpressionError(f"uses {name}(), which is about many rows, but is asked of one row at a time")
    outside = not stable or name in _OUTSIDE or name.startswith(_OUTSIDE_PREFIXES)
    if outside or (name == "age" and len(node["children"]) == 1):
        raise ExpressionError(f"uses {name}(), which does not give the same for the same row every time")


@cache
def _functions() -> Mapping[str, tuple[frozenset[str], bool]]:
    """Name → kinds of function, and whether the same arguments always give the same."""
    from airflow_mlops.database import connect

    with connect(files=()) as connection:
        rows = connection.execute(
            "SELECT lower(function_name), list(DISTINCT function_type), "
            "bool_and(coalesce(stability, 'CONSISTENT') = 'CONSISTENT') FROM duckdb_functions() GROUP BY 1"
        ).fetchall()
    return {name: (frozenset(kinds), stable) for name, kinds, stable in rows}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].partition("Error: ")[2] or str(error)
