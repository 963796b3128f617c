"""Examples: the window of them that counts, their order and their checks."""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.database import confine
from airflow_mlops.exceptions import DataError, EmptyDatasetError, SourceError, SpecError
from airflow_mlops.primitives.datasets.splits.rule import iso
from airflow_mlops.primitives.sources.base import (
    LocalSources,
    check_files,
    check_names,
    open_query,
    open_tables,
    parquet_source,
    pins_of,
)
from airflow_mlops.primitives.sources.session import connect, source_errors
from airflow_mlops.primitives.sql.present import or_null_sql, present_sql
from airflow_mlops.primitives.sql.words import identifier, literal, one_query, parquet
from airflow_mlops.spec.data.examples import PREDICTED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.datasets.manifest import Purpose, Role
    from airflow_mlops.primitives.datasets.query import ExamplesQuery
    from airflow_mlops.primitives.sources.base import Sources

__all__ = ["ROW", "Examples", "Window", "connect"]

log = logging.getLogger(__name__)

ROW = "__row"
"""Name of the column that numbers the examples by time and keys."""

_TAKEN = (ROW, "__split", "__fold")


@dataclass(frozen=True)
class Window:
    """Examples later than ``start``, up to and including ``end``; microseconds since 1970 UTC.

    :param as_of: the moment at which their targets had to be known; ``None`` for predictions.
    """

    start: int
    end: int
    as_of: int | None = None

    def to_json(self) -> tuple[str, str]:
        """Both ends as ISO 8601 UTC."""
        return iso(self.start), iso(self.end)

    def as_of_json(self) -> str | None:
        """The moment of known targets as ISO 8601 UTC."""
        return None if self.as_of is None else iso(self.as_of)


