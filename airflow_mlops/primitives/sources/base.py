"""The files behind a dataset: which they are, whether they have their columns, and their pins.

:class:`Sources` is what provisioning asks for files. :class:`LocalSources` knows folders;
``hooks/sources/examples.py`` also knows S3, Delta and Iceberg.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from airflow_mlops.exceptions import SourceError, SourceUnavailableError, SpecError
from airflow_mlops.primitives.sources.columns import (
    check_columns,
    check_names,
    check_same_columns,
    local_schema,
)
from airflow_mlops.primitives.sources.listing import find_files, is_parquet, local_head
from airflow_mlops.primitives.sources.queries import (
    by_name,
    calls_of,
    columns_named,
    first_file_decides,
    form_of,
    patterns_of,
    serialize,
    with_files,
)
from airflow_mlops.primitives.sources.reading import partitioned, reading_of, with_rows
from airflow_mlops.primitives.sources.texts import settings_of, text_rows
from airflow_mlops.primitives.sql.words import identifier, parquet

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.sources.queries import Call

__all__ = [
    "LocalSources",
    "Query",
    "Sources",
    "check_columns",
    "check_files",
    "check_names",
    "check_same_columns",
    "find_files",
    "first_file_decides",
    "footer_digest",
    "open_query",
    "open_tables",
    "parquet_source",
    "pin_files",
    "pins_of",
    "relative_names",
]

_AT_ONCE = 8
_LARGE = 256 * 1024**2


class Sources(Protocol):
    """Where files are and how to read them. Files are named by absolute path, or by address (``s3://…``)."""

    def find(self, pattern: str, folder: Path | None = None) -> tuple[str, ...]:
        """Files of a path, a pattern or a folder of Parquet files, sorted by name.

        :param pattern: absolute, relative to ``folder``, or an address.
        :raises SourceError: there is none.
        """
        ...

    def schema(self, file: str) -> Mapping[str, str]:
        """Column → Arrow type of a Parquet file.

        :raises SourceError: it is no whole Parquet file.
        """
        ...

    def columns(self, file: str) -> list[str]:
        """Columns of a Parquet file, in order."""
        ...

    def head(self, file: str) -> bytes:
        """The first bytes of a file, at least eight where it has so many."""
        ...

    def pin(self, files: Sequence[str]) -> list[dict[str, Any]]:
        """What tells a later reader whether each file is the same, with its ``file`` name.

        :raises SourceUnavailableError: a file changed since it was found: try again.
        """
        ...

    def sha256(self, file: str) -> str:
        """Digest of the whole content of a file, which is read for it."""
        ...

    def check_unchanged(self) -> None:
        """Make sure that all files are still as they were found; to be asked when they have been read.

        :raises SourceUnavailableError: one changed: try again.
        """
        ...

    def register(self, connection: DuckDBPyConnection) -> None:
        """Enable a DuckDB connection to read what :meth:`find` finds."""
        ...

    def open_table(
        self, connection: DuckDBPyConnection, name: str, table: Mapping[str, Any], folder: Path | None
    ) -> dict[str, Any]:
        """Make a Delta or Iceberg table a view of the connection.

        :param name: name of the view.
        :param table: ``delta`` and maybe ``version``, or ``iceberg`` and maybe ``snapshot``.
        :return: its pin: ``delta_version`` or ``iceberg_snapshot``.
        """
        ...


@dataclass(frozen=True)
class LocalSources:
    """Files in folders that this machine sees."""

    _seen: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)

    def find(self, pattern: str, folder: Path | None = None) -> tuple[str, ...]:
        """Files of a path, a pattern or a folder of Parquet files, sorted by name.

        :raises SourceError: there is none, or it is an address.
        """
        files = find_files(pattern, folder)
        self._seen.update({file: _state(file) for file in files})
        return files

    def schema(self, file: str) -> Mapping[str, str]:
        """Column → Arrow type of a Parquet file."""
        return local_schema(file)

    def columns(self, file: str) -> list[str]:
        """Columns of a Parquet file, in order."""
        return list(self.schema(file))

    def head(self, file: str) -> bytes:
        """The first bytes of a file."""
        return local_head(file)

    def pin(self, files: Sequence[str]) -> list[dict[str, Any]]:
        """Pins by size and digest, see :func:`pin_files`."""
        pins = pin_files(files)
        self._check(files)
        return pins

    def sha256(self, file: str) -> str:
        """Digest of the whole content of a file."""
        return str(_pin(Path(file))["sha256"])

    def check_unchanged(self) -> None:
        """Compare sizes and times of change with those that the files had when they were found."""
        self._check(tuple(self._seen))

    def _check(self, files: Sequence[str]) -> None:
        for file in files:
            if file in self._seen and self._seen[file] != _state(file):
                raise SourceUnavailableError(
                    f"{file} changed while it was read: write files under another name and rename them when they "
                    "are whole; try again when the writer is done"
                )

    def register(self, connection: DuckDBPyConnection) -> None:
        """Nothing to do: DuckDB reads files."""

    def open_table(
        self,
        connection: DuckDBPyConnection,  # noqa: ARG002
        name: str,
        table: Mapping[str, Any],
        folder: Path | None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Tables need a library and maybe a connection.

        :raises SourceError: always.
        """
        raise SourceError(
            f"table {name!r} ({', '.join(table)}) needs sources of Airflow: give AirflowSources of hooks/sources/examples.py"
        )


@dataclass(frozen=True)
class Query:
    """A query over files that were found.

    :param sql: the query, in brackets if it was; it names absolute files and nothing relative.
    :param files: the files, by the path or pattern that the author's query names.
    """

    sql: str
    files: Mapping[str, tuple[str, ...]]


def open_query(
    connection: DuckDBPyConnection, sql: str, folder: Path | None, sources: Sources, owner: str
) -> Query:
    """Find the files of a query, check that they go together, and put them into the query.

    The query then reads these files and no others, whatever appears meanwhile, and needs no
    ``file_search_path``. The connection must be registered with the sources.

    :param sql: one query, maybe in brackets.
    :param folder: relative paths are below it.
    :param owner: whose query it is, for messages.
    :raises SourceError: a file is missing, or lacks a column, or has one of another type.
    :raises duckdb.Error: it is no SQL.
    """
    serialized = serialize(connection, sql)
    calls = calls_of(sql, serialized)
    files = {pattern: sources.find(pattern, folder) for pattern in patterns_of(serialized)}
    decides, absent = first_file_decides(serialized), by_name(serialized)
    tables = {pattern for call in calls if call.form == "parquet" for pattern in call.patterns}
    for pattern, group in files.items():
        if pattern in tables:
            check_same_columns(
                group,
                owner,
                sources.schema,
                columns_named(serialized),
                absent=pattern in absent or pattern not in decides,
            )

    def reading(call: Call, listed: Sequence[str], first: str) -> str:
        settings = settings_of(call.form, call.options) if call.form in ("csv", "json") else None
        if settings is not None and listed:
            return text_rows(connection, listed, call.form, settings, owner)
        columns = sources.schema(listed[0]) if call.types and listed and call.form == "parquet" else {}
        return reading_of(call, listed, first, folder, columns, owner)

    return Query(with_files(sql, serialized, files, reading), files)


def check_files(files: Sequence[str], owner: str, sources: Sources) -> None:
    """Make sure that those of the files that are Parquet go together, see :func:`check_same_columns`.

    :raises SourceError: they do not.
    """
    check_same_columns([file for file in files if is_parquet(file, sources.head)], owner, sources.schema)


def parquet_source(
    connection: DuckDBPyConnection,
    given: Mapping[str, Any],
    folder: Path | None,
    sources: Sources,
    owner: str,
) -> tuple[tuple[str, ...], str]:
    """The files of a pattern, and what stands behind FROM to read them.

    :param given: ``parquet``, and maybe ``partitions``.
    :raises SourceError: there are none, or they do not go together.
    """
    pattern, types = str(given["parquet"]), given.get("partitions") or {}
    files = sources.find(pattern, folder)
    filled = with_rows(connection, files)
    check_same_columns(filled, owner, sources.schema)
    if not types:
        return files, parquet(filled)
    return files, partitioned(filled, pattern, folder, types, sources.schema(filled[0]), owner=owner)


def files_source(
    connection: DuckDBPyConnection,
    given: Mapping[str, Any],
    folder: Path | None,
    sources: Sources,
    owner: str,
) -> tuple[tuple[str, ...], str]:
    """The files of a pattern, CSV or JSON, and what stands behind FROM to read them.

    :param given: ``files``, and maybe ``csv`` or ``json``, which say how they are to be read.
    :raises SourceError: there are none, or they are of another format.
    """
    files = sources.find(str(given["files"]), folder)
    forms = {form_of(file) for file in files}
    form = next((key for key in ("csv", "json") if given.get(key) is not None), None)
    form = form or (str(next(iter(forms))) if len(forms) == 1 else "")
    if form not in ("csv", "json") or not forms <= {form, None}:
        raise SourceError(
            f"{owner}: {given['files']} names {', '.join(map(str, sorted(str(one) for one in forms)))} files, expected "
            "CSV or JSON by their endings. Cure: narrow the pattern; Parquet is named by parquet:"
        )
    return files, text_rows(connection, files, form, given.get(form), owner)


def open_tables(
    connection: DuckDBPyConnection,
    tables: Mapping[str, Mapping[str, Any]],
    folder: Path | None,
    sources: Sources,
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Make each table a view of the connection, and say what was opened.

    :param tables: name → ``{"delta": place, "version": n}``, ``{"iceberg": place, "snapshot": n}`` or
        ``{"parquet": pattern}`` or ``{"files": pattern}`` of CSV or JSON; without version or snapshot the newest one is opened.
    :return: pins for the manifest, each ``of`` ``table:<name>``; feeding the versions back opens the same. And the
        files that DuckDB itself reads for them.
    :raises SourceError: a table, a version or a file is not there.
    :raises SpecError: a table is of no known format.
    """
    pins: list[dict[str, Any]] = []
    read: list[str] = []
    for name, table in tables.items():
        given = {key: value for key, value in table.items() if value is not None}
        formats = [key for key in ("delta", "iceberg", "parquet", "files") if key in given]
        if len(formats) != 1:
            raise SpecError(
                f"examples: table {name!r}: expected one of delta, iceberg, parquet, files, got {given}"
            )
        if formats in (["parquet"], ["files"]):
            opened = parquet_source if formats == ["parquet"] else files_source
            files, source = opened(connection, given, folder, sources, f"table {name!r}")
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(name)} AS SELECT * FROM {source}")
            pins += pins_of(f"table:{name}", given[formats[0]], files, sources)
            read += files
        else:
            pin = sources.open_table(connection, name, given, folder)
            pins.append({"of": f"table:{name}", "pattern": given[formats[0]], **pin})
    return pins, tuple(read)


