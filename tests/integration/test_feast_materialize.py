"""The online store follows the feature rows, run after run, whatever happens between; and a sensor sees how new they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_mlops.assets import online_store_asset
from airflow_mlops.hooks.feast.hook import FeastHook
from airflow_mlops.operators.features import apply as materialization
from airflow_mlops.operators.features.apply import ApplyFeaturesOperator, MaterializeFeaturesOperator
from airflow_mlops.sensors.provisioning import FeaturesFreshSensor
from tests.fixtures.feast_store import ROWS, Memory, at, connect, inline, land, service, view


@pytest.fixture
def home(tmp_path, monkeypatch):
    connect(monkeypatch, **inline(tmp_path))
    land(tmp_path / "data")
    apply(view(tmp_path / "data"), service())
    return tmp_path


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets, by the hour of the story."""

    class Clock(datetime):
        hour = 6.0

        @classmethod
        def now(cls, tz=None):
            return at(cls.hour)

    monkeypatch.setattr(materialization, "datetime", Clock)
    return Clock


def apply(*definitions, **changes):
    return ApplyFeaturesOperator(task_id="apply", definitions=list(definitions), **changes).execute({})


def materialize(memory, **changes):
    operator = MaterializeFeaturesOperator(task_id="materialize", **{"views": ["weather"], **changes})
    assert online_store_asset("feast_default") in operator.inlets
    windows = operator.execute({"asset_state_store": {operator.asset: memory}})["views"]
    return {
        name: (window["start"], window["end"]) for name, window in json.loads(json.dumps(windows)).items()
    }


def online(*cities):
    """What the online store says of these cities."""
    rows = [{"city": city} for city in cities]
    found = FeastHook().store().get_online_features(["weather:temp", "weather:rain"], rows).to_dict()
    return list(zip(found["temp"], found["rain"], strict=True))


def window(start, end):
    return {"weather": (at(start).isoformat(), at(end).isoformat())}


def test_only_what_is_new_is_copied(home, memory, clock):
    assert materialize(memory) == window(4, 6)  # the first time, as far back as values count
    assert online("A", "B", "C") == [(15.0, 5), (None, None), (None, None)]
    assert materialize(memory) == {}  # the clock stands still
    land(home / "data", [("B", 6.5, 6.5, 26.0, 6), ("A", 5.5, 6.6, 15.5, 5)], "b")
    clock.hour = 7
    assert materialize(memory) == window(6, 7)
    assert online("A", "B") == [(15.0, 5), (26.0, 6)]  # 5.5 came late
    clock.hour = 7.5
    assert materialize(memory, late="2h") == window(5.5, 7.5)  # no further back than values count
    assert online("A", "B") == [(15.5, 5), (26.0, 6)]


def test_of_equal_times_the_correction_counts(home, memory, clock):
    clock.hour = 3
    materialize(memory)
    assert online("A", "B") == [(11.5, None), (None, 2)]


def test_applying_does_not_reset_how_far_it_was(home, memory, clock):
    materialize(memory)
    apply(view(home / "data", description="Another sentence"), service("weather_v2"))
    clock.hour = 7
    assert materialize(memory) == window(6, 7)


def test_a_view_that_changed_is_copied_anew(home, memory, clock):
    materialize(memory)
    apply(view(home / "data", ttl_seconds=6 * 3600))
    assert materialize(memory) == window(0, 6)
    assert online("B") == [(None, 2)]


def test_a_retry_after_a_crash_gives_the_same(home, memory, clock, monkeypatch):
    monkeypatch.setattr(memory, "set", lambda *_: (_ for _ in ()).throw(OSError("the worker is gone")))
    with pytest.raises(OSError, match="gone"):
        materialize(memory)
    monkeypatch.undo()
    monkeypatch.setattr(materialization, "datetime", clock)
    connect(monkeypatch, **inline(home))
    assert materialize(memory) == window(4, 6)
    assert online("A") == [(15.0, 5)]


def test_a_clock_that_goes_back_loses_nothing(home, memory, clock):
    clock.hour = 100
    assert materialize(memory) == window(98, 100)
    clock.hour = 6
    assert materialize(memory) == window(4, 6)
    clock.hour = 7
    assert materialize(memory) == window(6, 7)


def test_repairing_the_past_does_not_put_old_values_in_front(home, memory, clock):
    materialize(memory)
    assert materialize(memory, start=at(0).isoformat(), end=at(2).isoformat()) == window(0, 6)
    assert online("A", "B") == [(15.0, 5), (None, 2)]
    assert materialize(memory, end=at(3).isoformat()) == {}


def test_all_views_that_are_online_by_default(home, memory, clock):
    apply(view(home / "data", "offline", online=False))
    assert set(materialize(memory, views=None)) == {"weather"}
    with pytest.raises(AirflowFailException, match="'offline' is not served online: set online: true"):
        materialize(memory, views=["offline"])
    with pytest.raises(AirflowFailException, match="did you mean 'weather'"):
        materialize(memory, views=["weathr"])
    with pytest.raises(AirflowFailException, match="start 'yesterday' is no time"):
        materialize(memory, start="yesterday")


