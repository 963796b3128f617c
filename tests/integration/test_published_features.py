"""Published features in Feast: a column that came later, what was known when, and versions made again from both."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest

from airflow_mlops.exceptions import SourceError
from airflow_mlops.hooks.feast.hook import FeastHook
from airflow_mlops.hooks.feast.materialize import first_published
from airflow_mlops.hooks.sources.examples import AirflowSources
from airflow_mlops.operators.features.apply import ApplyFeaturesOperator, MaterializeFeaturesOperator
from airflow_mlops.primitives.datasets.making.make import DatasetRequest, make_dataset
from airflow_mlops.primitives.datasets.making.rebuild import PinnedJoin, rebuild, request_of
from airflow_mlops.primitives.datasets.manifest import Manifest
from airflow_mlops.primitives.sources.base import LocalSources
from airflow_mlops.primitives.sources.pinned import PinnedSources, find_pinned
from tests.fixtures.feast_store import Memory, connect, inline, service, view
from tests.fixtures.features import Pipeline, observed

OURS = "airflow_mlops.AsofOfflineStore"
TYPES = {"temp": "float64", "rain": "int32", "sun": "bool", "hours": "list[float64]"}
OLD = "('A', TIMESTAMPTZ '2024-01-01T00:00:00Z', 1.0::DOUBLE), ('B', TIMESTAMPTZ '2024-01-01T00:00:00Z', 2.0::DOUBLE)"
NEW = "('A', TIMESTAMPTZ '2024-01-03T00:00:00Z', 3.0::DOUBLE, 7::INTEGER, true, [0.5::DOUBLE])"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Features that got three columns with their second publication, and a view of all of them."""
    connect(monkeypatch, **inline(tmp_path, offline_store={"type": OURS}))
    observed(tmp_path / "old" / "rows.parquet", OLD)
    observed(tmp_path / "new" / "rows.parquet", NEW, "station, seen, temp, rain, sun, hours")
    for name in ("old", "new"):
        Pipeline(f"{tmp_path}/store", {"files": f"{tmp_path}/{name}/*.parquet"}).run(run_id=name)
    apply(tmp_path)
    return tmp_path


def apply(home, **changes):
    definition = view(
        home / "store" / "features" / "weather" / "data",
        entities=[{"name": "station", "join_key": "station", "type": "string"}],
        timestamp="seen",
        features=[{"name": name, "type": kind} for name, kind in TYPES.items()],
        **{"created": None, "ttl_seconds": 86_400, **changes},
    )
    ApplyFeaturesOperator(task_id="apply", definitions=[definition, service()]).execute({})


def version(home, *examples: str) -> tuple[Manifest, list[Any]]:
    """A dataset of examples, each a station and a time; its manifest, and the features of each."""
    rows = ", ".join(
        f"({n}, '{station}', TIMESTAMPTZ '{time}', true)"
        for n, (station, time) in enumerate(one.split() for one in examples)
    )
    duckdb.execute(
        f"COPY (FROM (VALUES {rows}) AS t(id, station, asked, late)) TO '{home}/examples.parquet' (FORMAT parquet)"
    )
    request = DatasetRequest.parse(
        application="app",
        purpose="training",
        examples={
            "sql": "SELECT * FROM read_parquet('examples.parquet')",
            "keys": ["id"],
            "timestamp": "asked",
            "targets": ["late"],
            "folder": str(home),
        },
        features="weather_v1",
        window=None,
        window_start=None,
        window_end=None,
        split=None,
        assumptions=[],
    )
    scratch = home / "scratch"
    scratch.mkdir()
    built = make_dataset(request, FeastHook(), scratch, lambda _: False, sources=AirflowSources())
    files = [str(path) for path in built.files.values()]
    found = duckdb.read_parquet(files).select("id, temp, rain, sun, hours").order("id").fetchall()
    return built.manifest, [row[1:] for row in found]


def again(manifest, home):
    scratch = home / "again"
    scratch.mkdir()
    below = [str(file) for file in home.rglob("*.parquet") if "scratch" not in file.parts]
    pins = find_pinned(manifest.sources, lambda _of, _pattern: below, LocalSources(), below)
    sources = PinnedSources(pins, (), LocalSources())
    given = Manifest.from_json(manifest.to_json())
    join = PinnedJoin(given, sources, scratch)
    return rebuild(given, request_of(given, home), join, sources, scratch)[0]


@pytest.mark.parametrize(
    ("examples", "expected"),
    [
        pytest.param(
            ("A 2024-01-01T06:00:00Z", "A 2024-01-03T06:00:00Z", "B 2024-01-03T06:00:00Z"),
            [(1.0, None, None, None), (3.0, 7, True, [0.5]), (None, None, None, None)],
            id="some-files-lack-it",
        ),
        pytest.param(
            ("A 2024-01-01T06:00:00Z", "B 2024-01-01T07:00:00Z"),
            [(1.0, None, None, None), (2.0, None, None, None)],
            id="all-files-lack-it",
        ),
    ],
)
def test_a_column_that_came_later_is_null_before(store, examples, expected):
    manifest, rows = version(store, *examples)
    assert rows == expected
    assert {column.name: column.type for column in manifest.columns if column.role == "feature"} == {
        "temp": "double",
        "rain": "int32",
        "sun": "bool",
        "hours": "list<l: double>",
    }
    assert again(manifest, store).id == manifest.id


