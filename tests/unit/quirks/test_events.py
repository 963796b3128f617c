"""Events that Airflow cannot show hide as few others as possible."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_mlops.quirks.events import newest_event, read_events
from tests.fixtures.inlets import Events, NoEvents

ASSET = Asset(name="tiny.retraining", uri="mlops://tiny")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def inlet(states):
    """An event a minute for each letter: ``w`` where its run waits."""
    events = [
        SimpleNamespace(id=number, timestamp=NOON + timedelta(minutes=number), waits=letter == "w")
        for number, letter in enumerate(states)
    ]
    return {"inlet_events": {ASSET: Events(events)}}


@pytest.mark.parametrize(
    ("states", "seen"),
    [
        ("", []),
        ("...", [0, 1, 2]),
        ("w", []),
        ("w..", [1, 2]),
        ("..w", [0, 1]),
        (".....w.......", [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]),
        (".w.w.", [0, 4]),
    ],
)
def test_those_before_the_first_and_behind_the_last_are_read(states, seen, caplog):
    events, complete = read_events(inlet(states), ASSET)
    assert [event.id for event in events] == seen
    assert complete == ("w" not in states)
    assert ("Airflow cannot show every event of tiny.retraining" in caplog.text) == (not complete)


def test_only_what_matters_is_asked_for():
    since = (NOON + timedelta(minutes=2)).isoformat()
    events, complete = read_events(inlet("w.."), ASSET, since)
    assert ([event.id for event in events], complete) == ([2], True)


@pytest.mark.parametrize(("states", "newest"), [("", None), ("..", 1), (".w", None), ("w.", 1)])
def test_the_newest(states, newest):
    event = newest_event(inlet(states), ASSET)
    assert (event.id if event else None) == newest


@pytest.mark.parametrize("read", [read_events, newest_event])
def test_an_airflow_that_is_away_is_no_empty_one(read):
    with pytest.raises(AirflowRuntimeError, match="gone"):
        read({"inlet_events": {ASSET: NoEvents()}}, ASSET)
