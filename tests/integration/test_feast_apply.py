"""Definitions get into a real registry: planned, refused when they take something away, and never lost."""

from __future__ import annotations

import sys

import pyarrow.parquet as pq
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.hooks.feast.hook import FeastHook
from airflow_mlops.operators.features.apply import ApplyFeaturesOperator
from tests.fixtures.feast_store import concurrently, connect, inline, land, service, view


@pytest.fixture
def home(tmp_path, monkeypatch):
    connect(monkeypatch, **inline(tmp_path))
    land(tmp_path / "data")
    return tmp_path


def apply(*definitions, **changes):
    operator = ApplyFeaturesOperator(task_id="apply", definitions=list(definitions), **changes)
    return operator.execute({})


def actions(plan):
    return {(change["action"], change["kind"], change["name"]) for change in plan["changes"]}


def test_a_new_registry_gets_everything(home):
    plan = apply(view(home / "data"), service())
    assert actions(plan) == {
        ("add", "entity", "city"),
        ("add", "feature_view", "weather"),
        ("add", "feature_service", "weather_v1"),
    }
    hook = FeastHook()
    found = hook.view("weather")
    assert [(feature.name, str(feature.dtype)) for feature in found.features] == [
        ("temp", "Float64"),
        ("rain", "Int32"),
    ]
    assert (found.ttl.total_seconds(), found.owner, dict(found.tags)) == (
        7200,
        "ml-team",
        {"team": "weather"},
    )
    assert hook.entity_columns("weather_v1") == ("city",)
    assert hook.test_connection()[0] is True


def test_a_registry_that_is_as_defined_is_not_written(home):
    apply(view(home / "data"), service())
    before = (home / "registry.db").read_bytes()
    plan = apply(view(home / "data"), service())
    assert plan == {"changes": [], "unchanged": 3, "destructive": []}
    assert (home / "registry.db").read_bytes() == before


def test_a_feature_more_is_no_harm(home):
    apply(view(home / "data"), service())
    wider = view(home / "data", features=[*view("")["features"], {"name": "wind", "type": "list[float64]"}])
    plan = apply(wider, service())
    assert {
        change["name"]: [found["path"] for found in change["differences"]] for change in plan["changes"]
    } == {
        "weather": ["features.wind"],
        "weather_v1": ["views.weather.features.wind"],
    }


def test_what_takes_away_is_refused_and_named(home):
    apply(view(home / "data"), service())
    less = view(home / "data", features=[{"name": "temp", "type": "string"}])
    with pytest.raises(AirflowFailException) as refused:
        apply(less)
    text = str(refused.value)
    assert (
        "feature_view weather: features.temp (changes its type, which feature service(s) weather_v1 read)"
        in text
    )
    assert "feature_view weather: features.rain (removes a feature" in text
    assert "destructive=True" in text
    assert len(FeastHook().view("weather").features) == 2
    plan = apply(less, service(), destructive=True)
    assert len(plan["destructive"]) == 4
    assert [feature.name for feature in FeastHook().view("weather").features] == ["temp"]


def test_another_key_is_refused(home):
    apply(view(home / "data"))
    with pytest.raises(
        AirflowFailException, match=r"entity city: join_key \(views and the online store are keyed by it\)"
    ):
        apply(view(home / "data", entities=[{"name": "city", "join_key": "town", "type": "string"}]))


def test_a_renamed_feature_is_seen_through(home):
    apply(view(home / "data"))
    renamed = view(
        home / "data",
        features=[{"name": "temperature", "type": "float64"}, {"name": "rain", "type": "int32"}],
    )
    with pytest.raises(AirflowFailException, match=r"features.temp .*it looks renamed to temperature"):
        apply(renamed)


def test_a_view_is_removed_only_when_asked_and_unused(home):
    apply(view(home / "data"), service(), view(home / "data", "other"))
    plan = apply(view(home / "data"))  # of another file: nothing else is touched
    assert plan["changes"] == []
    gone = {"kind": "feature_view", "name": "weather", "absent": True}
    with pytest.raises(AirflowFailException, match="service weather_v1 reads weather"):
        apply(gone, destructive=True)
    with pytest.raises(AirflowFailException, match="destructive"):
        apply(gone, {"kind": "feature_service", "name": "weather_v1", "absent": True})
    apply(gone, {"kind": "feature_service", "name": "weather_v1", "absent": True}, destructive=True)
    store = FeastHook().store()
    assert [found.name for found in store.list_feature_views()] == ["other"]
    assert store.list_feature_services() == []
    assert apply(gone)["changes"] == []


