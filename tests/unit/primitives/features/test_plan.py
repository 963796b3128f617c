"""What a change of feature definitions takes away."""

from __future__ import annotations

import json

import pytest

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.primitives.features.plan import plan_features

CITY = ("entity", "city")
WEATHER = ("feature_view", "weather")
SERVICE = ("feature_service", "weather_v1")

ENTITY = {"join_key": "city", "type": "STRING"}
VIEW = {
    "entities": ["city"],
    "join_keys": {"city": "String"},
    "features": {"temp": "Float64", "rain": "Int32"},
    "ttl_seconds": 7200.0,
    "timestamp": "time",
    "created": "created",
    "source": {"class": "FileSource", "path": "/data"},
}
READS = {"views": {"weather": {"view": "weather", "features": {"temp": "Float64"}}}}
THERE = {CITY: ENTITY, WEATHER: VIEW, SERVICE: READS}


def harms(wanted, there=THERE, absent=()):
    return plan_features(there, wanted, absent).harms


def test_nothing_changes_when_nothing_differs():
    plan = plan_features(THERE, THERE)
    assert (plan.changes, plan.unchanged, plan.harms) == ((), 3, ())
    assert str(plan) == "no change; 3 object(s) are as defined"
    plan.check(destructive=False)


def test_what_nobody_named_is_left_alone():
    assert plan_features(THERE, {CITY: ENTITY}).changes == ()


def test_new_objects_take_nothing_away():
    plan = plan_features({}, THERE)
    assert plan.keys("add") == (CITY, WEATHER, SERVICE)
    assert plan.harms == ()


@pytest.mark.parametrize(
    ("changes", "harm"),
    [
        ({"ttl_seconds": 60.0}, None),
        ({"features": {**VIEW["features"], "wind": "Float64"}}, None),
        ({"source": {"class": "SparkSource", "path": "/data"}}, None),
        ({"description": "what it was like"}, None),
        ({"features": {"temp": "Float64"}}, "features.rain (removes a feature)"),
        (
            {"features": {"rain": "Int32", "temp": "String"}},
            "features.temp (changes its type, which feature service(s) weather_v1 read)",
        ),
        ({"entities": ["town"]}, "entities (the view is joined by something else)"),
        ({"join_keys": {"city": "Int64"}}, "join_keys.city (the view is joined by something else)"),
        (
            {"join_keys": {"city": "String", "day": "String"}},
            "join_keys.day (it is joined by something else)",
        ),
        ({"timestamp": "day"}, "timestamp (rows get another time)"),
        ({"created": ""}, "created (rows count from another time"),
    ],
)
def test_changes_of_a_view(changes, harm):
    found = harms({WEATHER: {**VIEW, **changes}})
    assert len(found) == (harm is not None)
    if harm:
        assert found[0].startswith(f"feature_view weather: {harm}")


def test_created_times_may_be_added():
    before = {**VIEW, "created": ""}
    assert harms({WEATHER: VIEW}, {WEATHER: before}) == ()


def test_a_rename_is_told_from_a_removal():
    (found,) = harms({WEATHER: {**VIEW, "features": {"temp": "Float64", "rainfall": "Int32"}}})
    assert "it looks renamed to rainfall" in found
    (found,) = harms({WEATHER: {**VIEW, "features": {"temp": "Float64", "rainfall": "Float64"}}})
    assert "renamed" not in found


@pytest.mark.parametrize(
    ("views", "harm"),
    [
        ({}, "views.weather (models of this service expect it)"),
        ({"weather": {"view": "weather", "features": {"rain": "Int32"}}}, "views.weather.features.temp"),
        (
            {"weather": {**READS["views"]["weather"], "join_keys": {"city": "town"}}},
            "views.weather.join_keys (it is joined by something else)",
        ),
        (
            {"weather": {"view": "climate", "features": {"temp": "Float64"}}},
            "views.weather.view (models get other",
        ),
    ],
)
def test_changes_of_a_service(views, harm):
    (found, *_) = harms({SERVICE: {"views": views}})
    assert found.startswith(f"feature_service weather_v1: {harm}")


def test_a_service_may_read_more():
    wider = {"views": {"weather": {"view": "weather", "features": {"temp": "Float64", "rain": "Int32"}}}}
    assert harms({SERVICE: wider}) == ()


def test_an_entity_keeps_its_key():
    assert harms({CITY: {**ENTITY, "type": "INT64"}}) == (
        "entity city: type (views and the online store are keyed by it)",
    )


def test_removing_needs_to_be_allowed():
    plan = plan_features(THERE, {}, (SERVICE, ("feature_view", "unknown")))
    assert plan.keys("remove") == (SERVICE,)
    with pytest.raises(FeatureStoreError, match="1 destructive change"):
        plan.check(destructive=False)
    plan.check(destructive=True)


def test_a_view_that_is_read_is_never_removed():
    plan = plan_features(THERE, {}, (WEATHER,))
    with pytest.raises(FeatureStoreError, match="service weather_v1 reads weather"):
        plan.check(destructive=True)
    plan_features(THERE, {}, (WEATHER, SERVICE)).check(destructive=True)


def test_a_plan_says_everything_as_text_and_as_json():
    plan = plan_features(THERE, {WEATHER: {**VIEW, "features": {"temp": "Float64"}, "ttl_seconds": 60.0}})
    assert str(plan).splitlines() == [
        "~ feature_view weather",
        "    features.rain: Int32 → nothing (destructive: removes a feature)",
        "    ttl_seconds: 7200.0 → 60.0",
        "  0 unchanged",
    ]
    found = json.loads(json.dumps(plan.to_json()))
    assert found["destructive"] == ["feature_view weather: features.rain (removes a feature)"]
    assert found["changes"][0]["differences"][1] == {"path": "ttl_seconds", "before": 7200.0, "after": 60.0}
