"""Which rows of a batch are new to a feature table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.datasets.examples import ROW
from airflow_mlops.primitives.features.checks import (
    check_nulls,
    check_time,
    check_unique,
    created_columns,
)
from airflow_mlops.primitives.features.schema import cast, fit, select_as, sql_type
from airflow_mlops.primitives.features.snapshot import PUBLISHED_AT, TableRule
from airflow_mlops.primitives.sql.words import identifier, literal, parquet

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Published", "Rows", "find_new", "iso", "normalise"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Rows:
    """Rows in a local Parquet file, in order of time and keys.

    :param columns: word of each column's type; the file has a column more, which numbers the rows.
    :param first: time of the first row as in :class:`.Part`; empty without rows.
    :param last: time of the last one.
    """

    file: Path
    columns: Mapping[str, str]
    rows: int
    first: str = ""
    last: str = ""


@dataclass(frozen=True)
class Published:
    """Files that are published already and reach into the batch's time.

    :param files: number of columns that files have → those files, local.
    :param columns: word of each published column.
    """

    files: Mapping[int, Sequence[Path]]
    columns: Mapping[str, str]


def normalise(
    connection: DuckDBPyConnection,
    rule: TableRule,
    files: Sequence[Path],
    published: Mapping[str, str],
    destination: Path,
) -> Rows:
    """Bring a batch into the table's types and order, and refuse rows that no table can hold.

    Times become UTC; a time without zone is taken as UTC.

    :param published: word of each column of the table; empty before the first publication.
    :raises SourceError: a column is missing or of the wrong type.
    :raises DataError: a row has no key, no time, or no time of creation.
    """
    # By name and with the widest type: DuckDB would cast to the first file's, and 1.5 becomes 2 in silence.
    source = parquet(tuple(str(file) for file in files), union_by_name=True)
    if published and not (connection.execute(f"SELECT count(*) FROM {source}").fetchone() or (0,))[0]:
        filled = (PUBLISHED_AT,) if rule.filled else ()
        # What has no values may have lost its columns' types.
        source = _no_rows({name: word for name, word in published.items() if name not in filled})
    columns = _columns(connection, rule, source, published)
    order = ", ".join(
        [identifier(rule.timestamp), *map(identifier, rule.keys), *map(identifier, created_columns(rule))]
    )
    connection.execute(
        f"COPY (SELECT row_number() OVER (ORDER BY {order}) - 1 AS {ROW}, * FROM (SELECT {select_as(columns)} "
        f"FROM {source}) ORDER BY {ROW}) TO {literal(str(destination))} (FORMAT parquet, COMPRESSION zstd)"
    )
    rows = Rows(destination, columns, *_extent(connection, rule, destination))
    check_nulls(connection, rule, rows.file, rows.rows)
    return rows


def find_new(
    connection: DuckDBPyConnection,
    rule: TableRule,
    batch: Rows,
    published: Published,
    moment: datetime,
    destination: Path,
    *,
    late_before: datetime | None = None,
) -> Rows:
    """Rows of the batch that are not published yet, each once, in order of time and keys.

    A row is new when no published row has all of its values; a column that came to the table later is not
    compared with rows from before. Where the publication fills the time of creation, a row is new when it
    differs from the newest published row of its keys and time.

    :param moment: when the batch was read: the time of creation of a correction, if the publication fills it.
    :param late_before: a first row of an earlier time than this was not there when the source was read before:
        it, too, is taken as created at ``moment``. Other first rows are taken as created at their own time.
    :raises DataError: two rows have the same keys and time, and nothing says which of them came later.
    """
    there = _there(published)
    _temp(connection, "batch", f"SELECT DISTINCT * EXCLUDE ({ROW}) FROM {parquet((str(batch.file),))}")
    if there and not rule.filled:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW published AS {there}")
    _temp(connection, "fresh", _fresh(rule, batch, published, there, moment, late_before))
    check_unique(connection, rule, with_published=bool(there))
    order = _identity(rule)
    columns = {**batch.columns, **({PUBLISHED_AT: "timestamp"} if rule.filled else {})}
    columns = {name: columns[name] for name in [*published.columns, *columns] if name in columns}
    connection.execute(
        f"COPY (SELECT {', '.join(map(identifier, columns))} FROM fresh ORDER BY "
        f"{', '.join([order, *map(identifier, created_columns(rule, filled=True))])}) TO {literal(str(destination))} "
        "(FORMAT parquet, COMPRESSION zstd)"
    )
    return Rows(destination, columns, *_extent(connection, rule, destination))


def _columns(
    connection: DuckDBPyConnection, rule: TableRule, source: str, published: Mapping[str, str]
) -> dict[str, str]:
    described = connection.execute(f"DESCRIBE FROM {source}").fetchall()
    kinds = {str(row[0]): str(row[1]) for row in described}
    needed = [rule.timestamp, *rule.keys, *created_columns(rule)]
    if missing := [name for name in needed if name not in kinds]:
        cure = (
            f"give it in the transform, or write created: {PUBLISHED_AT} to have the publication fill it"
            if missing == [rule.created]
            else "give it in the transform, or correct timestamp, keys and created"
        )
        raise SourceError(
            f"publish: the rows lack the column(s) {', '.join(missing)}; they have {', '.join(kinds)}. Cure: {cure}"
        )
    taken = [name for name in (rule.folder_column, ROW) if name in kinds]
    if taken:
        raise SourceError(
            f"publish: the column name {taken[0]} is taken by the publication. Cure: rename it in the transform"
        )
    for name in (rule.timestamp, *created_columns(rule)):
        check_time(connection, source, name, kinds[name])
    return fit(connection, source, published, (PUBLISHED_AT,) if rule.filled else ())


def _no_rows(columns: Mapping[str, str]) -> str:
    typed = ", ".join(f"{cast('x', word)} AS {identifier(name)}" for name, word in columns.items())
    return f"(SELECT {typed} FROM (SELECT NULL AS x) WHERE false)"


def _fresh(
    rule: TableRule,
    batch: Rows,
    published: Published,
    there: str,
    moment: datetime,
    late_before: datetime | None,
) -> str:
    """Query for the rows of ``batch`` that are not published."""
    kept, read = identifier(PUBLISHED_AT), f"{literal(moment)}::TIMESTAMPTZ"
    first = time = f"b.{identifier(rule.timestamp)}"
    if late_before is not None:
        late = f"{time} < {literal(late_before)}::TIMESTAMPTZ"
        first = f"CASE WHEN {late} THEN greatest({read}, {time}) ELSE {time} END"
    if not there:
        return f"SELECT *{f', {first} AS {kept}' if rule.filled else ''} FROM batch b"
    same = " AND ".join([_joined(rule), *_same(batch.columns, published)])
    if not rule.filled:
        return f"SELECT * FROM batch b ANTI JOIN published p ON {same}"
    newest = f"QUALIFY row_number() OVER (PARTITION BY {_identity(rule)} ORDER BY {kept} DESC) = 1"
    # A correction is never older than what it corrects, whatever the clock says.
    later = f"greatest({read}, p.{kept} + to_microseconds(1))"
    return (
        f"WITH latest AS (SELECT * FROM ({there}) {newest}), "
        f"other AS (SELECT * FROM batch b ANTI JOIN latest p ON {same}) "
        f"SELECT b.*, CASE WHEN p.{kept} IS NULL THEN {first} ELSE {later} END AS {kept} "
        f"FROM other b LEFT JOIN latest p ON {_joined(rule)}"
    )


def _there(published: Published) -> str:
    """Query for the published rows, with nulls where a file has not the column; ``__n`` is how many it has."""
    parts = []
    names = list(published.columns)
    for count, files in ((count, files) for count, files in published.files.items() if files):
        present = [cast(name, published.columns[name]) for name in names[:count]]
        absent = [f"NULL::{sql_type(published.columns[name])}" for name in names[count:]]
        listed = ", ".join(
            f"{text} AS {identifier(name)}" for text, name in zip(present + absent, names, strict=True)
        )
        source = parquet(tuple(str(file) for file in files))
        parts.append(f"SELECT {listed}, {count} AS __n FROM {source}")
    return " UNION ALL ".join(parts)


def _same(columns: Mapping[str, str], published: Published) -> list[str]:
    """Conditions under which a published row ``p`` says the same as the row ``b``."""
    fewest = min(published.files, default=0)
    conditions = []
    for number, name in enumerate(published.columns):
        if name not in columns:
            continue
        same = f"b.{identifier(name)} IS NOT DISTINCT FROM p.{identifier(name)}"
        conditions.append(same if number < fewest else f"(p.__n <= {number} OR {same})")
    return conditions


def _joined(rule: TableRule) -> str:
    names = (rule.timestamp, *rule.keys)
    return " AND ".join(f"b.{identifier(name)} = p.{identifier(name)}" for name in names)


def _identity(rule: TableRule) -> str:
    return ", ".join(identifier(name) for name in (rule.timestamp, *rule.keys))


def _temp(connection: DuckDBPyConnection, name: str, query: str) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")


def _extent(connection: DuckDBPyConnection, rule: TableRule, file: Path) -> tuple[int, str, str]:
    time = identifier(rule.timestamp)
    count, first, last = connection.execute(
        f"SELECT count(*), epoch_us(min({time}) FILTER (isfinite({time}))), "
        f"epoch_us(max({time}) FILTER (isfinite({time}))) FROM {parquet((str(file),))}"
    ).fetchone() or (0, None, None)
    return int(count), "" if first is None else iso(first), "" if last is None else iso(last)


def iso(microseconds: int) -> str:
    """A moment as :class:`.Part` has it: of one length, so that text sorts as time does."""
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds")
