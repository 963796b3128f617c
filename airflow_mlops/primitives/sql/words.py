"""Words of DuckDB's SQL, for every primitive that asks it something."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_mlops.exceptions import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["batches", "file_name", "files_list", "identifier", "literal", "one_query", "parquet"]


_AT_ONCE = 50
_T = TypeVar("_T")


def batches(items: Sequence[_T], size: int = _AT_ONCE) -> Iterator[Sequence[_T]]:
    """Columns or rules by a few: the time to plan a query grows with the square of its expressions."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def identifier(name: str) -> str:
    """A quoted name."""
    return '"' + _text(name).replace('"', '""') + '"'


def literal(value: Any) -> str:
    """A JSON value, a time or a decimal as a literal."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, (int, Decimal)):
        return str(value)
    if isinstance(value, float):
        return f"'{value!r}'::DOUBLE"
    text = value.isoformat() if isinstance(value, (datetime, date)) else _text(str(value))
    return "'" + text.replace("'", "''") + "'"


def parquet(paths: Sequence[str], **options: bool | str) -> str:
    """A call of ``read_parquet`` over files, which has their own columns and none of their folders' names.

    :param paths: the files, at least one; see :func:`files_list`.
    :param options: further ones of ``read_parquet``.
    """
    given = {"hive_partitioning": False, **options}
    return f"read_parquet({', '.join([files_list(paths), *(f'{k}={literal(v)}' for k, v in given.items())])})"


#: Functions by which a query looks into the session that runs it, or changes it, or runs what stands in a text.
_SESSION = frozenset(
    [
        "checkpoint",
        "disable_logging",
        "disable_profiling",
        "duckdb_logs",
        "duckdb_logs_parsed",
        "duckdb_secrets",
        "duckdb_settings",
        "enable_logging",
        "enable_profiling",
        "force_checkpoint",
        "getenv",
        "json_execute_serialized_sql",
        "query",
        "truncate_duckdb_logs",
        "which_secret",
        "write_log",
    ]
)
_PROSE = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_CALL = re.compile(r'"?(\w+)"?\s*\(')


def files_list(paths: Sequence[str]) -> str:
    """Files as an argument of a reader, whatever their names are: ``[``, ``*`` and ``?`` mean themselves."""
    return f"[{', '.join(map(file_name, paths))}]"


def file_name(path: str) -> str:
    """One file as a literal in which ``[``, ``*`` and ``?`` mean themselves."""
    return literal(re.sub(r"([\[*?])", r"[\1]", path))


def one_query(sql: str, where: str) -> str:
    """A user's query in brackets, to stand behind FROM: one SELECT, and nothing that could close the bracket.

    :param sql: it may end in semicolons or a comment.
    :param where: who says it, for the message.
    :raises SpecError: it is several statements, or one that changes something.
    :raises duckdb.ParserException: it is no SQL.
    """
    import duckdb

    text = _text(sql).lstrip().rstrip("; \t\r\n")
    statements = duckdb.extract_statements(text)
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        got = ", ".join(kinds) or "nothing"
        raise SpecError(f"{where}: expected one SELECT statement, got {got}. Cure: keep the query alone")
    if called := sorted(_functions_of(text) & _SESSION):
        raise SpecError(
            f"{where}: calls {', '.join(f'{name}()' for name in called)}, which is about the session and not about data. "
            "Cure: leave it out; what a query needs of the outside comes as a column, or as a parameter of the model code"
        )
    return f"({text}\n)"


def _functions_of(query: str) -> set[str]:
    """Functions that a query calls, in lower case."""
    import json

    from airflow_mlops.database import connect

    with connect(files=()) as connection:
        found = connection.execute(f"SELECT json_serialize_sql({literal(query)})").fetchone()
    tree = json.loads(found[0]) if found else {"error": True}
    if tree.get("error"):  # as of PIVOT, which DuckDB cannot say as a tree
        return {name.lower() for name in _CALL.findall(_PROSE.sub(" ", query))}
    names, left = set(), [tree]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            names.add(str(node.get("function_name", "")).lower())
        left += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return names


def _text(text: str) -> str:
    # DuckDB takes a zero byte for the end of the statement, and would forget what comes behind it.
    if "\0" in text:
        raise SpecError(f"{text[:100]!r} has a zero byte, which SQL cannot say: remove it")
    return text
