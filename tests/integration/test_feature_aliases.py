"""One feature view twice in a service: the weather where a flight starts, and where it goes."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from airflow_mlops.cli.main import main
from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.hooks.feast.connection.session import import_feast
from airflow_mlops.hooks.feast.hook import FeastHook
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.features.apply import ApplyFeaturesOperator
from airflow_mlops.stores.datasets.versions import DatasetStore
from tests.fixtures.feast_store import at, connect, inline, land, service, view
from tests.fixtures.features import observed

ROWS = [("A", 0, 0, 10.0, 1), ("A", 2, 2, 12.0, 2), ("B", 1, 1, 21.0, 3), ("B", 3, 3, 23.0, 4)]
FLIGHTS = [("A", "B", 1.5), ("B", "A", 3.5), ("B", "B", 2.5)]
NAMES = {
    "weather__temp": "weather:temp",
    "weather__rain": "weather:rain",
    "there__temp": "there:temp",
    "there__rain": "there:rain",
}
#: Temperature and rain where it starts, and where it goes.
KNOWN = [(10.0, 1, 21.0, 3), (23.0, 4, 12.0, 2), (21.0, 3, 21.0, 3)]


@pytest.fixture
def home(request, tmp_path, monkeypatch) -> Path:
    """A registry with the service, and examples; by the offline store of the parameter."""
    connect(monkeypatch, **inline(tmp_path, offline_store={"type": request.param}))
    land(tmp_path / "data", ROWS)
    pair = service(
        "pair_v1",
        {"view": "weather", "join_keys": {"city": "origin"}},
        {"view": "weather", "alias": "there", "join_keys": {"city": "destination"}},
    )
    one = service("one_v1", {"view": "weather", "join_keys": {"city": "origin"}})
    definitions = [view(tmp_path / "data"), pair, one]
    ApplyFeaturesOperator(task_id="apply", definitions=definitions).execute({})
    flights = ", ".join(
        f"({n}, '{origin}', '{destination}', TIMESTAMPTZ '{at(hour).isoformat()}', {n % 2})"
        for n, (origin, destination, hour) in enumerate(FLIGHTS)
    )
    observed(tmp_path / "flights.parquet", flights, "id, origin, destination, leaves, late")
    return tmp_path


def provision(home: Path, **changes) -> dict:
    given = {
        "application": "app",
        "store": str(home / "store"),
        "examples": {
            "parquet": "flights.parquet",
            "folder": str(home),
            "keys": ["id"],
            "timestamp": "leaves",
            "targets": ["late"],
        },
        "features": "pair_v1",
    }
    return ProvisionDatasetOperator(task_id="provision", **{**given, **changes}).execute({})


def read(home: Path, dataset_id: str) -> tuple[dict[str, str], list[tuple]]:
    """Features of a version with what they are to Feast, and their values by example."""
    datasets = DatasetStore(open_store(str(home / "store")), "app")
    files = [str(path) for path in datasets.paths(dataset_id, "train", home / "unused")]
    features = {
        column.name: column.reference
        for column in datasets.manifest(dataset_id).columns
        if column.role == "feature"
    }
    return features, duckdb.read_parquet(files).order("id").select(*features).fetchall()


@pytest.mark.parametrize("home", ["asof", "duckdb"], indirect=True)
def test_features_of_one_name_carry_that_of_their_view(home):
    assert FeastHook().entity_columns("pair_v1") == ("origin", "destination")
    assert read(home, provision(home)["dataset_id"]) == (NAMES, KNOWN)
    alone = read(home, provision(home, features="one_v1")["dataset_id"])
    assert alone == ({"temp": "weather:temp", "rain": "weather:rain"}, [row[:2] for row in KNOWN])


@pytest.mark.parametrize("home", ["asof"], indirect=True)
def test_such_a_version_is_taken_and_made_again(home, caplog, capsys):
    caplog.set_level("INFO")
    first = provision(home)["dataset_id"]
    rules = [{"column": "there__temp", "between": [0, 50]}]
    checked = provision(home, assumptions=rules)["dataset_id"]
    assert f"Took 3 joined rows from dataset version {first}" in caplog.text
    assert read(home, checked) == (NAMES, KNOWN)
    capsys.readouterr()
    words = ["--store", str(home / "store"), "--application", "app"]
    assert main(["dataset", "rebuild", first, *words]) == 0
    assert "Identical: 3 rows" in capsys.readouterr().out


@pytest.mark.parametrize("home", ["asof"], indirect=True)
@pytest.mark.parametrize("name", ["warmth", "temp"])
def test_on_demand_features_beside_it(home, name):
    """Feast leaves one out in silence that is called like what it is made of."""
    feast = import_feast()
    from feast.on_demand_feature_view import on_demand_feature_view

    store = FeastHook().store()
    once = store.get_feature_view("weather")
    there = once.with_name("there").with_join_key_map({"city": "destination"})

    # Feast keeps them as text: they know nothing but their arguments.
    def warmth(frame):
        return (frame[["temp"]] * 2).rename(columns={"temp": "warmth"})

    def temp(frame):
        return frame[["temp"]] * 2

    field = feast.Field(name=name, dtype=feast.types.Float64)
    made = {"warmth": warmth, "temp": temp}[name]
    doubled = on_demand_feature_view(sources=[once], schema=[field], name="doubled")(made)
    service = feast.FeatureService(name="doubled_v1", features=[once.with_name("weather"), there, doubled])
    store.apply([doubled, service])
    rows = f"SELECT 'A' AS city, 'B' AS destination, TIMESTAMPTZ '{at(1.5).isoformat()}' AS event_timestamp"
    if name == "temp":
        with pytest.raises(
            FeatureStoreError, match=r"doubled__temp did not come out.*rename it in the on-demand"
        ):
            FeastHook().training_set("doubled_v1", rows, home / "joined.parquet")
        return
    joined = FeastHook().training_set("doubled_v1", rows, home / "joined.parquet")
    assert joined.references == {**NAMES, "doubled__warmth": "doubled:warmth"}
    [row] = duckdb.read_parquet(str(joined.path)).select(*joined.references).fetchall()
    assert row == (10.0, 1, 21.0, 3, 20.0)
