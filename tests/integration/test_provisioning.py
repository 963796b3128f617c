"""The operator against a real Feast repository and a real store."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from airflow_mlops.exceptions import StoreConflictError
from airflow_mlops.hooks.datasets import DatasetStore
from airflow_mlops.hooks.feast import _import_feast
from airflow_mlops.hooks.store import open_store
from airflow_mlops.hooks.store_files import FileStore
from airflow_mlops.operators.provisioning import ProvisionDatasetOperator
from airflow_mlops.primitives.provisioning.digest import logical_digest

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS, DAILY = 90, 10

EXAMPLES = {
    "sql": "SELECT id, asked, city, size, late, known FROM read_parquet('examples/*.parquet')",
    "keys": ["id"],
    "timestamp": "asked",
    "targets": ["late"],
    "targets_known_at": "known",
}
SPLIT = {"by": "time", "train": 0.7, "validation": 0.15, "test": 0.15, "gap": "0s"}


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Feast repository with the weather of three cities, every hour."""
    feast = _import_feast()
    from feast.types import Float64

    repo = tmp_path_factory.mktemp("repo")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        connection.execute(
            "COPY (SELECT city, TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_hours(h) AS time, h::DOUBLE AS temp "
            f"FROM range(-5, {DAYS * 24}) t(h), (VALUES ('A'), ('B')) c(city)) TO '{repo}/weather.parquet'"
        )
    (repo / "feature_store.yaml").write_text(
        f"project: app\nprovider: local\nregistry: {{registry_type: sql, path: 'sqlite:///{repo}/registry.db'}}\n"
        "offline_store: {type: airflow_mlops.hooks.feast_asof.AsofOfflineStore, memory_limit: 500MB}\n"
        "online_store: {type: sqlite, path: online.db}\nentity_key_serialization_version: 3\n"
    )
    city = feast.Entity(name="city", join_keys=["city"], value_type=feast.ValueType.STRING)
    weather = feast.FeatureView(
        name="weather",
        entities=[city],
        ttl=timedelta(hours=2),
        schema=[feast.Field(name="temp", dtype=Float64)],
        source=feast.FileSource(path=str(repo / "weather.parquet"), timestamp_field="time"),
    )
    feast.FeatureStore(repo_path=str(repo)).apply(
        [city, weather, feast.FeatureService(name="app_v1", features=[weather])]
    )
    return repo


@pytest.fixture
def home(applied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three months of examples, of which March has no targets yet."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_FEAST_DEFAULT",
        json.dumps({"conn_type": "feast", "extra": {"repo_path": str(applied)}}),
    )
    for month in (1, 2, 3):
        land(tmp_path, month, known=month < 3)
    return tmp_path


def land(home: Path, month: int, *, known: bool = True, columns: str = "*") -> None:
    (home / "examples").mkdir(exist_ok=True)
    file = home / "examples" / f"2024-{month:02}.parquet"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        connection.execute(
            f"COPY (SELECT {columns} FROM (SELECT i AS id, TIMESTAMP '2024-01-01' + to_minutes(i * {1440 // DAILY}) AS asked, "
            "CASE i % 4 WHEN 0 THEN 'A' WHEN 1 THEN 'B' WHEN 2 THEN 'nowhere' END AS city, i % 7 AS size, "
            f"CASE WHEN {known} THEN i % 2 END AS late, CASE WHEN {known} THEN asked + INTERVAL 1 DAY END AS known "
            f"FROM range({DAYS * DAILY}) t(i)) WHERE month(asked) = {month}) TO '{file}' (FORMAT parquet)"
        )


def operator(home: Path, **changes: Any) -> ProvisionDatasetOperator:
    given: dict[str, Any] = {
        "task_id": "provision",
        "application": "app",
        "store": str(home / "store"),
        "examples": {**EXAMPLES, "folder": str(home)},
        "features": "app_v1",
        "split": SPLIT,
    }
    return ProvisionDatasetOperator(**{**given, **changes})


def provision(home: Path, **changes: Any) -> dict[str, Any]:
    result = operator(home, **changes).execute({})
    return json.loads(json.dumps(result))


def rows_of(result: dict[str, Any], split: str) -> list[dict[str, Any]]:
    datasets = DatasetStore(open_store(result["store"]), result["application"])
    return [
        row
        for path in datasets.paths(result["dataset_id"], split, Path("unused"))
        for row in pq.read_table(path).to_pylist()
    ]


def published(home: Path) -> list[str]:
    return [key for key in FileStore(home / "store").list() if "/manifests/" in key or "/refs/" in key]


