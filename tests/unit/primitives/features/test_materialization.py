"""Which window is copied to the online store, whatever the clock does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.features.materialization import Materialized, next_window

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def last(hours: float, definition: str = "d") -> Materialized:
    return Materialized((NOON + hours * HOUR).isoformat(), definition)


def window(before, **changes):
    found = next_window(before, "d", **{"ttl": 2 * HOUR, "now": NOON, **changes})
    if found is None:
        return None
    hours = [None if at is None else (at - NOON) / HOUR for at in (found.start, found.end, found.until)]
    return tuple(hours)


@pytest.mark.parametrize(
    ("before", "changes", "expected"),
    [
        pytest.param(None, {}, (-2, 0, 0), id="the first time as far back as values count"),
        pytest.param(last(-1), {}, (-1, 0, 0), id="since the last time"),
        pytest.param(last(-9), {}, (-2, 0, 0), id="no further back than values count"),
        pytest.param(last(-1), {"late": HOUR / 2}, (-1.5, 0, 0), id="with room for late rows"),
        pytest.param(last(0), {}, None, id="nothing new"),
        pytest.param(last(-1), {"end": NOON - 1.5 * HOUR}, None, id="an old run again"),
        pytest.param(last(3), {}, (-2, 0, 0), id="the clock went back"),
        pytest.param(last(-1, "other"), {}, (-2, 0, 0), id="the view changed"),
        pytest.param(None, {"end": NOON + HOUR}, (-2, 0, 0), id="no further than now"),
        pytest.param(last(-1), {"start": NOON - 9 * HOUR}, (-9, 0, 0), id="a repair"),
        pytest.param(
            last(-1),
            {"start": NOON - 9 * HOUR, "end": NOON - 8 * HOUR},
            (-9, -1, -1),
            id="the newest row wins",
        ),
        pytest.param(last(-1), {"start": NOON - 0.5 * HOUR}, (-0.5, 0, None), id="a gap stays open"),
        pytest.param(
            last(-1), {"fresh": NOON - 1.7 * HOUR}, (-1.7, 0, 0), id="rows that came behind the last end"
        ),
        pytest.param(
            last(-1), {"fresh": NOON - HOUR / 2, "late": HOUR / 4}, (-1.25, 0, 0), id="new rows of now"
        ),
        pytest.param(last(-1), {"fresh": NOON - 9 * HOUR}, (-2, 0, 0), id="rows too old to count"),
        pytest.param(
            last(-1, "other"),
            {"start": NOON - 1.5 * HOUR},
            (-1.5, 0, None),
            id="a repair is not the copy that a changed view needs",
        ),
        pytest.param(
            last(-1, "other"),
            {"end": NOON - 3 * HOUR},
            (-5, -1, -1),
            id="an old run of a changed view puts no old values in front",
        ),
        pytest.param(None, {"start": NOON - HOUR}, (-1, 0, None), id="a first copy of a part"),
    ],
)
def test_windows(before, changes, expected):
    assert window(before, **changes) == expected


def test_values_that_count_for_ever_are_all_copied():
    found = next_window(None, "d", ttl=timedelta(0), now=NOON)
    assert found is not None
    assert found.start.year == 1970


def test_a_start_after_the_end_is_no_window():
    with pytest.raises(SpecError, match="is after end"):
        next_window(None, "d", ttl=HOUR, now=NOON, start=NOON, end=NOON - HOUR)


@pytest.mark.parametrize("value", [None, "2026", {"until": "2026"}, []])
def test_what_is_no_memory_is_none(value):
    assert Materialized.from_json(value) is None
    assert Materialized.from_json(last(0).to_json()) == last(0)