@dataclass(frozen=True)
class Examples:
    """Examples as a DuckDB connection sees them.

    :param query: where they come from.
    :param columns: DuckDB type of each column.
    :param sources: the files behind them, by the path or pattern that the query names.
    :param reader: what finds and pins files.
    :param tables: pins of the tables that were opened.
    """

    query: ExamplesQuery
    columns: Mapping[str, str]
    sources: Mapping[str, tuple[str, ...]]
    reader: Sources = field(default_factory=LocalSources, repr=False)
    tables: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def open(
        cls, connection: DuckDBPyConnection, query: ExamplesQuery, sources: Sources | None = None
    ) -> Examples:
        """Find the files, make the query a view, and check that its columns are there.

        The connection is confined to these files and its scratch folder by that.

        :param sources: what finds and opens files; only local ones by default.
        :raises SourceError: a file or a column is missing, or the query is wrong.
        """
        reader = sources or LocalSources()
        reader.register(connection)
        files: Mapping[str, tuple[str, ...]] = {}
        tables: list[dict[str, Any]] = []
        read: tuple[str, ...] = ()
        if query.parquet:
            given = {"parquet": query.parquet, "partitions": query.partitions}
            found, source = parquet_source(connection, given, query.folder, reader, "examples")
            files, source = {query.parquet: found}, f"(SELECT * FROM {source})"
        else:
            with source_errors(query.name):
                tables, read = open_tables(connection, query.tables, query.folder, reader)
                asked = one_query(query.sql or "", "examples: sql")
                opened = open_query(connection, asked, query.folder, reader, "examples")
            files, source = opened.files, opened.sql
        confine(connection, [*read, *(file for group in files.values() for file in group)])
        with source_errors(query.name, files, reader):
            described = connection.execute(f"DESCRIBE {source}").fetchall()
            check_names([str(row[0]) for row in described], f"examples: {query.name}")
        columns = {str(row[0]): str(row[1]) for row in described}
        examples = cls(query=query, columns=columns, sources=files, reader=reader, tables=tuple(tables))
        examples._check()
        with examples._errors():
            connection.execute(f"CREATE TEMP VIEW examples AS {examples._limited(source)}")
        return examples

    @property
    def files(self) -> tuple[str, ...]:
        """The files behind them."""
        return tuple(dict.fromkeys(file for group in self.sources.values() for file in group))

    def pins(self) -> list[dict[str, Any]]:
        """What tells a later reader whether each file and table is the same, as the manifest keeps it.

        :raises SourceUnavailableError: a file changed since it was found: try again.
        """
        pins = [
            pin
            for pattern, files in self.sources.items()
            for pin in pins_of("examples", pattern, files, self.reader)
        ]
        return [*pins, *(dict(pin) for pin in self.tables)]

    def roles(self, purpose: Purpose, split: str | None = None) -> dict[str, Role]:
        """Role of each column that the dataset keeps, keys and time first, targets last.

        :param split: column that says the split, which is no input.
        """
        query = self.query
        roles: dict[str, Role] = dict.fromkeys(query.keys, "key")
        roles[query.timestamp] = "timestamp"
        answers = {*query.targets, *([query.known_at] if query.known_at else [])}
        roles.update({name: "input" for name in self.columns if name not in roles and name not in answers})
        if purpose == "training":
            roles.update(dict.fromkeys(query.targets, "target"))
            if query.known_at:
                roles[query.known_at] = "known_at"
        if roles.get(split or "") == "input":
            roles[split or ""] = "split"
        return roles

    def window(
        self,
        connection: DuckDBPyConnection,
        purpose: Purpose,
        length: timedelta | None,
        start: int | None = None,
        end: int | None = None,
        now: int | None = None,
    ) -> Window:
        """Settle the window from what is there.

        For training it ends with the newest example whose targets are known, and ``end`` also says by
        when they had to be known. For a prediction it ends with the newest example. It begins ``length``
        earlier, or just before the first example.

        :param start: begins here instead, whatever ``length`` says.
        :param end: ends here instead.
        :param now: an example to learn from that is later than this is a mistake, and moves no window;
            microseconds since 1970 UTC.
        :raises EmptyDatasetError: there is nothing to settle it from.
        """
        time = self._time
        known = self._known_at if purpose == "training" else time
        by = f"{known} <= make_timestamptz({end})" if end is not None else "TRUE"
        if (
            now is not None
            and end is None
            and purpose == "training"
            and self._warn_of_future(connection, now)
        ):
            by = f"{time} <= make_timestamptz({now})"
        row = self._one(
            connection,
            f"SELECT epoch_us(max({known})), epoch_us(max({time})), epoch_us(min({time})) "
            f"FROM examples WHERE {self._counts(purpose)} AND {by}",
        )
        as_of, newest, first = row
        if newest is None:
            self.fail_empty(connection, purpose, start, end)
        until = newest if end is None else end
        if start is None:
            start = first - 1 if length is None else until - length // timedelta(microseconds=1)
        as_of = end if end is not None else as_of
        if purpose == "training":
            self._check_known(connection)
        return Window(start, until, as_of if purpose == "training" else None)

    def write(
        self,
        connection: DuckDBPyConnection,
        purpose: Purpose,
        window: Window,
        destination: Path,
        split: str | None = None,
    ) -> int:
        """Write the window's examples to Parquet, numbered by time and keys.

        :param split: column that says the split.
        :return: how many there are.
        :raises EmptyDatasetError: there is none.
        :raises DataError: two examples have the same keys and time.
        """
        time, query = self._time, self.query
        within = f"{time} > make_timestamptz({window.start}) AND {time} <= make_timestamptz({window.end})"
        if window.as_of is not None:
            within += f" AND {self._known_at} <= make_timestamptz({window.as_of})"
        order = ", ".join([time, *(identifier(key) for key in query.keys)])
        columns = [self._written(name, role) for name, role in self.roles(purpose, split).items()]
        with self._errors():
            connection.execute(
                f"COPY (SELECT row_number() OVER (ORDER BY {order}) - 1 AS {ROW}, {', '.join(columns)} "
                f"FROM examples WHERE {self._counts(purpose)} AND {within}) "
                f"TO {literal(str(destination))} (FORMAT parquet, COMPRESSION lz4_raw)"
            )
        table = parquet((str(destination),))
        rows = int(self._one(connection, f"SELECT count(*) FROM {table}")[0])
        if not rows:
            self.fail_empty(connection, purpose, window.start, window.end)
        self._check_unique(connection, table, rows)
        return rows

    def fail_empty(
        self, connection: DuckDBPyConnection, purpose: Purpose, start: int | None, end: int | None
    ) -> None:
        """Say that there is no example, and what there is instead.

        :raises EmptyDatasetError: always.
        """
        newest, known = self._one(
            connection,
            f"SELECT epoch_us(max({self._time})), epoch_us(max({self._time}) FILTER ({self._counts('training')})) "
            "FROM examples",
        )
        after = iso(start) if start is not None else "the beginning"
        until = iso(end) if end is not None and (start is None or start < end) else "now"
        about = "with known targets " if purpose == "training" else ""
        there = f"newest example {iso(newest)}" if newest is not None else "it gives no example at all"
        if newest is not None and purpose == "training":
            there += f", newest with known targets {iso(known) if known is not None else 'none'}"
        raise EmptyDatasetError(
            f"no example {about}after {after} up to {until} in {self.query.name} ({there}); "
            "wait for data, or widen the window"
        )

    def _limited(self, source: str) -> str:
        if not self.query.newest:
            return source
        order = ", ".join([f"{self._time} DESC", *(identifier(key) for key in self.query.keys)])
        return f"SELECT * FROM {source} WHERE {self._counts('training')} ORDER BY {order} LIMIT {self.query.newest}"

    @property
    def _time(self) -> str:
        return f"{identifier(self.query.timestamp)}::TIMESTAMPTZ"

    @property
    def _known_at(self) -> str:
        return f"{identifier(self.query.known_at)}::TIMESTAMPTZ" if self.query.known_at else self._time

    def _counts(self, purpose: Purpose) -> str:
        needed = {self._time: f"{self._time} IS NOT NULL"}
        if purpose == "training" and not self.query.keep_unlabelled:
            needed |= {name: self._present(name) for name in self.query.targets}
            needed |= {self._known_at: f"{self._known_at} IS NOT NULL"}
        return " AND ".join(needed.values())

    def _written(self, name: str, role: Role) -> str:
        """A column as the dataset has it."""
        if role == "timestamp":
            return f"{self._time} AS {identifier(name)}"
        if role == "key":  # as NaN, a missing key would be joined with features of missing keys
            return f"{or_null_sql(identifier(name), self.columns[name])} AS {identifier(name)}"
        return identifier(name)

    def _present(self, name: str) -> str:
        return present_sql(identifier(name), self.columns[name])

    def _one(self, connection: DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
        with self._errors():
            row: tuple[Any, ...] | None = connection.execute(sql).fetchone()
        return row or ()

    def _errors(self) -> AbstractContextManager[None]:
        return source_errors(self.query.name, self.sources, self.reader)

    def _warn_of_future(self, connection: DuckDBPyConnection, now: int) -> int:
        """How many examples are later than now; they are logged."""
        later = f"{self._time} > make_timestamptz({now})"
        future, newest = self._one(
            connection,
            f"SELECT count(*), epoch_us(max({self._time})) FROM examples WHERE {self._counts('training')} AND {later}",
        )
        if future:
            log.warning(
                "%d example(s) of %s are later than now (%s), the last one at %s, and left out: correct their time",
                future,
                self.query.name,
                iso(now),
                iso(newest),
            )
        return int(future)

    def _check_known(self, connection: DuckDBPyConnection) -> None:
        """Refuse a time of knowing that is the time of the question under another name.

        :raises DataError: the two are equal in every example.
        """
        query = self.query
        if not query.known_at:
            return
        same, rows = self._one(
            connection,
            f"SELECT count(*) FILTER ({self._known_at} = {self._time}), count(*) FROM examples "
            f"WHERE {self._counts('training')}",
        )
        if rows > 1 and same == rows:
            raise DataError(
                f"examples: {query.known_at} equals {query.timestamp} in all {rows} examples of {query.name}: all targets "
                "would pass for known when they are asked for, and features may hold the answer. Cure: let "
                f"{query.known_at} be the time at which the target became known, or remove targets_known_at"
            )

    def _check(self) -> None:
        query = self.query
        if query.known_at and query.known_at.casefold() == query.timestamp.casefold():
            raise SpecError(
                f"examples: timestamp and targets_known_at are both {query.timestamp!r}: all targets would pass for known "
                "when they are asked for. Cure: name the column with the time at which the target became known, or "
                "remove targets_known_at"
            )
        needed = [*query.keys, query.timestamp, *query.targets, *([query.known_at] if query.known_at else [])]
        if missing := [name for name in needed if name not in self.columns]:
            for group in self.sources.values():
                check_files(group, "examples", self.reader)
            near = difflib.get_close_matches(missing[0], self.columns, n=1)
            raise SourceError(
                f"examples lack the column(s) {', '.join(missing)}; {query.name} gives "
                f"{', '.join(self.columns)}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
        kind = self.columns[query.timestamp]
        if not kind.startswith(("TIMESTAMP", "DATE")):
            raise SourceError(
                f"examples: the time {query.timestamp!r} is {kind}, expected TIMESTAMP, "
                f"TIMESTAMP WITH TIME ZONE or DATE; cast it in the query"
            )
        own = [name for name in self.columns if name.casefold() in _TAKEN]
        own += [name for name in (*query.keys, query.timestamp) if name.casefold() in PREDICTED]
        if own:
            raise SourceError(
                f"examples: {query.name} gives the column {own[0]!r}, a name that is taken by "
                f"{'datasets' if own[0].casefold() in _TAKEN else 'the files with predictions'}. Cure: give it another "
                f"name in the query: SELECT {identifier(own[0])} AS …"
            )

    def _check_unique(self, connection: DuckDBPyConnection, table: str, rows: int) -> None:
        names = [*self.query.keys, self.query.timestamp]
        empty = " AND ".join(f"NOT {self._present(name)}" for name in self.query.keys)
        if nulls := self._one(connection, f"SELECT count(*) FROM {table} WHERE {empty}")[0]:
            log.warning(
                "%d of %d examples have no value in any key (%s): no feature can be joined to them",
                nulls,
                rows,
                ", ".join(self.query.keys),
            )
        values = [or_null_sql(identifier(name), self.columns[name]) for name in names]
        key = f"struct_pack({', '.join(f'k{n} := {value}' for n, value in enumerate(values))})"
        distinct = self._one(connection, f"SELECT count(DISTINCT {key}) FROM {table}")[0]
        if distinct == rows:
            return
        twice = connection.execute(
            f"SELECT {', '.join(values)}, count(*) FROM {table} "
            "GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT 1"
        ).fetchone()
        *found, times = twice or ()
        shown = ", ".join(f"{name}={value}" for name, value in zip(names, found, strict=False))
        raise DataError(
            f"{rows - distinct} of {rows} examples repeat the keys and time of another one, such as {shown} "
            f"({times} times): {self.query.name} must give each example once"
        )
