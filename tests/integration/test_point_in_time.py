"""Our offline store inside Feast itself: a repository is applied, a service is joined."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import FeatureStoreError, SourceError
from airflow_mlops.hooks.feast.connection.session import import_feast
from airflow_mlops.hooks.feast.hook import FeastHook

OURS = "airflow_mlops.AsofOfflineStore"
START = datetime(2024, 1, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rides and drivers: two files of one view, a field mapping, a service with an alias and a join key map."""
    feast = import_feast()
    from feast.types import Float64, Int64

    repo = tmp_path_factory.mktemp("repo")
    (repo / "data" / "rides").mkdir(parents=True)
    for name, minutes in (("1", [0, 10]), ("2", [10, 20])):
        pq.write_table(
            pa.table(
                {
                    "driver_id": [1, 1],
                    "time": pa.array([at(m) for m in minutes], pa.timestamp("us", "UTC")),
                    "written": pa.array([at(m + 5) for m in minutes], pa.timestamp("us", "UTC")),
                    "km_driven": [float(f"{name}{m}") for m in minutes],
                }
            ),
            repo / "data" / "rides" / f"{name}.parquet",
        )
    pq.write_table(
        pa.table(
            {
                "driver_id": [1, 2],
                "since": pa.array([at(-9999)] * 2, pa.timestamp("us", "UTC")),
                "stars": [4, 5],
            }
        ),
        repo / "data" / "drivers.parquet",
    )
    write_config(repo, OURS)
    driver = feast.Entity(name="driver", join_keys=["driver_id"], value_type=feast.ValueType.INT64)
    rides = feast.FeatureView(
        name="rides",
        entities=[driver],
        ttl=timedelta(hours=1),
        schema=[feast.Field(name="km", dtype=Float64)],
        source=feast.FileSource(
            name="rides_files",
            path="data/rides/*.parquet",
            timestamp_field="time",
            created_timestamp_column="created",
            field_mapping={"km_driven": "km", "written": "created"},
        ),
    )
    drivers = feast.FeatureView(
        name="drivers",
        entities=[driver],
        ttl=timedelta(0),
        schema=[feast.Field(name="stars", dtype=Int64)],
        source=feast.FileSource(name="driver_file", path="data/drivers.parquet", timestamp_field="since"),
    )
    hurried = drivers.with_name("relief").with_join_key_map({"driver_id": "relief_id"})
    store = feast.FeatureStore(repo_path=str(repo))
    store.config.registry.path = f"sqlite:///{repo}/registry.db"
    store.apply(
        [
            driver,
            rides,
            drivers,
            feast.FeatureService(name="ride_v1", features=[rides, drivers]),
            feast.FeatureService(name="relief_v1", features=[rides, hurried]),
            feast.FeatureService(name="rides_v1", features=[rides]),
        ]
    )
    return repo


def write_config(repo: Path, offline: str, registry: str = "sqlite:///registry.db") -> None:
    (repo / "feature_store.yaml").write_text(
        "project: rides\nprovider: local\n"
        f"registry: {{registry_type: sql, path: '{registry}'}}\n"
        f"offline_store: {{type: {offline}}}\n"
        "online_store: {type: sqlite, path: online.db}\nentity_key_serialization_version: 3\n"
    )


@pytest.fixture
def hook(repository: Path, monkeypatch: pytest.MonkeyPatch) -> FeastHook:
    monkeypatch.setenv(
        "AIRFLOW_CONN_FEAST_DEFAULT",
        json.dumps({"conn_type": "feast", "extra": {"repo_path": str(repository)}}),
    )
    return FeastHook()


ENTITIES = (
    "SELECT i AS n, 1 AS driver_id, TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_minutes(m) AS event_timestamp "
    "FROM (VALUES (0, 4), (1, 5), (2, 15), (3, 24), (4, 25), (5, 85), (6, 86)) t(i, m)"
)
# Known from minute 5 on; at minute 10 two files tell, the later one wins; the last one holds for one hour.
EXPECTED = [None, 10.0, 210.0, 210.0, 220.0, None, None]


def joined(hook: FeastHook, entities: Any, service: str = "ride_v1") -> list[dict[str, Any]]:
    job = hook.store().get_historical_features(entity_df=entities, features=hook.service(service))
    rows = job.to_arrow().to_pylist()
    job.close()
    return sorted(rows, key=lambda row: row["n"])


def test_examples_may_be_sql_arrow_or_pandas(hook):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        table = connection.execute(ENTITIES).to_arrow_table()
    for entities in (ENTITIES, table, table.to_pandas()):
        rows = joined(hook, entities)
        assert [row["km"] for row in rows] == EXPECTED
        assert [row["stars"] for row in rows] == [4] * 7


def test_a_training_set_lands_in_a_file(hook, tmp_path):
    result = hook.training_set("ride_v1", ENTITIES, tmp_path / "joined.parquet")
    table = pq.read_table(result.path)
    assert result.rows == table.num_rows == 7
    assert sorted(table.column_names) == ["driver_id", "event_timestamp", "km", "n", "stars"]
    assert result.references == {"km": "rides:km", "stars": "drivers:stars"}
    assert result.views[0] == {
        "name": "rides",
        "keys": {"driver_id": "driver_id"},
        "timestamp": "time",
        "created": "written",
        "ttl_seconds": 3600.0,
        "features": {"km": "km_driven"},
    }
    assert [pin["file"] for pin in result.pins] == ["1.parquet", "2.parquet", "drivers.parquet"]


