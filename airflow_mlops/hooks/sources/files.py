"""Rows of files, local or on S3: Parquet, CSV and JSON, read by DuckDB."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.database import raised_outside
from airflow_mlops.exceptions import DataError, SourceError
from airflow_mlops.primitives.features.watermark import bound, kind_of_type
from airflow_mlops.primitives.sources.listing import is_parquet, local_head
from airflow_mlops.primitives.sources.queries import SUFFIXES, form_of
from airflow_mlops.primitives.sources.reading import with_rows
from airflow_mlops.primitives.sources.texts import text_rows
from airflow_mlops.primitives.sql.words import identifier, literal, parquet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.features.watermark import Kind, ReadWindow, Value

__all__ = ["FileReader", "check_types", "connect", "duckdb_errors", "files_of", "relation"]

_NUMBER = re.compile(r"\b(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\))(?![A-Z0-9_\"])")


class FileReader:
    """Files by a path, a folder of Parquet files, or a pattern.

    :param pattern: local, or ``s3://[conn_id@]bucket/pattern``.
    :param scratch: folder for what does not fit into memory.
    :param memory: how much DuckDB may hold in memory, such as ``2GB``.
    :param files: the files, if they are known; then ``pattern`` is only for messages.
    :param format: ``parquet``, ``csv`` or ``json``; by the files' names and contents when it is not given.
    :param settings: ``csv`` and ``json``: what the YAML says of such files.
    :raises SourceError: there is no such file, or files of several formats.
    """

    def __init__(
        self,
        pattern: str,
        scratch: Path,
        memory: str,
        *,
        files: Sequence[str] | None = None,
        format: str | None = None,  # noqa: A002 - the YAML's word
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.pattern = pattern
        self._connection = connect(scratch, memory)
        self._files = tuple(files) if files is not None else files_of(pattern, self._connection)
        with duckdb_errors(f"extract: {pattern}"):
            source = relation(self._connection, self._files, "extract", format, settings)
            self._connection.execute(f"CREATE TEMP VIEW source AS SELECT * FROM {source}")

    def close(self) -> None:
        """Free the memory."""
        self._connection.close()

    def newest(self, column: str) -> tuple[Kind | None, Value | None]:
        """What the watermark column holds, and its greatest value; the latter is ``None`` without rows.

        :raises SourceError: there is no such column, or it cannot be a watermark.
        """
        with duckdb_errors(f"extract: {self.pattern}"):
            described = self._connection.execute("DESCRIBE source").fetchall()
            kinds = {str(row[0]): str(row[1]) for row in described}
            if column not in kinds:
                raise SourceError(
                    f"extract: {self.pattern} has no column {column!r}, which is to be the watermark; it has "
                    f"{', '.join(kinds)}"
                )
            kind = kind_of_type(kinds[column], column)
            found = self._connection.execute(f"SELECT max({identifier(column)}) FROM source").fetchone()
        value = found[0] if found else None
        return kind, None if value is None else bound(kind, value)

    def read(self, window: ReadWindow, folder: Path) -> list[Path]:
        """Write the rows of the window to one Parquet file.

        :raises SourceError: a file is damaged, or has another type in a column.
        """
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "part-00000.parquet"
        where, values = _where(window)
        with duckdb_errors(f"extract: {self.pattern}"):
            self._connection.execute(
                f"COPY (SELECT * FROM source{where}) TO {literal(str(target))} (FORMAT parquet, COMPRESSION zstd)",
                values,
            )
        return [target]


def connect(scratch: Path, memory: str) -> DuckDBPyConnection:
    """A DuckDB connection in which a time without zone is UTC, and which spills below ``scratch``."""
    from airflow_mlops.database import connect as open_connection

    connection = open_connection(scratch / "spill", memory, threads=4)
    connection.execute("SET preserve_insertion_order=false")
    return connection


def files_of(pattern: str, connection: DuckDBPyConnection) -> tuple[str, ...]:
    """The files that a pattern names, sorted; S3 becomes readable by the connection.

    :raises SourceError: there is none.
    """
    if not pattern.startswith("s3://"):
        from airflow_mlops.primitives.sources.base import find_files

        return tuple(find_files(pattern))
    from airflow_mlops.hooks.s3.client import split_s3
    from airflow_mlops.hooks.sources.examples import AirflowSources

    place = split_s3(pattern)
    sources = AirflowSources(place.conn_id)
    sources.register(connection)
    return sources.find(place.url)


def relation(
    connection: DuckDBPyConnection,
    files: Sequence[str],
    owner: str,
    format: str | None = None,  # noqa: A002 - the YAML's word
    settings: Mapping[str, Any] | None = None,
) -> str:
    """What stands behind FROM to read files of one format, with the columns of all of them.

    :param owner: who needs them, for the message.
    :param settings: ``csv`` and ``json``: what the YAML says of such files.
    :raises SourceError: they do not go together, or hold what cannot be read.
    """
    form = str(format or _format(files, connection, owner))
    given = settings or {}
    if other := [key for key in ("csv", "json") if given.get(key) and key != form]:
        raise SourceError(
            f"{owner}: {other[0]} says how to read {other[0].upper()}, and the files are {form}. Cure: remove it, or name "
            "other files"
        )
    if form != "parquet":
        return text_rows(connection, files, form, given.get(form), owner)
    files = with_rows(connection, files)
    check_types(connection, files, owner)
    return parquet(tuple(files), union_by_name=True)


def check_types(connection: DuckDBPyConnection, files: Sequence[str], owner: str) -> None:
    """Make sure that every Parquet file has the columns of the others, with types of the same family.

    :param owner: who needs them, for the message.
    :raises SourceError: naming the file and the column.
    """
    kinds: dict[str, Counter[str]] = {}
    by_file: dict[str, dict[str, str]] = {}
    for file in files:
        described = connection.execute(f"DESCRIBE SELECT * FROM {parquet((file,))}").fetchall()
        by_file[file] = {str(row[0]): str(row[1]) for row in described}
        for name, kind in by_file[file].items():
            kinds.setdefault(name, Counter())[_family(kind)] += 1
    for file, columns in by_file.items():
        for name, seen in kinds.items():
            usual = seen.most_common(1)[0][0]
            there = columns.get(name)
            if there is None and columns:
                raise SourceError(
                    f"{owner}: {file} has no column {name!r}, which other files have; it has "
                    f"{', '.join(columns)}. Cure: write it again with that column"
                )
            if there is not None and _family(there) != usual:
                raise SourceError(
                    f"{owner}: {file} has column {name!r} as {there}, and the other files as {usual}. Cure: write "
                    "it again with the type of the others"
                )


@contextlib.contextmanager
def duckdb_errors(where: str, hint: str = "") -> Iterator[None]:
    """Translate what DuckDB says about the user's files and queries.

    :param where: beginning of the message.
    :param hint: what else helps, at the end of it.
    """
    import duckdb

    from airflow_mlops.hooks.s3.client import s3_errors

    try:
        with s3_errors(where, SourceError):
            yield
    except duckdb.OutOfMemoryException as error:
        text = str(error).split("\n", 1)[0]
        cure = "free the disk" if "disk" in text.lower() or "temp" in text.lower() else "raise its memory"
        raise DataError(
            f"{where}: more memory or disk is needed than there is: {text}. Cure: {cure}"
        ) from error
    except duckdb.Error as error:
        if "No space left on device" in str(error):
            raise DataError(
                f"{where}: the disk is full: {error}. Cure: free it, or set another TMPDIR"
            ) from error
        if (outside := raised_outside(error)) is not None:
            raise type(outside)(f"{where}: {outside}") from error
        if isinstance(error, duckdb.PermissionException):
            from airflow_mlops.database import CURE

            hint = f". {CURE}"
        raise SourceError(f"{where}: {' '.join(str(error).split())}{hint}") from error


def _where(window: ReadWindow) -> tuple[str, list[Any]]:
    if window.column is None or window.kind is None:
        return "", []
    ends = ((window.after, ">="), (window.until, "<="))
    given = [(end, sign) for end, sign in ends if end is not None]
    if not given:
        return "", []
    name = identifier(window.column)
    values = [bound(window.kind, end) for end, _ in given]
    return " WHERE " + " AND ".join(f"{name} {sign} ?" for _, sign in given), values


def _format(files: Sequence[str], connection: DuckDBPyConnection, owner: str) -> str:
    found = {form_of(file) or _by_content(file, connection) for file in files}
    if len(found) != 1 or None in found:
        raise SourceError(
            f"{owner}: the files are {', '.join(Path(file).name for file in files[:3])}; expected all of them to "
            f"end in one of {', '.join(SUFFIXES)}, with .gz behind it at most, or to hold Parquet. Cure: narrow the pattern"
        )
    return str(found.pop())


def _by_content(file: str, connection: DuckDBPyConnection) -> str | None:
    """Parquet where a file without a known ending is that."""
    import duckdb

    if "://" not in file:
        return "parquet" if is_parquet(file, local_head) else None
    try:
        connection.execute(f"DESCRIBE SELECT * FROM {parquet((file,))}")
    except duckdb.InvalidInputException:
        return None
    return "parquet"


def _family(kind: str) -> str:
    """Types of columns, nested ones too, between which no value is lost."""
    return _NUMBER.sub("a number", kind.upper())
