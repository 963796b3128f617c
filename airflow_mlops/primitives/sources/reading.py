"""How files become rows: the call of DuckDB's reader for every query of this package."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.sources.listing import own_parts
from airflow_mlops.primitives.sql.words import files_list, identifier, literal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.sources.queries import Call

__all__ = ["call", "partitioned", "reading_of", "with_rows"]

_READERS = {
    "parquet": "read_parquet",
    "csv": "read_csv",
    "json": "read_json",
    "objects": "read_json_objects",
}
#: Types follow from all rows of all files, not from the first ones.
_WHOLE = {
    "csv": {"sample_size": "-1"},
    "json": {
        "sample_size": "-1",
        "maximum_sample_files": "1000000000",
        "map_inference_threshold": "-1",
        "field_appearance_threshold": "0",
    },
}
_FILE = "__file"
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_ ]*(\([0-9, ]+\))?")


def call(form: str, first: str, options: Mapping[str, str]) -> str:
    """A call of the reader of a format; no names of folders become columns.

    :param first: the argument that names the files.
    :param options: name → SQL.
    """
    given = {"hive_partitioning": "false", **_WHOLE.get(form, {}), **options}
    return f"{_READERS[form]}({', '.join([first, *(f'{name}={value}' for name, value in given.items())])})"


def with_rows(connection: DuckDBPyConnection, files: Sequence[str]) -> tuple[str, ...]:
    """The Parquet files that have rows; the first one where none has.

    A file without rows may have lost its types: pandas knows none of a column without values.
    """
    import duckdb

    if len(files) < 2:
        return tuple(files)
    try:
        found = connection.execute(
            f"SELECT file_name, num_rows FROM parquet_file_metadata({files_list(files)})"
        ).fetchall()
    except duckdb.Error:
        return tuple(files)  # one is damaged: its reader says so
    empty = {str(name) for name, rows in found if not rows}
    return tuple(file for file in files if file not in empty) or tuple(files[:1])


def partitioned(
    files: Sequence[str],
    pattern: str,
    folder: Path | None,
    types: Mapping[str, str],
    columns: Collection[str],
    options: Mapping[str, str] | None = None,
    owner: str = "examples",
) -> str:
    """Parquet files with the names of their folders (``column=value``) as columns.

    Only folders behind the fixed part of the pattern count: where the data lie does not change what they hold.

    :param pattern: what the files were found by, and ``folder`` where a relative one begins.
    :param types: column → its type; folders of other columns mean nothing.
    :param columns: those of the files.
    :param options: further ones of the reader.
    :raises SourceError: a file has such a column itself, or lies in no such folder.
    """
    before = own_parts(pattern, folder)
    there = {name.lower() for name in columns}
    for name, kind in types.items():
        if name.lower() in there:
            raise SourceError(
                f"{owner}: partition {name!r} is also a column of the files of {pattern}. Cure: remove it from the "
                "partitions, or give the folders another name"
            )
        if not _TYPE.fullmatch(kind):
            raise SourceError(
                f"{owner}: partition {name!r}: {kind!r} is no type. Cure: write, for example, VARCHAR"
            )
        for file in files:
            if not any(
                part.startswith(f"{name}=") for part in file.replace(os.sep, "/").split("/")[before:-1]
            ):
                raise SourceError(
                    f"{owner}: {file} lies in no folder {name}=… below the first wildcard of {pattern}. Cure: move "
                    f"it into one, or remove {name!r} from the partitions"
                )
    start = len("/".join(files[0].replace(os.sep, "/").split("/")[:before])) + 1
    values = [
        f"CAST(nullif(url_decode(regexp_extract(substr({_FILE}, {start}), {literal(f'/{re.escape(name)}=([^/]*)/')}, "
        f"1)), {literal(_NO_VALUE)}) AS {kind}) AS {identifier(name)}"
        for name, kind in types.items()
    ]
    source = call("parquet", files_list(files), {**(options or {}), "filename": literal(_FILE)})
    return f"(SELECT * EXCLUDE ({_FILE}), {', '.join(values)} FROM {source})" if values else source


def reading_of(
    asked: Call, files: Sequence[str], first: str, folder: Path | None, columns: Mapping[str, str], owner: str
) -> str:
    """What stands behind FROM for a reading in a query.

    :param asked: the reading as the query's author wrote it.
    :param first: its first argument, with the files.
    :param columns: column → type of the first file, where it is Parquet.
    :raises SourceError: partitions are asked for without a type for each, or in a way that cannot be followed.
    """
    options = {name: value for name, value in asked.options.items() if not name.startswith("hive_")}
    wanted = asked.options.get("hive_partitioning", "true" if "hive_types" in asked.options else "false")
    if wanted.strip("'").lower() not in ("true", "1", "t"):
        return call(asked.form, first, options)
    if asked.form != "parquet" or len(asked.patterns) != 1 or "filename" in options:
        raise SourceError(
            f"{owner}: hive_partitioning is for read_parquet with one pattern, and without filename. Cure: name the "
            "files under tables: with parquet and partitions"
        )
    if not asked.types:
        raise SourceError(
            f"{owner}: {asked.patterns[0]} is read with hive_partitioning, and no type says what the names of folders "
            "hold: 01 is a text or a number. Cure: add hive_types={'column': 'VARCHAR'}, or name the files under "
            "tables: with parquet and partitions: {column: VARCHAR}"
        )
    return partitioned(files, asked.patterns[0], folder, asked.types, columns, options, owner)