def test_a_column_that_came_later_is_served_online(store):
    operator = MaterializeFeaturesOperator(
        task_id="materialize", views=["weather"], end="2024-01-03T01:00:00Z"
    )

    def copy(memory, end):
        operator.end = end
        operator.execute({"asset_state_store": {operator.asset: memory}})
        names = [f"weather:{name}" for name in TYPES]
        online = FeastHook().store().get_online_features(names, [{"station": "A"}]).to_dict()
        return [online[name][0] for name in TYPES]

    apply(store, ttl_seconds=0)
    assert copy(Memory(), "2024-01-01T01:00:00Z") == [1.0, None, None, None]
    assert copy(Memory(), "2024-01-03T01:00:00Z") == [3.0, 7, True, [0.5]]


def test_a_column_that_no_publication_knows_is_refused(store):
    folder = store / "store" / "features" / "weather"
    file = min(folder.rglob("*.parquet")).relative_to(folder / "data")
    told = {"files": [str(file)], "columns": [{"name": "temp", "type": "float64"}]}
    (folder / "snapshot.json").write_text(json.dumps(told))
    with pytest.raises(SourceError, match=r"lacks the column\(s\) rain, sun, hours"):
        version(store, "A 2024-01-01T06:00:00Z")


@pytest.mark.parametrize("filtered", [True, False])
def test_a_version_says_whether_later_knowledge_counted(tmp_path, monkeypatch, filtered):
    connect(
        monkeypatch,
        **inline(tmp_path, offline_store={"type": OURS, "filter_by_created_timestamp": filtered}),
    )
    columns = "station, seen, temp, rain, sun, hours, made"
    row = "('A', TIMESTAMPTZ '2024-01-01T00:00:00Z', {}.0::DOUBLE, 1::INTEGER, true, [1.0::DOUBLE], TIMESTAMPTZ '{}')"
    rows = f"{row.format(1, '2024-01-01T00:00:00Z')}, {row.format(2, '2024-01-01T12:00:00Z')}"
    observed(tmp_path / "rows" / "rows.parquet", rows, columns)
    Pipeline(f"{tmp_path}/store", {"files": f"{tmp_path}/rows/*.parquet"}, created="made").run()
    apply(tmp_path, created="made")
    manifest, found = version(tmp_path, "A 2024-01-01T06:00:00Z")
    assert [row[0] for row in found] == [1.0 if filtered else 2.0]
    assert manifest.features.get("options") == (None if filtered else {"filter_by_created": False})
    assert again(manifest, tmp_path).id == manifest.id


def test_rows_that_are_published_behind_the_last_copy_are_served(store):
    """Yesterday's rows come today, when the online store has been brought up to today already."""
    memory = Memory()
    operator = MaterializeFeaturesOperator(task_id="materialize", views=["weather"])

    def copy():
        windows = operator.execute({"asset_state_store": {operator.asset: memory}})["views"]
        rows = [{"station": "A"}, {"station": "C"}]
        online = FeastHook().store().get_online_features(["weather:temp"], rows).to_dict()
        return windows["weather"]["start"], online["temp"]

    apply(store, ttl_seconds=0)
    assert copy()[1] == [3.0, None]
    late = "('A', TIMESTAMPTZ '2024-01-02T00:00:00Z', 2.0::DOUBLE, 7, true, [0.5::DOUBLE]), "
    late += "('C', TIMESTAMPTZ '2024-01-02T00:00:00Z', 4.0::DOUBLE, 7, true, [0.5::DOUBLE])"
    observed(store / "late" / "rows.parquet", late, "station, seen, temp, rain, sun, hours")
    Pipeline(f"{store}/store", {"files": f"{store}/late/*.parquet"}).run(run_id="late")
    start, served = copy()
    assert served == [3.0, 4.0]
    assert datetime.fromisoformat(start) <= datetime(2024, 1, 2, tzinfo=UTC)
    hook, tomorrow = FeastHook(), datetime.now(UTC) + timedelta(days=1)
    assert first_published(hook, hook.view("weather"), tomorrow) is None


def test_files_that_differ_in_types_give_the_version_again(tmp_path, monkeypatch):
    connect(monkeypatch, **inline(tmp_path, offline_store={"type": OURS}))
    data = tmp_path / "store" / "features" / "weather" / "data"
    columns = "station, seen, temp, rain, sun, hours"
    rest = "7::INTEGER, true, [0.5::DOUBLE]"
    observed(data / "1.parquet", f"('A', TIMESTAMP '2024-01-01 00:00:00', 1::INTEGER, {rest})", columns)
    observed(data / "2.parquet", f"('A', TIMESTAMPTZ '2024-01-02 00:00:00Z', 2.5::DOUBLE, {rest})", columns)
    apply(tmp_path)
    manifest, rows = version(tmp_path, "A 2024-01-01T06:00:00Z", "A 2024-01-02T06:00:00Z")
    assert [row[0] for row in rows] == [1.0, 2.5]
    assert again(manifest, tmp_path).id == manifest.id
