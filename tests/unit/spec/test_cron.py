from __future__ import annotations

import pytest

from airflow_mlops.spec.cron import cron_problem


@pytest.mark.parametrize(
    "text",
    [
        "0 3 * * 1",
        "*/15 * * * *",
        "5/10 0-6,22 1,15 jan-mar mon-fri",
        "0 23-2 * * *",
        "0 0 L * *",
        "0 0 * * 5#2",
        "0 0 * * L5",
        "0 0 * * 7",
        "0 0 * * SUN",
        "@daily",
    ],
)
def test_good_expressions(text):
    from croniter import croniter  # the library that Airflow itself asks

    assert cron_problem(text) == ""
    assert croniter.is_valid(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 fields instead of 5"),
        ("0 3 * *", "4 fields instead of 5"),
        ("0 3 * * 1 2024", "6 fields instead of 5"),
        ("60 * * * *", "minute '60' is not within 0-59"),
        ("0 24 * * *", "hour '24' is not within 0-23"),
        ("0 0 0 * *", "day of the month '0' is not within 1-31"),
        ("0 0 * 13 *", "month '13' is not within 1-12"),
        ("0 0 * * 8", "weekday '8' is not within 0-7"),
        ("0 0 * * monday", "weekday 'monday' is not within 0-7"),
        ("0 */0 * * *", "hour '*/0' is not within 0-23"),
        ("0 1,,2 * * *", "hour '' is not within 0-23"),
        ("0 ٣ * * *", "hour '٣' is not within 0-23"),
    ],
)
def test_bad_expressions_say_which_field(text, why):
    assert cron_problem(text) == why


def test_unknown_presets_name_the_known_ones():
    assert "@reboot is not one of @daily, @hourly" in cron_problem("@reboot")
