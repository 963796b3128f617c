"""One query over extracted rows."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from airflow_mlops.database import confine
from airflow_mlops.exceptions import SpecError
from airflow_mlops.hooks.sources.files import connect, duckdb_errors, files_of, relation
from airflow_mlops.primitives.sources.columns import check_names
from airflow_mlops.primitives.sql.words import identifier, literal, one_query, parquet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["transform"]

EXTRACTED = "extracted"


def transform(
    sql: str, files: Sequence[Path], tables: Mapping[str, str], scratch: Path, *, memory: str = "2GB"
) -> Path:
    """Run a query over the table ``extracted`` and others, and write what it gives to a Parquet file.

    :param sql: one SELECT of DuckDB.
    :param files: Parquet files of ``extracted``.
    :param tables: name → files by path or pattern, also on S3, all by one connection.
    :param scratch: a folder for the result and for what does not fit into memory.
    :raises SpecError: it is no single SELECT.
    :raises SourceError: a table is missing, or the query is wrong; naming the columns that there are.
    """
    target = scratch / "transformed.parquet"
    with contextlib.closing(connect(scratch, memory)) as connection:
        known = [str(file) for file in files]
        views = {EXTRACTED: parquet(tuple(str(file) for file in files))}
        for name, pattern in tables.items():
            if name.lower() == EXTRACTED:
                raise SpecError(
                    f"transform: the table name {name!r} is taken by the extracted rows: rename it"
                )
            found = files_of(str(pattern), connection)
            with duckdb_errors(f"transform: table {name}"):
                views[name] = relation(connection, found, f"transform: table {name}")
            known = [*known, *found]
        confine(connection, known)  # the query reads these and nothing else
        for name, source in views.items():
            with duckdb_errors(f"transform: table {name}"):
                connection.execute(f"CREATE TEMP VIEW {identifier(name)} AS SELECT * FROM {source}")
        columns = {
            name: [str(row[0]) for row in connection.execute(f"DESCRIBE {identifier(name)}").fetchall()]
            for name in views
        }
        there = "; ".join(f"{name} has {', '.join(names)}" for name, names in columns.items())
        with duckdb_errors("transform: sql", f". {there}"):
            query = one_query(sql, "transform: sql")
            given = connection.execute(f"DESCRIBE {query}").fetchall()
            check_names([str(row[0]) for row in given], "transform: sql")
            connection.execute(
                f"COPY (SELECT * FROM {query}) TO {literal(str(target))} (FORMAT parquet, COMPRESSION zstd)"
            )
    return target
