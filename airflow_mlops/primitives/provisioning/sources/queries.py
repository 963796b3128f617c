"""The files that a DuckDB query names, and the query with the files in place of the names."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.sql import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from duckdb import DuckDBPyConnection

__all__ = [
    "READERS",
    "by_name",
    "columns_named",
    "first_file_decides",
    "nodes_of",
    "patterns_of",
    "serialize",
    "with_files",
]

#: Table functions whose files are found and pinned.
READERS = (
    "read_parquet",
    "parquet_scan",
    "read_csv",
    "read_csv_auto",
    "read_json",
    "read_json_auto",
    "read_ndjson",
    "read_ndjson_auto",
)
_SUFFIXES = {
    ".parquet": "read_parquet",
    ".csv": "read_csv_auto",
    ".csv.gz": "read_csv_auto",
    ".json": "read_json_auto",
    ".jsonl": "read_json_auto",
    ".ndjson": "read_json_auto",
}
_TEXT = re.compile(rb"'(?:[^']|'')*'")
_NAME = re.compile(rb'"(?:[^"]|"")*"|' + _TEXT.pattern)


class _Place(NamedTuple):
    """A file name in a query: ``kind`` is ``one`` (an argument), ``item`` (of a list) or ``table``."""

    pattern: str
    kind: str
    at: int
    alias: str = ""


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


def with_files(sql: str, serialized: str, files: Mapping[str, Sequence[str]]) -> str:
    """The query with the files that were found in place of the names it says.

    So it reads exactly those files, wherever they are, and none that appears afterwards. All else stays
    as its author wrote it.

    :param sql: the query.
    :param serialized: the same query by :func:`serialize`.
    :param files: files by the name that the query says; a name without files stays.
    :raises SourceError: a file name is written in a way that cannot be replaced.
    """
    text = sql.encode()
    places = sorted((place for place in _places(json.loads(serialized)) if place.pattern in files), key=_at)
    parts, end = [], 0
    for place in places:
        found = (_NAME if place.kind == "table" else _TEXT).match(text, place.at)
        if found is None:
            raise SourceError(
                f"the file name {place.pattern!r} is written in a way that cannot be followed; "
                f"write it in single quotes: {literal(place.pattern)}"
            )
        parts += [text[end : place.at], _reading(place, files[place.pattern]).encode()]
        end = found.end()
    return b"".join([*parts, text[end:]]).decode()


def _at(place: _Place) -> int:
    return place.at


def _reading(place: _Place, files: Sequence[str]) -> str:
    names = ", ".join(literal(re.sub(r"([\[*?])", r"[\1]", file)) for file in files)
    if place.kind == "item":
        return names
    if place.kind == "one":
        return f"[{names}]"
    reader = next(reader for suffix, reader in _SUFFIXES.items() if place.pattern.endswith(suffix))
    # DuckDB calls such a table by the name of its file, and so may the query.
    stem = place.pattern.replace("\\", "/").rpartition("/")[2].partition(".")[0]
    named = not place.alias and not re.search(r"[\[*?]", place.pattern)
    return f"{reader}([{names}])" + (f" AS {identifier(stem)}" if named and stem else "")


def _places(node: Any) -> Iterator[_Place]:
    for inner in nodes_of(node):
        if inner.get("type") == "TABLE_FUNCTION" and inner["function"]["function_name"] in READERS:
            yield from _texts(inner["function"]["children"][:1], "one")
        elif inner.get("type") == "BASE_TABLE" and _is_file(inner):
            yield _Place(
                inner["table_name"], "table", inner.get("query_location", 0), inner.get("alias") or ""
            )


def _is_file(table: dict[str, Any]) -> bool:
    name = str(table.get("table_name"))
    return name.endswith(tuple(_SUFFIXES)) and not table.get("schema_name")


def _texts(nodes: list[dict[str, Any]], kind: str) -> Iterator[_Place]:
    for node in nodes:
        if node.get("class") == "CONSTANT" and node["value"]["type"]["id"] == "VARCHAR":
            yield _Place(node["value"]["value"], kind, node.get("query_location", 0))
        elif node.get("function_name") == "list_value":
            yield from _texts(node["children"], "item")


def nodes_of(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a serialized query, outer ones first."""
    if isinstance(node, dict):
        yield node
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes_of(item)


def _option(function: dict[str, Any], name: str) -> bool:
    """Whether a named option of a table function is given."""
    return any((child.get("left") or {}).get("column_names") == [name] for child in function["children"])
