"""Rows that a feature table refuses, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import DataError, SourceError
from airflow_mlops.primitives.features.snapshot import PUBLISHED_AT, TableRule
from airflow_mlops.primitives.sql.words import identifier, parquet

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["check_nulls", "check_time", "check_unique", "created_columns"]

_SHOWN = 3


def created_columns(rule: TableRule, *, filled: bool = False) -> list[str]:
    """The column of the time of creation, if there is one in the rows."""
    return [rule.created] if rule.created and (filled or not rule.filled) else []


def check_time(connection: DuckDBPyConnection, source: str, name: str, kind: str) -> None:
    """Make sure that a column is a time.

    :param source: what stands behind FROM.
    :param kind: the column's DuckDB type.
    :raises SourceError: it is something else; for text, saying whether its values agree about zones.
    """
    if kind.startswith("TIMESTAMP"):
        return
    if kind == "VARCHAR":
        zoned = rf"regexp_matches({identifier(name)}, '\d.*(Z|[+-]\d\d(:?\d\d)?)$')"
        row = connection.execute(
            f"SELECT count(*) FILTER ({zoned}), count(*) FILTER (NOT {zoned}), any_value({identifier(name)}) "
            f"FROM {source}"
        ).fetchone() or (0, 0, None)
        mixed = f", {row[0]} values with a time zone and {row[1]} without one" if row[0] and row[1] else ""
        kind += f", such as {str(row[2])[:40]!r}{mixed}"
    raise SourceError(
        f"publish: the time {name!r} is {kind}; expected a timestamp. Cure: cast it in the transform, as "
        f"{name}::TIMESTAMPTZ; a time without zone is taken as UTC"
    )


def check_nulls(connection: DuckDBPyConnection, rule: TableRule, file: Path, rows: int) -> None:
    """Make sure that every row has its keys and times.

    :param file: the rows as Parquet, and ``rows`` how many there are.
    :raises DataError: with examples of those that have not.
    """
    names = [rule.timestamp, *rule.keys, *created_columns(rule)]
    missing = [f"{identifier(name)} IS NULL" for name in names]
    missing += [f"NOT isfinite({identifier(name)})" for name in (rule.timestamp, *created_columns(rule))]
    table = parquet((str(file),))
    counts = (
        connection.execute(
            f"SELECT {', '.join(f'count(*) FILTER ({condition})' for condition in missing)} FROM {table}"
        ).fetchone()
        or ()
    )
    bad = dict.fromkeys(
        name
        for name, count in zip([*names, rule.timestamp, *created_columns(rule)], counts, strict=True)
        if count
    )
    if bad:
        where = " OR ".join(missing)
        shown = _shown(connection, f"{table} WHERE {where}", names)
        raise DataError(
            f"publish: {max(counts)} of {rows} rows have no (finite) {', '.join(bad)}, such as {shown}. A row "
            "without key or time can be found by nobody. Cure: leave such rows out in the transform, as WHERE "
            f"{next(iter(bad))} IS NOT NULL"
        )


def check_unique(connection: DuckDBPyConnection, rule: TableRule, *, with_published: bool) -> None:
    """Make sure that of rows with the same keys and time it is known which came later.

    The new rows are the table ``fresh``, the published ones ``published``.

    :param with_published: whether there are published rows.
    :raises DataError: with examples.
    """
    names = [*rule.keys, rule.timestamp, *(created_columns(rule))]
    columns = ", ".join(map(identifier, names))
    twice = f"(SELECT {columns}, count(*) AS n FROM fresh GROUP BY ALL HAVING count(*) > 1)"
    count = (connection.execute(f"SELECT count(*) FROM {twice}").fetchone() or (0,))[0]
    if count:
        raise DataError(
            f"publish: {count} time(s) the same {', '.join(names)} come with different values, such as "
            f"{_shown(connection, twice, names)}. {_cure(rule)}"
        )
    if not with_published or rule.filled:
        return
    both = " AND ".join(f"b.{identifier(name)} = p.{identifier(name)}" for name in names)
    again = f"fresh b SEMI JOIN published p ON {both}"
    count = (connection.execute(f"SELECT count(*) FROM {again}").fetchone() or (0,))[0]
    if count:
        raise DataError(
            f"publish: {count} row(s) have other values than the published ones of the same {', '.join(names)}, such "
            f"as {_shown(connection, again, names)}. That would change what was known then. {_cure(rule)}"
        )


def _cure(rule: TableRule) -> str:
    if rule.created is None:
        return (
            "Cure: name the column with the time of the change, as created: updated_at, or write created: "
            f"{PUBLISHED_AT}, which takes a correction as known from its publication on (in a table that has no "
            "created yet: under another name)"
        )
    if rule.filled:
        return "Cure: give one row of each in the transform"
    return f"Cure: let the source set {rule.created} anew at each change, or give one row of each in the transform"


def _shown(connection: DuckDBPyConnection, source: str, names: Sequence[str]) -> str:
    columns = ", ".join(f"{identifier(name)}::VARCHAR" for name in names)
    rows = connection.execute(f"SELECT {columns} FROM {source} ORDER BY ALL LIMIT {_SHOWN}").fetchall()
    return "; ".join(
        ", ".join(f"{name}={value}" for name, value in zip(names, row, strict=True)) for row in rows
    )
