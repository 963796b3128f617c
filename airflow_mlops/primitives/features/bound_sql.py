"""A user's query and the ends of the window in it, which travel as parameters and never as text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from airflow_mlops.exceptions import SpecError

__all__ = ["BoundQuery", "names_in", "newest_query", "window_query", "with_parameters", "with_settings"]

Style = Literal["%s", "?"]

# Whatever may hold a colon without naming a parameter comes first.
_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | --[^\n]* | /\*.*?\*/ | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
    | :: | (?<![:\w]):(?P<name>after|until)\b""",
    re.DOTALL | re.VERBOSE,
)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class BoundQuery:
    """A query and the values of its parameters, in their order."""

    sql: str
    values: tuple[Any, ...]


def names_in(sql: str) -> set[str]:
    """Which of ``:after`` and ``:until`` the query places itself."""
    return {found["name"] for found in _TOKEN.finditer(sql) if found["name"]}


def window_query(sql: str, column: str | None, after: bool, until: bool) -> str:
    """The query with the ends of the window in it, as ``:after`` and ``:until``.

    A query that places one of them itself is left alone.

    :param column: the watermark column; ``None`` to read everything.
    :raises SpecError: the query places an end, and there is no watermark.
    """
    body = _statement(sql)
    if placed := names_in(body):
        if column is None:
            names = " and ".join(f":{name}" for name in sorted(placed))
            raise SpecError(
                f"extract: sql has {names}, and there is no watermark. Cure: name the column that tells how "
                "far the source was read, as watermark: updated_at"
            )
        return body
    ends = ((after, ">=", "after"), (until, "<=", "until"))
    bounds = [f"q.{_name(column)} {sign} :{name}" for given, sign, name in ends if given] if column else []
    return f"SELECT * FROM (\n{body}\n) q WHERE {' AND '.join(bounds)}" if bounds else body


def newest_query(sql: str, column: str) -> str:
    """The greatest value of the watermark column in what the query gives."""
    return f"SELECT max(q.{_name(column)}) FROM (\n{_statement(sql)}\n) q"


def with_parameters(sql: str, values: Mapping[str, Any], style: Style) -> BoundQuery:
    """The query as a driver takes it.

    :param values: ``after`` and ``until``.
    :param style: the driver's placeholder; with ``%s`` every other per cent sign is doubled.
    """
    order: list[Any] = []

    def replaced(found: re.Match[str]) -> str:
        if not found["name"]:
            return found[0]
        order.append(values[found["name"]])
        return "\0"

    text = _TOKEN.sub(replaced, sql)
    if style == "%s" and order:
        text = text.replace("%", "%%")
    return BoundQuery(text.replace("\0", style), tuple(order))


def with_settings(sql: str, casts: Mapping[str, str]) -> str:
    """The query for PostgreSQL, with each end taken from a setting of the session.

    PostgreSQL can hand over the rows of a query as a stream only when the query has no parameters.

    :param casts: ``after`` and ``until`` → SQL type.
    """

    def replaced(found: re.Match[str]) -> str:
        name = found["name"]
        return f"current_setting('airflow_mlops.{name}')::{casts[name]}" if name else found[0]

    return _TOKEN.sub(replaced, sql)


def _statement(sql: str) -> str:
    if "\0" in sql:
        raise SpecError("extract: sql has a zero byte: remove it")
    body = sql.strip().rstrip("; \t\r\n")
    if not body:
        raise SpecError("extract: sql is empty. Cure: write the query")
    return body


def _name(column: str) -> str:
    # Unquoted, so that each database folds it as it folds the names of its own columns.
    return column if _PLAIN.fullmatch(column) else '"' + column.replace('"', '""') + '"'