def test_a_service_may_read_the_views_of_others(home):
    apply(view(home / "data"))
    twice = service(
        "pair_v1",
        {"view": "weather", "features": ["temp"]},
        {"view": "weather", "features": ["rain"], "alias": "there", "join_keys": {"city": "destination"}},
    )
    apply(twice)
    assert FeastHook().entity_columns("pair_v1") == ("city", "destination")
    assert apply(twice)["changes"] == []
    twice["description"] = "Where it starts, and where it goes"
    assert [found["path"] for found in apply(twice)["changes"][0]["differences"]] == ["description"]
    with pytest.raises(AirflowFailException, match=r"no feature view 'wether'.*did you mean 'weather'"):
        apply(service("bad_v1", "wether"))
    with pytest.raises(
        AirflowFailException, match=r"view 'weather' has no feature 'tmp'.*did you mean 'temp'"
    ):
        apply(service("bad_v1", {"view": "weather", "features": ["tmp"]}))


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ({"kind": "view", "name": "x"}, "kind 'view'"),
        ({"kind": "feature_view", "name": "x"}, "has no timestamp and no features and no source"),
        ({**view("/x"), "feature": []}, "unknown 'feature'.*did you mean 'features'"),
        ({**view("/x"), "features": [{"name": "a", "type": "float"}]}, "has type 'float'; expected int64"),
        ({**view("/x"), "source": {"table": "t"}}, "give path; it has table"),
        ({**view("/x"), "entities": [{"name": "c", "type": "float64"}]}, "expected string, int64"),
    ],
)
def test_a_definition_that_cannot_be_meant_is_refused(home, definition, said):
    with pytest.raises(AirflowFailException, match=said):
        apply(definition)


def test_three_at_once_lose_nothing(home):
    concurrently(5)
    store = FeastHook().store()
    assert len(store.list_feature_views()) == len(store.list_feature_services()) == 15


def test_a_file_registry_is_warned_of_once(home, monkeypatch, caplog):
    connect(monkeypatch, **inline(home, registry=str(home / "registry.pb")))
    apply(view(home / "data"))
    apply(view(home / "data"), service())
    warned = [
        record for record in caplog.records if "of two changes at once one is lost" in record.getMessage()
    ]
    assert len(warned) == 1
    assert str(home / "registry.pb") in warned[0].getMessage()
    assert "registry_type: sql" in warned[0].getMessage()


REPOSITORY = """
from datetime import timedelta
import os
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int32, String

assert not [name for name in os.environ if name.startswith("AIRFLOW_CONN")], "sees the connections"
city = Entity(name="city", value_type=ValueType.STRING)
weather = FeatureView(
    name="weather", entities=[city], ttl=timedelta(hours=2), online=True,
    schema=[Field(name="city", dtype=String), Field(name="temp", dtype=Float64), Field(name="rain", dtype=Int32)],
    source=FileSource(path="{data}", timestamp_field="time", created_timestamp_column="created"),
)
asked = RequestSource(name="asked", schema=[Field(name="limit", dtype=Float64)])

@on_demand_feature_view(sources=[weather, asked], schema=[Field(name="above", dtype=Float64)])
def above(inputs):
    import pandas as pd
    return pd.DataFrame({{"above": inputs["temp"] - inputs["limit"]}})

weather_v1 = FeatureService(name="weather_v1", features=[weather])
above_v1 = FeatureService(name="above_v1", features=[weather, above])
"""


def test_a_repository_is_applied_by_a_process_of_its_own(home):
    repo = home / "repo"
    repo.mkdir()
    (repo / "views.py").write_text(REPOSITORY.format(data=home / "data"))
    plan = ApplyFeaturesOperator(task_id="apply", repo_path=str(repo)).execute({})
    assert ("add", "on_demand_feature_view", "above") in actions(plan)
    assert ApplyFeaturesOperator(task_id="apply", repo_path=str(repo)).execute({})["changes"] == []
    hook = FeastHook()
    assert hook.entity_columns("above_v1") == ("city", "limit")
    assert hook.views_of("above_v1") == ("weather",)
    # What is computed on demand is a feature of the training set like any other.
    sql = "SELECT 'A' AS city, 2.5::DOUBLE AS \"limit\", TIMESTAMPTZ '2024-01-01 00:30:00+00' AS event_timestamp"
    found = hook.training_set("above_v1", sql, home / "joined.parquet")
    assert found.references == {"temp": "weather:temp", "rain": "weather:rain", "above": "above:above"}
    row = pq.read_table(found.path).to_pylist()[0]
    assert (row["temp"], row["above"]) == (10.0, 7.5)
    assert "views" not in sys.modules
    (repo / "views.py").write_text("import nothing_like_it")
    with pytest.raises(AirflowFailException, match="No module named 'nothing_like_it'"):
        ApplyFeaturesOperator(task_id="apply", repo_path=str(repo)).execute({})