def test_aliases_and_join_key_maps(hook):
    entities = ENTITIES.replace("1 AS driver_id", "1 AS driver_id, 2 AS relief_id")
    assert hook.entity_columns("relief_v1") == ("driver_id", "relief_id")
    assert [row["stars"] for row in joined(hook, entities, "relief_v1")] == [5] * 7


def test_full_feature_names(hook):
    store = hook.store()
    job = store.get_historical_features(
        entity_df=ENTITIES, features=["rides:km", "drivers:stars"], full_feature_names=True
    )
    assert {"rides__km", "drivers__stars"} <= set(job.to_arrow().column_names)
    assert "ASOF LEFT JOIN" in job.to_sql()
    job.close()


def test_a_saved_dataset_is_whole_or_not_there(hook, tmp_path):
    from feast.errors import SavedDatasetLocationAlreadyExists
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    target = tmp_path / "saved.parquet"
    job = hook.store().get_historical_features(entity_df=ENTITIES, features=hook.service("rides_v1"))
    job.persist(SavedDatasetFileStorage(path=str(target)))
    assert pq.read_table(target).num_rows == 7
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(SavedDatasetFileStorage(path=str(target)))
    assert [path.name for path in tmp_path.iterdir()] == ["saved.parquet"]
    job.close()


def test_materializing_still_works(hook, repository, monkeypatch):
    monkeypatch.chdir(repository)  # Feast reads relative paths from where it stands
    store = hook.store()
    store.materialize(at(-20000), at(60), feature_views=["drivers"])
    online = store.get_online_features(features=["drivers:stars"], entity_rows=[{"driver_id": 2}]).to_dict()
    assert online["stars"] == [5]
    assert (repository / "online.db").is_file()


def test_feasts_own_store_is_used_when_the_repository_says_so(hook, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    write_config(repository, "duckdb")
    try:
        result = hook.training_set("rides_v1", ENTITIES, tmp_path / "joined.parquet")
    finally:
        write_config(repository, OURS)
    assert result.semantics == "feast:duckdb"
    assert result.rows == 7
    rows = sorted(pq.read_table(result.path).to_pylist(), key=lambda row: row["n"])
    assert [row["km"] for row in rows][:2] == [None, 10.0]
    assert [row["km"] for row in rows][4:] == [220.0, None, None]


@pytest.mark.parametrize(
    ("service", "message"),
    [
        (
            "ride_v2",
            r"no feature service 'ride_v2' in registry sqlite.*, project 'rides'; known are .*ride_v1.*did you mean 'ride_v1'\?",
        ),
        ("zzz", "known are relief_v1, ride_v1, rides_v1"),
    ],
)
def test_a_missing_service_is_named_with_those_that_exist(hook, service, message):
    with pytest.raises(FeatureStoreError, match=message):
        hook.training_set(service, ENTITIES, Path("unused"))


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        (
            "SELECT 1 AS n, now() AS event_timestamp",
            "joined by 'driver_id', which is no column of the examples",
        ),
        (
            "SELECT 1 AS driver_id, 2 AS KM, now() AS event_timestamp",
            "'km' of view 'rides' has the name of a column",
        ),
        ("SELECT 1 AS driver_id", "need a column event_timestamp"),
        ("SELECT nonsense", "entity rows cannot be read"),
        (None, "give entity rows"),
    ],
)
def test_examples_that_do_not_fit_are_explained(hook, entities, message):
    with pytest.raises(FeatureStoreError, match=message):
        hook.store().get_historical_features(entity_df=entities, features=hook.service("ride_v1"))


def test_a_feature_file_that_lacks_a_column_is_named(hook, repository):
    broken = repository / "data" / "rides" / "3.parquet"
    pq.write_table(
        pq.read_table(repository / "data" / "rides" / "1.parquet").drop_columns(["km_driven"]), broken
    )
    try:
        with pytest.raises(
            SourceError, match=r"feature view 'rides': .*3.parquet lacks the column\(s\) km_driven"
        ):
            hook.training_set("rides_v1", ENTITIES, Path("unused"))
    finally:
        broken.unlink()


def test_a_repository_that_is_not_there_says_what_to_do(tmp_path, monkeypatch):
    def connect(**fields: Any) -> FeastHook:
        monkeypatch.setenv("AIRFLOW_CONN_FEAST_DEFAULT", json.dumps({"conn_type": "feast", **fields}))
        return FeastHook()

    with pytest.raises(FeatureStoreError, match=r"repo_path to the folder of feature_store.yaml"):
        connect().store()
    with pytest.raises(FeatureStoreError, match=r"has no feature_store.yaml on this worker"):
        connect(host=str(tmp_path)).store()
    write_config(tmp_path, OURS)
    with pytest.raises(FeatureStoreError, match=r"registry .*registry.db does not exist; run `feast apply`"):
        connect(extra={"repo_path": str(tmp_path)}).store()
    assert not (tmp_path / "registry.db").exists()
    (tmp_path / "feature_store.yaml").write_text("project: 1-bad\n  x")
    assert connect(host=str(tmp_path)).test_connection()[0] is False


def test_the_connection_can_be_tested(hook):
    works, message = hook.test_connection()
    assert works
    assert "3 feature service(s)" in message


def test_pandas_rows_keep_their_number(hook):
    frame = pd.DataFrame({"n": [0, 1], "driver_id": [1, None], "event_timestamp": [at(30), at(30)]})
    rows = joined(hook, frame)
    assert [row["stars"] for row in rows] == [4, None]
