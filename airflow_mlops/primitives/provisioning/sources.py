"""The files behind a dataset: which they are, whether they have their columns, and their pins."""

from __future__ import annotations

import hashlib
import json
import os
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "check_columns",
    "check_same_columns",
    "files_in_query",
    "find_files",
    "first_file_decides",
    "pin_files",
]

_WHOLE = 256 * 1024**2
_READERS = (
    "read_parquet",
    "parquet_scan",
    "read_csv",
    "read_csv_auto",
    "read_json",
    "read_json_auto",
    "read_ndjson",
    "read_ndjson_auto",
)
_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".json", ".jsonl", ".ndjson")


def find_files(pattern: str, folder: Path | None = None) -> tuple[str, ...]:
    """Files of a path, a pattern or a folder of Parquet files, sorted by name.

    :param pattern: absolute, or relative to ``folder``.
    :raises SourceError: there is none.
    """
    path = Path(pattern).expanduser()
    path = path if path.is_absolute() or folder is None else folder / path
    if has_magic(str(path)):
        # not Path.glob, which takes no absolute patterns
        files = [name for name in glob(str(path), recursive=True) if Path(name).is_file()]  # noqa: PTH207
    elif path.is_dir():
        files = [str(file) for file in path.rglob("*.parquet")]
    else:
        files = [str(path)] if path.is_file() else []
    if not files:
        raise SourceError(f"no file at {path}{_neighbours(path)}")
    return tuple(sorted(files))


def files_in_query(serialized: str, folder: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Files that a query reads, by the path or pattern it names, from DuckDB's ``json_serialize_sql``.

    Remote addresses and names that are made up while the query runs are not among them.
    """
    patterns = dict.fromkeys(_patterns(json.loads(serialized)))
    return {pattern: find_files(pattern, folder) for pattern in patterns if "://" not in pattern}


def first_file_decides(serialized: str) -> tuple[str, ...]:
    """Patterns of a query for which it takes "all columns", and means those of the first file.

    A column that the first file lacks would be left out of all others without a word. A reading with
    ``union_by_name`` has the columns of all files.

    :param serialized: the query by DuckDB's ``json_serialize_sql``.
    """
    query = json.loads(serialized)
    if not any(node.get("class") == "STAR" for node in _nodes(query)):
        return ()
    named = [
        pattern
        for node in _nodes(query)
        if node.get("type") == "TABLE_FUNCTION" and _option(node["function"], "union_by_name")
        for pattern in _patterns(node)
    ]
    return tuple(pattern for pattern in dict.fromkeys(_patterns(query)) if pattern not in named)


def check_columns(files: Iterable[str], columns: Sequence[str], owner: str) -> None:
    """Make sure that every file has the columns.

    :param owner: who needs them, for the message.
    :raises SourceError: naming file, missing columns and those that are there.
    """
    for file in files:
        there = _columns(file)
        if missing := [name for name in columns if name not in there]:
            raise SourceError(
                f"{owner}: {file} lacks the column(s) {', '.join(missing)}; "
                f"it has {', '.join(there)}. Write the file again with them"
            )


def check_same_columns(files: Sequence[str], owner: str) -> None:
    """Make sure that all Parquet files have the same columns, in whatever order.

    :raises SourceError: naming the files that lack a column which others have.
    """
    columns = {file: _columns(file) for file in files if file.endswith(".parquet")}
    every = dict.fromkeys(name for names in columns.values() for name in names)
    lacks = {file: [name for name in every if name not in names] for file, names in columns.items()}
    lines = [
        f"{file} lacks {', '.join(names)} (it has {', '.join(columns[file])})"
        for file, names in lacks.items()
        if names
    ]
    if lines:
        more = f"; and {len(lines) - 3} more file(s)" if len(lines) > 3 else ""
        raise SourceError(
            f"{owner}: {'; '.join(lines[:3])}{more}. Write them with the columns of the others, or read "
            "them by a query with union_by_name=true if absent means null"
        )


def pin_files(files: Sequence[str]) -> list[dict[str, Any]]:
    """Size and digest of each file, so that a later reader can tell whether it is the same.

    Names are relative to the folder that all files share, so that they do not depend on the machine. Up
    to 256 MiB the digest is that of the content; a larger Parquet file is pinned by its footer, which
    holds place, size and statistics of every column of every row group.
    """
    shared = Path(os.path.commonpath([str(Path(file).parent) for file in files])) if files else Path()
    return [{"file": Path(file).relative_to(shared).as_posix(), **_pin(Path(file))} for file in files]


def _pin(file: Path) -> dict[str, Any]:
    try:
        size = file.stat().st_size
        with file.open("rb") as source:
            if size <= _WHOLE or file.suffix != ".parquet":
                return {"bytes": size, "sha256": hashlib.file_digest(source, "sha256").hexdigest()}
            source.seek(-8, os.SEEK_END)
            length = int.from_bytes(source.read(4), "little")
            source.seek(-8 - length, os.SEEK_END)
            return {"bytes": size, "footer_sha256": hashlib.sha256(source.read(length)).hexdigest()}
    except OSError as error:
        raise SourceError(f"cannot read {file}: {error.strerror or error}") from error


def _columns(file: str) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return [str(name) for name in pq.read_schema(file).names]
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{file} cannot be read as Parquet: {error}") from error


def _patterns(node: Any) -> Iterator[str]:
    for inner in _nodes(node):
        if inner.get("type") == "TABLE_FUNCTION" and inner["function"]["function_name"] in _READERS:
            yield from _texts(inner["function"]["children"][:1])
        elif inner.get("type") == "BASE_TABLE" and str(inner.get("table_name")).endswith(_SUFFIXES):
            yield inner["table_name"]


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a serialized query, outer ones first."""
    if isinstance(node, dict):
        yield node
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(item)


def _option(function: dict[str, Any], name: str) -> bool:
    """Whether a named option of a table function is given."""
    return any((child.get("left") or {}).get("column_names") == [name] for child in function["children"])


def _texts(nodes: list[dict[str, Any]]) -> Iterator[str]:
    for node in nodes:
        if node.get("class") == "CONSTANT" and node["value"]["type"]["id"] == "VARCHAR":
            yield node["value"]["value"]
        elif node.get("function_name") == "list_value":
            yield from _texts(node["children"])


def _neighbours(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), path.root)
    names = sorted(entry.name for entry in Path(folder).iterdir())
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"; {folder} has {shown or 'nothing'}"
