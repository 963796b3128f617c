"""The files that a DuckDB query names, and the query with the files in place of the names."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.sql.words import file_name, files_list, identifier, literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from duckdb import DuckDBPyConnection

__all__ = [
    "READERS",
    "SUFFIXES",
    "Call",
    "by_name",
    "calls_of",
    "columns_named",
    "first_file_decides",
    "form_of",
    "nodes_of",
    "patterns_of",
    "serialize",
    "with_files",
]

#: Table functions whose files are found and pinned, and what they read.
READERS = {
    "read_parquet": "parquet",
    "parquet_scan": "parquet",
    "read_csv": "csv",
    "read_csv_auto": "csv",
    "read_json": "json",
    "read_json_auto": "json",
    "read_json_objects": "objects",
    "read_json_objects_auto": "objects",
    "read_ndjson": "json",
    "read_ndjson_auto": "json",
    "read_ndjson_objects": "objects",
}
#: What a file is by its name, in front of .gz or .zst.
SUFFIXES = {
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
_TEXT = re.compile(rb"'(?:[^']|'')*'")
_NAME = re.compile(rb'"(?:[^"]|"")*"|' + _TEXT.pattern)
_TOKEN = re.compile(
    rb"""[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|"""
    rb"""(?P<dollar>\$\w*\$).*?(?P=dollar)|.""",
    re.DOTALL,
)
_OPTION = re.compile(rb"\s*\"?(\w+)\"?\s*(?::=|=>|=)\s*(.*)", re.DOTALL)


class _Place(NamedTuple):
    """A file name in a query: ``kind`` is ``one`` (an argument), ``item`` (of a list) or ``table``."""

    pattern: str
    kind: str
    at: int
    alias: str = ""


class Call(NamedTuple):
    """A reading of files in a query.

    :param form: ``parquet``, ``csv``, ``json``, or ``objects`` for the texts of JSON.
    :param patterns: the files as the query names them; empty where their names come from an expression.
    :param options: what its author gave beside them: name → SQL.
    :param types: the types of partitions that its author gave: column → SQL type.
    """

    form: str
    patterns: tuple[str, ...]
    options: Mapping[str, str]
    types: Mapping[str, str]


class _Found(NamedTuple):
    """A call from ``start`` to ``end``, its first argument at ``first``; or the name of a file, ``table``."""

    call: Call
    start: int
    end: int
    places: tuple[_Place, ...]
    first: tuple[int, int] = (0, 0)
    table: _Place | None = None


def serialize(connection: DuckDBPyConnection, sql: str) -> str:
    """The syntax tree of a query as JSON.

    :raises duckdb.Error: it is no SQL.
    """
    found = connection.execute(f"SELECT json_serialize_sql({literal(sql)})").fetchone()
    return str(found[0]) if found else "{}"


def patterns_of(serialized: str) -> tuple[str, ...]:
    """Paths and patterns that a query names, each once.

    Names that are made up while the query runs are not among them.

    :param serialized: the query by :func:`serialize`.
    """
    return tuple(dict.fromkeys(place.pattern for place in _places(json.loads(serialized))))


def first_file_decides(serialized: str) -> tuple[str, ...]:
    """Patterns of a query for which it takes "all columns", and means those of the first file.

    A column that the first file lacks would be left out of all others without a word. A reading with
    ``union_by_name`` has the columns of all files.

    :param serialized: the query by :func:`serialize`.
    """
    query = json.loads(serialized)
    if not any(node.get("class") == "STAR" for node in nodes_of(query)):
        return ()
    named = by_name(serialized)
    return tuple(pattern for pattern in patterns_of(serialized) if pattern not in named)


def by_name(serialized: str) -> tuple[str, ...]:
    """Patterns of a query that it reads with ``union_by_name``."""
    return tuple(
        place.pattern
        for node in nodes_of(json.loads(serialized))
        if node.get("type") == "TABLE_FUNCTION" and _option(node["function"], "union_by_name")
        for place in _places(node)
    )


def columns_named(serialized: str) -> tuple[str, ...] | None:
    """Columns that a query may read from its files; ``None`` for all of them."""
    nodes = list(nodes_of(json.loads(serialized)))
    if any(node.get("class") == "STAR" for node in nodes):
        return None
    names = [str(node["column_names"][-1]) for node in nodes if node.get("class") == "COLUMN_REF"]
    return tuple(dict.fromkeys(names))


def calls_of(sql: str, serialized: str) -> tuple[Call, ...]:
    """All readings of files in a query, in the order of their places.

    :param sql: the query.
    :param serialized: the same query by :func:`serialize`.
    :raises SourceError: one is written in a way that cannot be followed.
    """
    return tuple(found.call for found in _found(sql.encode(), serialized))


def with_files(
    sql: str,
    serialized: str,
    files: Mapping[str, Sequence[str]],
    reading: Callable[[Call, Sequence[str], str], str],
) -> str:
    """The query with the files that were found in place of the names it says.

    So it reads exactly those files, wherever they are, and none that appears afterwards. All else stays
    as its author wrote it.

    :param sql: the query.
    :param serialized: the same query by :func:`serialize`.
    :param files: files by the name that the query says; a name without files stays.
    :param reading: makes what stands behind FROM of a call, its files, and the argument that names them.
    :raises SourceError: a file name is written in a way that cannot be replaced.
    """
    text = sql.encode()
    parts, end = [], 0
    for found in _found(text, serialized):
        first, listed = _named(found, text, files)
        made = reading(found.call, listed, first) + (_alias(found.table) if found.table else "")
        parts += [text[end : found.start], made.encode()]
        end = found.end
    return b"".join([*parts, text[end:]]).decode()


def _found(text: bytes, serialized: str) -> list[_Found]:
    found = []
    for node in nodes_of(json.loads(serialized)):
        if _is_call(node):
            found.append(_function(node, text))
        elif node.get("type") == "BASE_TABLE" and (form := _form_of(node)) is not None:
            place = next(_places(node))
            match = _NAME.match(text, place.at)
            if match is None:
                raise _cannot_follow(place)
            call = Call(form, (place.pattern,), {}, {})
            found.append(_Found(call, place.at, match.end(), (place,), table=place))
    return sorted({one.start: one for one in found}.values(), key=lambda one: one.start)


def _function(node: dict[str, Any], text: bytes) -> _Found:
    function = node["function"]
    places = tuple(_places(node))
    start = int(function["query_location"])
    end, arguments = _arguments(text, start)
    options = {}
    for begin, stop in arguments[1:]:
        if match := _OPTION.fullmatch(text[begin:stop].strip()):
            options[match[1].decode().lower()] = match[2].decode()
    types = {
        str(child["alias"]): str(child["value"]["value"] if "value" in child else child["column_names"][-1])
        for given in function["children"]
        if _name_of(given) == "hive_types"
        for child in (given.get("right") or given).get("children", ())
        if "value" in child or "column_names" in child
    }
    patterns = tuple(dict.fromkeys(place.pattern for place in places))
    call = Call(READERS[function["function_name"].lower()], patterns, options, types)
    return _Found(call, start, end, places, arguments[0])


def _arguments(text: bytes, start: int) -> tuple[int, list[tuple[int, int]]]:
    """Where a call ends, and where each of its arguments begins and ends."""
    depth, begin = 0, start
    found: list[tuple[int, int]] = []
    for token in _TOKEN.finditer(text, start):
        sign = token[0]
        if sign in (b"(", b"[", b"{"):
            depth += 1
            begin = token.end() if depth == 1 else begin
        elif sign in (b")", b"]", b"}"):
            depth -= 1
            if depth == 0:
                return token.end(), [*found, (begin, token.start())]
        elif sign == b"," and depth == 1:
            found.append((begin, token.start()))
            begin = token.end()
    raise SourceError(
        "a query reads files in a way that cannot be followed: write the call of the reader anew"
    )


def _named(found: _Found, text: bytes, files: Mapping[str, Sequence[str]]) -> tuple[str, list[str]]:
    """The first argument of a call with the files in place of their names, and the files."""
    listed = [file for place in found.places for file in files.get(place.pattern, ())]
    if found.table is not None:
        return files_list(listed), listed
    (begin, stop), parts = found.first, []
    for place in sorted((place for place in found.places if place.pattern in files), key=lambda one: one.at):
        match = _TEXT.match(text, place.at)
        if match is None:
            raise _cannot_follow(place)
        names = ", ".join(map(file_name, files[place.pattern]))
        parts += [text[begin : place.at], (names if place.kind == "item" else f"[{names}]").encode()]
        begin = match.end()
    return b"".join([*parts, text[begin:stop]]).decode(), listed


def _cannot_follow(place: _Place) -> SourceError:
    return SourceError(
        f"the file name {place.pattern!r} is written in a way that cannot be followed; "
        f"write it in single quotes: {literal(place.pattern)}"
    )


def _alias(place: _Place) -> str:
    # DuckDB calls such a table by the name of its file, and so may the query.
    stem = place.pattern.replace("\\", "/").rpartition("/")[2].partition(".")[0]
    named = not place.alias and not re.search(r"[\[*?]", place.pattern)
    return f" AS {identifier(stem)}" if named and stem else ""


def _is_call(node: dict[str, Any]) -> bool:
    return node.get("type") == "TABLE_FUNCTION" and node["function"]["function_name"].lower() in READERS


def _places(node: Any) -> Iterator[_Place]:
    for inner in nodes_of(node):
        if _is_call(inner):
            yield from _texts(inner["function"]["children"][:1], "one")
        elif inner.get("type") == "BASE_TABLE" and _form_of(inner) is not None:
            yield _Place(
                inner["table_name"], "table", inner.get("query_location", 0), inner.get("alias") or ""
            )


def _form_of(table: dict[str, Any]) -> str | None:
    """What the file is that stands in place of a table."""
    return None if table.get("schema_name") else form_of(str(table.get("table_name")))


def form_of(name: str) -> str | None:
    """What a file is by its name: ``parquet``, ``csv`` or ``json``."""
    name = name.lower()
    for packed in (".gz", ".zst"):
        name = name.removesuffix(packed)
    return next((form for suffix, form in SUFFIXES.items() if name.endswith(suffix)), None)


def _texts(nodes: list[dict[str, Any]], kind: str) -> Iterator[_Place]:
    for node in nodes:
        if node.get("class") == "CONSTANT" and node["value"]["type"]["id"] == "VARCHAR":
            yield _Place(node["value"]["value"], kind, node.get("query_location", 0))
        elif node.get("function_name") == "list_value":
            yield from _texts(node["children"], "item")


def _name_of(argument: dict[str, Any]) -> str:
    names = (argument.get("left") or {}).get("column_names") or [argument.get("alias") or ""]
    return str(names[-1]).lower()


def nodes_of(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a serialized query, outer ones first."""
    if isinstance(node, dict):
        yield node
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes_of(item)


def _option(function: dict[str, Any], name: str) -> bool:
    """Whether a named option of a table function is given."""
    return any((child.get("left") or {}).get("column_names") == [name] for child in function["children"])