def test_a_training_set_is_published_whole(home):
    result = provision(home)
    rows = [row for split in result["splits"] for row in rows_of(result, split)]
    assert [row["id"] for row in rows] == list(range(600))  # January and February, in order, none lost
    assert result["rows"] == 600
    assert result["splits"] == {"train": 420, "validation": 90, "test": 90}
    assert result["created"] is True
    for row in rows:
        hour = int((row["asked"] - START).total_seconds() // 3600)
        assert row["temp"] == (hour if row["city"] in ("A", "B") else None)
    datasets = DatasetStore(FileStore(home / "store"), "app")
    manifest = datasets.manifest(result["dataset_id"])
    assert datasets.resolve("latest") == manifest.id
    assert [(column.name, column.role) for column in manifest.columns] == [
        ("id", "key"),
        ("asked", "timestamp"),
        ("city", "input"),
        ("size", "input"),
        ("temp", "feature"),
        ("late", "target"),
        ("known", "known_at"),
    ]
    assert manifest.columns[4].reference == "weather:temp"
    assert manifest.columns[1].type == "timestamp[us, tz=UTC]"
    assert [(chunk.split, chunk.start[:7]) for chunk in manifest.chunks] == [
        ("train", "2024-01"),
        ("train", "2024-02"),
        ("validation", "2024-02"),
        ("test", "2024-02"),
    ]
    for chunk in manifest.chunks:
        assert (
            logical_digest(pq.read_table(datasets.store.path(datasets.chunk_key(chunk.digest))))
            == chunk.digest
        )


def test_the_same_inputs_are_the_same_version(home):
    first = provision(home)
    stored = FileStore(home / "store").list("app/datasets/chunks")
    again = provision(home)
    assert again == {**first, "created": False}
    assert FileStore(home / "store").list("app/datasets/chunks") == stored
    elsewhere = provision(home, store=str(home / "other"))
    assert elsewhere["dataset_id"] == first["dataset_id"]
    one, other = FileStore(home / "store"), FileStore(home / "other")
    assert [one.read(key) for key in stored] == [other.read(key) for key in stored]


def test_a_new_month_makes_a_new_version_that_shares_what_did_not_change(home):
    first = provision(home, split=None)
    before = set(FileStore(home / "store").list("app/datasets/chunks"))
    land(home, 3)
    second = provision(home, split=None)
    assert second["dataset_id"] != first["dataset_id"]
    assert second["rows"] == DAYS * DAILY
    after = set(FileStore(home / "store").list("app/datasets/chunks"))
    assert before < after
    assert len(after - before) == 1


def test_a_prediction_takes_what_has_no_target_yet(home):
    trained = provision(home)
    result = provision(home, purpose="prediction", window_start=trained["window"][1], split=None)
    assert result["splits"] == {"predict": DAYS * DAILY - 600}
    assert result["window"] == [trained["window"][1], "2024-03-30T21:36:00+00:00"]
    rows = rows_of(result, "predict")
    assert [row["id"] for row in rows] == list(range(600, DAYS * DAILY))
    assert list(rows[0]) == ["id", "asked", "city", "size", "temp"]
    datasets = DatasetStore(FileStore(home / "store"), "app")
    assert datasets.resolve("latest") == trained["dataset_id"]
    assert datasets.resolve("latest-prediction") == result["dataset_id"]
    with pytest.raises(AirflowSkipException, match="no example after 2024-03-30"):
        provision(home, purpose="prediction", window_start=result["window"][1], when_empty="skip")


def test_the_window_ends_with_the_newest_known_target(home):
    result = provision(home, window="10d")
    assert result["window"] == ["2024-02-19T21:36:00+00:00", "2024-02-29T21:36:00+00:00"]
    assert result["rows"] == 100


def test_no_features_need_no_feature_store(home, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_FEAST_DEFAULT")
    result = provision(home, features=None)
    assert result["rows"] == 600
    assert "temp" not in rows_of(result, "test")[0]


def test_an_empty_window_fails_for_good_and_names_what_there_is(home):
    with pytest.raises(AirflowFailException) as caught:
        provision(home, window_start="2024-03-01T00:00:00+00:00")
    assert "after 2024-03-01T00:00:00+00:00" in str(caught.value)
    assert "newest example 2024-03-30T21:36:00+00:00" in str(caught.value)
    assert "read_parquet('examples/*.parquet')" in str(caught.value)
    assert published(home) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": "app_v2"}, r"no feature service 'app_v2' .*did you mean 'app_v1'\?"),
        (
            {"examples": {**EXAMPLES, "targets": ["latte"]}},
            r"lack the column\(s\) latte; .* did you mean 'late'",
        ),
        (
            {"examples": {**EXAMPLES, "sql": "SELECT id, asked, late, known FROM 'examples/*.parquet'"}},
            "is joined by city",
        ),
        (
            {"examples": {**EXAMPLES, "sql": EXAMPLES["sql"].replace("size,", "size AS temp,")}},
            "temp .*name of a column",
        ),
        (
            {"examples": {**EXAMPLES, "sql": EXAMPLES["sql"].replace("examples/", "exmples/")}},
            "no file at .*exmples",
        ),
        ({"store": "s3://bucket"}, "s3:// stores come later"),
        ({"window": "a year"}, "window 'a year'"),
        ({"split": {"train": 0.7}}, "sum to 1"),
    ],
)
def test_what_cannot_work_fails_for_good(home, changes, message):
    if "examples" in changes:
        changes = {"examples": {**changes["examples"], "folder": str(home)}}
    with pytest.raises(AirflowFailException, match=message):
        provision(home, **changes)
    assert published(home) == []