def pins_of(of: str, pattern: str, files: Sequence[str], sources: Sources) -> list[dict[str, Any]]:
    """Pins of the files of a pattern, as the manifest keeps them."""
    return [{"of": of, "pattern": pattern, **pin} for pin in sources.pin(files)]


def pin_files(files: Sequence[str]) -> list[dict[str, Any]]:
    """Size and SHA-256 of each local file, so that a later reader can tell whether it is the same.

    Names are relative to the folder that all files share, so that they do not depend on the machine.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # hashing leaves the interpreter to others
        pins = list(pool.map(lambda file: _pin(Path(file)), files))
    return [{"file": name, **pin} for name, pin in zip(relative_names(files), pins, strict=True)]


def footer_digest(file: Path) -> str:
    """SHA-256 of the footer of a local Parquet file.

    :raises OSError: it cannot be read, or is too short to have one.
    """
    with file.open("rb") as source:
        source.seek(-8, os.SEEK_END)
        length = int.from_bytes(source.read(4), "little")
        source.seek(-8 - length, os.SEEK_END)
        return hashlib.sha256(source.read(length)).hexdigest()


def relative_names(files: Sequence[str]) -> list[str]:
    """Names below the folder that all files share, with ``/`` between the parts."""
    parts = [file.replace(os.sep, "/").split("/") for file in files]
    shared = os.path.commonprefix([part[:-1] for part in parts])  # noqa: RUF071 - of lists, not of texts
    return ["/".join(part[len(shared) :]) for part in parts]


def _pin(file: Path) -> dict[str, Any]:
    try:
        found = file.stat()
        digest = _large_digest if found.st_size > _LARGE else _digest
        told = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        return {"bytes": found.st_size, "sha256": digest(file, told)}
    except OSError as error:
        raise SourceError(f"cannot read {file}: {error.strerror or error}") from error


def _digest(file: Path, _told: tuple[int, ...]) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


# One task pins a file for the plan of the join and for the join. To hash a large file takes longer than the clock of a
# file system needs for its next tick, so what is told of it here changes with its content.
_large_digest = lru_cache(maxsize=10_000)(_digest)


def _state(file: str) -> tuple[int, int]:
    try:
        found = Path(file).stat()
    except OSError:
        return (-1, -1)
    return found.st_size, found.st_mtime_ns
