"""Examples and feature rows for the point-in-time join: made by one query, the same on every machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

START = 1_700_000_000_000_000  # microseconds since 1970: a quarter of a year from here
DAYS = 90
FEATURES = 4


@dataclass(frozen=True)
class Size:
    """How much is joined.

    :param examples: number of examples.
    :param views: number of rows of each view.
    :param keys: distinct keys of the first view; the second has a fifth, the third a twentieth.
    """

    examples: int
    views: tuple[int, ...]
    keys: int

    @property
    def name(self) -> str:
        return f"{_short(self.examples)} x {' + '.join(_short(rows) for rows in self.views)}"

    def keys_of(self, view: int) -> int:
        return max(1, self.keys // (1, 5, 20)[view])


TTLS = (timedelta(days=1), timedelta(hours=6), timedelta(days=2))


def _short(number: int) -> str:
    return f"{number // 1_000_000}M" if number >= 1_000_000 else f"{number // 1000}k"


def make(size: Size, folder: Path, *, daily: bool = False) -> None:
    """Write ``examples.parquet`` and ``view<n>/*.parquet``, in order of time; about one row in a thousand is a tie.

    :param daily: whether each day is a file of its own, as published features are.
    """
    import duckdb

    if (folder / "examples.parquet").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)  # half made
    span = DAYS * 86_400_000_000
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'; SET enable_progress_bar=false; SET memory_limit='3GB'")
        connection.execute(f"SET temp_directory='{folder}/spill'")
        for view, rows in enumerate(size.views):
            (folder / f"view{view}").mkdir(parents=True)
            time = f"({START} + ((hash(i, {20 + view}) % {span})::BIGINT // 60000000) * 60000000)"
            query = (
                f"SELECT (hash(i, {10 + view}) % {size.keys_of(view)})::BIGINT AS k{view}, "
                f"make_timestamptz({time}) AS time, "
                f"make_timestamptz({time} + (hash(i, {30 + view}) % 7200000000)::BIGINT) AS created, "
                f"(hash(i, {40 + view}) % 1000) / 10.0::DOUBLE AS f{view}_0, "
                f"(hash(i, {50 + view}) % 1000)::BIGINT AS f{view}_1, "
                f"(hash(i, {60 + view}) % 1000003)::DOUBLE AS f{view}_2, "
                f"'c' || (hash(i, {70 + view}) % 20) AS f{view}_3 FROM range({rows}) t(i)"
            )
            if daily:
                _daily(connection, query, folder / f"view{view}")
            else:
                target = folder / f"view{view}" / "rows.parquet"
                connection.execute(f"COPY ({query} ORDER BY time) TO '{target}' (FORMAT parquet)")
        keys = ", ".join(
            f"(hash(i, {view}) % {size.keys_of(view)})::BIGINT AS k{view}" for view in range(len(size.views))
        )
        moment = f"make_timestamptz({START} + (hash(i, 9) % {span})::BIGINT) AS event_timestamp"
        connection.execute(
            f"COPY (SELECT i AS n, {keys}, {moment} FROM range({size.examples}) t(i)) "
            f"TO '{folder}/half.parquet' (FORMAT parquet)"
        )
    (folder / "half.parquet").rename(folder / "examples.parquet")


def _daily(connection, query: str, folder: Path) -> None:
    connection.execute(f"CREATE TABLE rows AS SELECT * FROM ({query}) ORDER BY time")
    for day in range(DAYS):
        first = START + day * 86_400_000_000
        within = f"time >= make_timestamptz({first}) AND time < make_timestamptz({first + 86_400_000_000})"
        connection.execute(
            f"COPY (SELECT * FROM rows WHERE {within} ORDER BY time) TO '{folder}/{day:03}.parquet' (FORMAT parquet)"
        )
    connection.execute("DROP TABLE rows")