def test_without_an_online_store_it_says_how_to_name_one(home, memory, clock, monkeypatch):
    connect(monkeypatch, **inline(home, online_store=None))
    with pytest.raises(AirflowFailException, match="has no online store; name one"):
        materialize(memory)


def test_only_what_was_published_is_copied(home, memory, clock):
    """A file that no snapshot lists was never published: whoever wrote it died before."""
    land(home / "data", [("A", 5.9, 5.9, -1.0, -1)], "half")
    (home / "snapshot.json").write_text(json.dumps({"files": ["a.parquet"]}))
    materialize(memory)
    assert online("A") == [(15.0, 5)]


def test_rows_on_s3_are_copied_by_the_connection(s3_server, s3_bucket, home, memory, clock):
    client = s3_server.client()
    client.upload_file(str(home / "data" / "a.parquet"), s3_bucket, "weather/data/a.parquet")
    apply(view(f"s3://{s3_bucket}/weather/data"))
    assert materialize(memory) == window(4, 6)
    assert online("A") == [(15.0, 5)]
    assert FeastHook().newest("weather", at(4)) == at(2)
    assert FeastHook().newest("weather", at(9)) == at(5)


def sense(**changes):
    arguments = {"service": "weather_v1", "max_age": "90m", "at": at(6).isoformat(), **changes}
    return FeaturesFreshSensor(task_id="fresh", poke_interval=1, timeout=5, **arguments)


class TestSensor:
    def test_fresh_rows_let_it_pass(self, home):
        found = sense().poke({})
        assert found is True
        assert sense(service=None, views=["weather"], deferrable=True).look_again({}) == {
            "weather": at(5).isoformat()
        }

    def test_stale_rows_are_named(self, home, capsys):
        assert sense(at=at(9).isoformat()).poke({}) is False
        said = capsys.readouterr().out
        assert "feature view 'weather' is stale at 2024-01-01 09:00:00+0000" in said
        assert "4:00:00 old; at most 1:30:00 is allowed" in said

    def test_rows_of_the_future_make_nothing_fresh(self, home):
        land(home / "data", [("A", 50, 50, 1.0, 1)], "future")
        assert sense(at=at(9).isoformat()).poke({}) is False
        assert sense(at=at(6).isoformat()).poke({}) is True
        assert sense(at=at(0.5).isoformat()).poke({}) is True

    def test_a_view_without_rows_waits(self, home, capsys):
        assert sense(at=at(-1).isoformat()).poke({}) is False
        assert "has no row at" in capsys.readouterr().out

    def test_it_holds_no_slot_while_it_waits(self, home):
        sensor = sense(at=at(9).isoformat())
        assert sensor.mode == "reschedule"
        started = datetime.now(UTC)
        ti = type(
            "TI",
            (),
            {"start_date": started, "get_first_reschedule_date": lambda *_: started, "try_number": 1},
        )
        with pytest.raises((AirflowRescheduleException, AirflowSensorTimeout)) as waits:
            sensor.execute({"ti": ti(), "task_reschedule_count": 0})
        assert isinstance(waits.value, AirflowRescheduleException)
        with pytest.raises(TaskDeferred) as deferred:
            sense(at=at(9).isoformat(), deferrable=True).execute({})
        assert deferred.value.method_name == "look_again"

    def test_deferred_it_waits_no_longer_than_its_timeout(self, home):
        """Each wait in the triggerer ends well; only the first look knows when the time began."""
        sensor = sense(at=at(9).isoformat(), deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute({})
        kwargs = {**deferred.value.kwargs, "event": "now"}
        with pytest.raises(TaskDeferred):
            sensor.resume_execution("look_again", kwargs, {})
        long_ago = (datetime.fromisoformat(kwargs["since"]) - timedelta(seconds=6)).isoformat()
        with pytest.raises(AirflowSensorTimeout, match="not fresh after 5 seconds"):
            sensor.resume_execution("look_again", {**kwargs, "since": long_ago}, {})
        sensor.soft_fail = True
        with pytest.raises(AirflowSkipException):
            sensor.resume_execution("look_again", {**kwargs, "since": long_ago}, {})

    def test_deferred_or_not_failures_are_taken_alike(self, home):
        for deferrable in (True, False):
            with pytest.raises(AirflowSkipException):
                sense(max_age="soon", deferrable=deferrable, soft_fail=True, mode="poke").execute({})

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"max_age": "soon"}, "max_age 'soon'"),
            ({"max_age": "0s"}, "max_age '0s' is nothing"),
            ({"views": ["weather"]}, "either a service or views"),
            ({"service": "weather_v9"}, "did you mean 'weather_v1'"),
            ({"at": "noon"}, "at 'noon' is no time"),
        ],
    )
    def test_what_cannot_be_meant_fails_at_once(self, home, changes, said):
        with pytest.raises(AirflowFailException, match=said):
            sense(**changes).poke({})


def test_the_story_is_what_the_tests_think():
    assert max(row[1] for row in ROWS) == 5
