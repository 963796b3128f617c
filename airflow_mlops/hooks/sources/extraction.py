"""From the source of a feature pipeline to Parquet files, by whatever reads that source."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SourceError, SpecError
from airflow_mlops.primitives.features.watermark import (
    ReadWindow,
    Watermark,
    bound,
    kind_of_type,
    plain,
    plan_window,
)
from airflow_mlops.spec.values import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from airflow_mlops.primitives.features.watermark import Kind, Value

__all__ = ["Extracted", "Source"]

BATCH_ROWS = 100_000
MEMORY = "2GB"
_KEYS = ("connection", "sql", "files", "http", "format", "watermark", "late", "batch_rows", "csv", "json")


@dataclass(frozen=True)
class Extracted:
    """What was read.

    :param files: local Parquet files of one schema.
    :param rows: how many rows they hold.
    :param columns: Arrow type of each column, as text.
    :param watermark: greatest value of the watermark column among the rows.
    """

    files: tuple[Path, ...] = ()
    rows: int = 0
    columns: Mapping[str, str] | None = None
    watermark: Watermark | None = None


class Source:
    """The source of a feature pipeline, as the YAML's ``extract:`` states it.

    :param value: one of ``connection`` with ``sql``, ``files``, ``http``; beside it ``watermark``, ``late``,
        ``batch_rows``.
    :param memory: how much may be held in memory, such as ``2GB``.
    :raises SpecError: it says nothing, two things, or something unknown.
    """

    def __init__(self, value: Mapping[str, Any], memory: str = MEMORY) -> None:
        if unknown := [key for key in value if key not in _KEYS]:
            raise SpecError(f"extract: unknown key(s) {', '.join(unknown)}; known are {', '.join(_KEYS)}")
        kinds = [key for key in ("connection", "files", "http") if value.get(key)]
        if len(kinds) != 1:
            got = " and ".join(kinds) or "none"
            raise SpecError(
                f"extract: expected exactly one of connection (with sql), files and http, got {got}"
            )
        if kinds == ["connection"] and not value.get("sql"):
            raise SpecError(
                "extract: connection needs sql. Cure: write the query, as sql: SELECT * FROM orders"
            )
        self.kind, self.value, self.memory = kinds[0], value, memory
        self.column: str | None = value.get("watermark")
        self.late = duration(value["late"]) if value.get("late") else timedelta(0)

    @property
    def name(self) -> str:
        """The source in one line, for messages; nothing secret is in it."""
        if self.kind == "connection":
            return f"connection {self.value['connection']}"
        if self.kind == "files":
            return str(self.value["files"])
        return f"connection {self.value['http'].get('connection')} {self.value['http'].get('endpoint') or ''}".strip()

    def plan(
        self,
        previous: Watermark | None,
        scratch: Path,
        *,
        start: str | int | None = None,
        end: str | int | None = None,
        now: datetime,
    ) -> ReadWindow | None:
        """Settle what this run reads; ``None`` when there is no row at all.

        :param previous: how far earlier runs have read.
        :param scratch: a folder for this.
        :param start: explicit lower end.
        :param end: explicit upper end.
        :param now: the moment beyond which no time is read.
        """
        if self.column is None:
            if start is not None or end is not None:
                raise SpecError(
                    "extract: a start or an end needs a column to which it applies. Cure: name it as watermark:"
                )
            return plan_window(None, None, previous, now=now)
        kind, newest = self._probe(previous, scratch)
        if kind is None and newest is None and self._probes(previous):
            return None
        return plan_window(
            self.column, kind, previous, late=self.late, start=start, end=end, now=now, newest=newest
        )

    def read(self, window: ReadWindow, scratch: Path) -> Extracted:
        """Write the rows of the window to local Parquet files.

        :raises SourceError: the source is missing, refuses, or has rows that make no table.
        :raises SourceUnavailableError: it does not answer.
        """
        folder = scratch / "extracted"
        if self.kind == "connection":
            return self._summary(self._sql().read(window, folder), window, scratch)
        with self._files(window, scratch) as reader:
            if reader is None:
                return Extracted()
            if window.column is not None and self.kind == "http":
                window = self._typed(window, *reader.newest(window.column))
            return self._summary(reader.read(window, folder), window, scratch)

    def _probes(self, previous: Watermark | None) -> bool:
        """Whether the database is asked for the greatest value: a time needs none, once it is known as one."""
        if self.kind != "connection":
            return False
        known = previous is not None and previous.column == self.column
        timed = known and previous is not None and previous.kind not in ("integer", "text")
        return not timed and not self._sql().places_ends

    def _probe(self, previous: Watermark | None, scratch: Path) -> tuple[Kind | None, Value | None]:
        column = self.column or ""
        if self.kind == "files":
            with self._files(ReadWindow(), scratch) as reader:
                return reader.newest(column) if reader is not None else (None, None)
        return self._sql().newest(column) if self._probes(previous) else (None, None)

    def _typed(self, window: ReadWindow, kind: Kind | None, newest: Value | None) -> ReadWindow:
        """The window with the ends of the kind that the answers turned out to hold."""
        times = ("timestamp", "naive", "date")
        if kind is None or kind == window.kind or (kind in times and window.kind in times):
            return replace(window, kind=kind or window.kind)
        until = None if newest is None else plain(kind, newest)
        return replace(window, kind=kind, after=None, until=until)

    def _sql(self) -> Any:
        from airflow_mlops.hooks.sources.sql import SqlReader

        rows = int(self.value.get("batch_rows") or BATCH_ROWS)
        return SqlReader(str(self.value["connection"]), str(self.value["sql"]), rows)

    @contextlib.contextmanager
    def _files(self, window: ReadWindow, scratch: Path) -> Iterator[Any]:
        """A reader of the files, or of what the server answered; ``None`` when it answered without rows."""
        from airflow_mlops.hooks.sources.files import FileReader
        from airflow_mlops.hooks.sources.http import fetch_pages

        if self.kind == "files":
            reader = FileReader(
                str(self.value["files"]),
                scratch,
                self.memory,
                format=self.value.get("format"),
                settings=self.value,
            )
        else:
            http = self.value["http"]
            pages = [page for page in fetch_pages(http, window, scratch / "pages") if page.stat().st_size]
            if not pages:
                yield None
                return
            files, form = [str(page) for page in pages], str(http.get("format") or "json")
            reader = FileReader(
                self.name, scratch, self.memory, files=files, format=form, settings=self.value
            )
        with contextlib.closing(reader):
            yield reader

    def _summary(self, files: list[Path], window: ReadWindow, scratch: Path) -> Extracted:
        """Count the rows, and find how far they reach."""
        import pyarrow.parquet as pq

        rows = sum(pq.read_metadata(file).num_rows for file in files)
        columns = {field.name: str(field.type) for field in pq.read_schema(files[0])} if files else {}
        watermark = self._reached(files, window, scratch) if rows else None
        return Extracted(tuple(files), rows, columns, watermark)

    def _reached(self, files: list[Path], window: ReadWindow, scratch: Path) -> Watermark | None:
        from airflow_mlops.hooks.sources.files import connect
        from airflow_mlops.primitives.sql.words import identifier, parquet

        if window.column is None:
            return None
        with contextlib.closing(connect(scratch, self.memory)) as connection:
            table = parquet(tuple(str(file) for file in files))
            columns = {row[0].lower(): row for row in connection.execute(f"DESCRIBE FROM {table}").fetchall()}
            found = columns.get(window.column.lower())
            if found is None:
                raise SourceError(
                    f"extract: {self.name} gives no column {window.column!r}, which is to be the watermark; it gives "
                    f"{', '.join(row[0] for row in columns.values())}. Cure: select it"
                )
            kind, name = kind_of_type(str(found[1]), window.column), identifier(window.column)
            comparable = window.until is not None and isinstance(window.until, int) == (kind == "integer")
            limit = [bound(kind, window.until)] if comparable else []
            # A query that places its ends itself may give rows of a time to come.
            until = f" WHERE {name} <= ?" if limit else ""
            newest = connection.execute(f"SELECT max({name}) FROM {table}{until}", limit).fetchone()
        value = newest[0] if newest else None
        return None if value is None else Watermark(window.column, kind, plain(kind, value))