ALL_COLUMNS = [
    {**EXAMPLES, "sql": "SELECT * FROM read_parquet('examples/*.parquet')"},
    {**{key: value for key, value in EXAMPLES.items() if key != "sql"}, "parquet": "examples/*.parquet"},
]


@pytest.mark.parametrize("month", [1, 2])
@pytest.mark.parametrize("examples", [EXAMPLES, *ALL_COLUMNS], ids=["named", "star", "files"])
def test_a_month_that_lacks_a_column_is_named(home, month, examples):
    land(home, month, columns="* EXCLUDE (size)")
    with pytest.raises(AirflowFailException, match=rf"SourceError: .*2024-0{month}.parquet lacks size"):
        provision(home, examples={**examples, "folder": str(home)})
    assert published(home) == []


def test_a_column_may_be_missing_where_the_query_says_so(home):
    land(home, 1, columns="* EXCLUDE (size)")
    sql = "SELECT * FROM read_parquet('examples/*.parquet', union_by_name=true)"
    result = provision(home, examples={**EXAMPLES, "sql": sql, "folder": str(home)})
    assert {row["size"] for row in rows_of(result, "train") if row["asked"].month == 1} == {None}


def test_broken_assumptions_stop_the_dataset_and_leave_a_report(home):
    rules = [
        {"column": "city", "one_of": ["A", "B"]},
        {"column": "temp", "max_null_share": 0.1},
        {"column": "size", "between": [0, 3], "severity": "warn"},
        {"unique": ["id"]},
    ]
    with pytest.raises(AirflowFailException) as caught:
        provision(home, assumptions=rules)
    message = str(caught.value)
    assert "2 of 4 assumption(s) about the data of 'app' do not hold" in message
    assert "city: expected one of A, B, observed 150 of 600 rows have another value e.g. {'id': 2" in message
    assert "temp: expected nulls ≤ 0.1, observed 300 of 600 rows null (0.5)" in message
    assert published(home) == []
    (key,) = FileStore(home / "store").list("app/datasets/assumptions/")
    report = FileStore(home / "store").read_json(key)
    assert [finding["passed"] for finding in report["findings"]] == [False, False, False, True]
    assert [row["id"] for row in report["findings"][1]["examples"]] == [2, 3, 6, 7, 10]
    assert key.rpartition("/")[2] in message


def test_a_warning_is_recorded_and_does_not_stop(home):
    result = provision(
        home, assumptions=[{"column": "size", "between": [0, 3], "severity": "warn"}, {"min_rows": 1}]
    )
    manifest = DatasetStore(FileStore(home / "store"), "app").manifest(result["dataset_id"])
    assert [(found["rule"], found["passed"]) for found in manifest.assumptions] == [
        ("between", False),
        ("min_rows", True),
    ]


@pytest.mark.parametrize("step", ["chunks", "manifests"])
def test_a_death_in_the_middle_leaves_no_version_and_the_next_try_makes_it(home, monkeypatch, step):
    real = FileStore.put_if_absent

    def die(self, key, data):
        if f"/{step}/" in key and (step != "chunks" or self.list("app/datasets/chunks/")):
            raise KeyboardInterrupt
        return real(self, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "put_if_absent", die)
        with pytest.raises(KeyboardInterrupt):
            provision(home)
    assert published(home) == []
    assert DatasetStore(FileStore(home / "store"), "app").resolve("latest") is None
    assert FileStore(home / "store").list("app/datasets/chunks/") != []
    result = provision(home)
    assert result["created"] is True
    assert len(rows_of(result, "train")) == 420


def test_what_may_succeed_later_is_tried_again(home, monkeypatch):
    def conflict(*_: Any) -> None:
        raise StoreConflictError("somebody else wrote first")

    monkeypatch.setattr(FileStore, "compare_and_set", conflict)
    with pytest.raises(AirflowException, match="StoreConflictError: somebody") as caught:
        provision(home)
    assert not isinstance(caught.value, AirflowFailException)
