from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from airflow_mlops.spec.values import cron_problem, duration, format_duration, format_size, size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("6h", timedelta(hours=6)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
        ("0s", timedelta(0)),
    ],
)
def test_durations(text, value):
    assert duration(text) == value
    assert duration(value) == value


@pytest.mark.parametrize(
    "bad", ["", "1", "1.5h", "-1h", "1 h", "1H", "h", 90, None, True, [1], "99999999w", "1h30m"]
)
def test_what_is_no_duration(bad):
    with pytest.raises(PydanticCustomError):
        duration(bad)


@given(st.integers(min_value=0, max_value=36500 * 86400))
def test_durations_survive_being_written(seconds):
    assert duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("text", "value"), [("1k", 1024), ("512m", 512 * 1024**2), ("4G", 4 * 1024**3)])
def test_sizes(text, value):
    assert size(text) == value


@pytest.mark.parametrize("bad", ["", "4", "4gb", "-1g", "1.5g", "1025t", "٤g", 4, None, True])
def test_what_is_no_size(bad):
    with pytest.raises(PydanticCustomError):
        size(bad)


@given(st.integers(min_value=1, max_value=10**9))
def test_sizes_survive_being_written(kilobytes):
    assert size(format_size(kilobytes * 1024)) == kilobytes * 1024


_NOW = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)


def airflow_starts(expression):
    """Whether Airflow's scheduler finds a time for a DAG with this schedule, asked as it asks."""
    import pendulum
    from airflow.exceptions import AirflowTimetableInvalid
    from airflow.sdk import CronTriggerTimetable
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import TimeRestriction

    timetable = coerce_to_core_timetable(CronTriggerTimetable(expression, timezone="UTC"))
    try:
        timetable.validate()
        timetable.next_dagrun_info(
            last_automated_data_interval=None,
            restriction=TimeRestriction(earliest=pendulum.datetime(2024, 1, 1), latest=None, catchup=False),
        )
    except (AirflowTimetableInvalid, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    "expression",
    [
        *("0 3 * * 1", "*/15 * * * *", "5/10 0-6,22 1,15 jan-mar mon-fri", "0 23-2 * * *", "0 0 L * *"),
        *(
            "0 0 * * 5#2",
            "0 0 * * fri#2",
            "0 0 * * L5",
            "0 0 * * 7",
            "0 0 * * SUN",
            "0 0 1W * *",
            "0 0 ? * 1",
        ),
        *(
            "0 0 29 2 *",
            "0 0 30 2 1",
            "0\t0 * * *",
            "@daily",
            "@midnight",
            "@annually",
            "@quarterly",
            "@HOURLY",
        ),
    ],
)
def test_what_airflow_starts_by_is_a_schedule(expression):
    assert cron_problem(expression, _NOW) == ""
    assert airflow_starts(expression)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "is not a cron expression"),
        ("0 3 * *", "is not a cron expression"),
        ("60 * * * *", "out of range"),
        ("0 24 * * *", "out of range"),
        ("0 0 0 * *", "out of range"),
        ("0 0 * 13 *", "out of range"),
        ("0 0 * * 8", "out of range"),
        ("0 0 * * monday", "not acceptable"),
        ("0 */0 * * *", "step '0'"),
        ("0 1,,2 * * *", "not acceptable"),
        ("0 ٣ * * *", "not acceptable"),
        ("? * * * *", "Question mark"),
        ("0 0 * * 1#6", "'6'"),
        ("0 0 * * 1#1,3", "nth day"),
        ("H H * * *", "hash_id"),
        ("@reboot", "is not a cron expression"),
        ("0 0 31 2 *", "never comes to pass"),
        ("0 0 30 FEB *", "never comes to pass"),
        ("0 0 31 4,6,9,11 *", "never comes to pass"),
        ("0 0 1 1 * 0 2019", "never comes to pass"),
    ],
)
def test_what_airflow_never_starts_by_is_none(expression, why):
    assert why in cron_problem(expression, _NOW)
    assert not airflow_starts(expression)


def test_a_time_that_is_more_than_ten_years_away_is_none():
    assert cron_problem("0 0 29 2 1#5", _NOW) == "never comes to pass"  # in 2044
