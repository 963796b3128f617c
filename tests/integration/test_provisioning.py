"""The operator against a real Feast repository and a real store."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from airflow_mlops.exceptions import StoreConflictError
from airflow_mlops.hooks.feast.hook import FeastHook, _import_feast
from airflow_mlops.hooks.store.files import FileStore
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.jobs.files import column_config
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.datasets.split import SplitDatasetOperator
from airflow_mlops.primitives.datasets.digest import logical_digest
from airflow_mlops.primitives.datasets.examples import Examples
from airflow_mlops.primitives.datasets.retention import Keep, RetentionRule
from airflow_mlops.stores.datasets.retention import Pruning
from airflow_mlops.stores.datasets.versions import DatasetStore

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
        "offline_store: {type: airflow_mlops.AsofOfflineStore, memory_limit: 500MB}\n"
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


def test_folders_whose_names_look_like_partitions_make_no_other_version(home):
    examples = {**EXAMPLES, "sql": EXAMPLES["sql"].replace("*.parquet", "*/*/*.parquet")}
    made = []
    for folder in ("a/b", "size=7/env=prod", "late=true/city=Z"):
        below = home / f"at={len(made)}"
        (below / "examples" / folder).mkdir(parents=True)
        for file in (home / "examples").iterdir():
            shutil.copy(file, below / "examples" / folder)
        made.append(provision(home, examples={**examples, "folder": str(below)}))
    assert len({result["dataset_id"] for result in made}) == 1
    assert [result["created"] for result in made] == [True, False, False]
    assert {row["size"] for row in rows_of(made[-1], "train")} == set(range(7))


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
        ({"store": "gs://bucket"}, "StoreError: store .gs://bucket"),
        ({"window": "a year"}, "window 'a year'"),
        ({"split": {"train": 0.7, "test": 0.5}}, r"train \+ validation \+ test = 1"),
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
    real, chunk = FileStore.put_if_absent, itertools.count()

    def die(self, key, data):
        if f"/{step}/" in key and (step != "chunks" or next(chunk)):
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


def datasets_of(home: Path) -> DatasetStore:
    return DatasetStore(FileStore(home / "store"), "app")


def commit_of(home: Path, result: dict[str, Any]) -> dict[str, Any]:
    return datasets_of(home).commits(result["dataset_id"])[0]


class TestSplits:
    @pytest.mark.parametrize(
        "split",
        [
            {"by": "hash", "train": 0.7, "validation": 0.15, "test": 0.15, "folds": 3},
            {"by": "group", "key": ["city"], "train": 0.5, "test": 0.5},
            {"by": "hash", "train": 0.7, "validation": 0.15, "test": 0.15, "stratify": "late"},
            {"by": "time", "train": 0.8, "test": 0.2, "gap": "2d", "folds": 4},
        ],
        ids=["hash", "group", "stratified", "rolling"],
    )
    def test_every_row_is_in_one_file_of_its_split(self, home, split):
        result = provision(home, split=split)
        manifest = datasets_of(home).manifest(result["dataset_id"])
        ids = [row["id"] for name in result["splits"] for row in rows_of(result, name)]
        assert len(set(ids)) == len(ids) == result["rows"] == 600 - manifest.split["dropped"]
        for chunk in manifest.chunks:
            table = pq.read_table(datasets_of(home).store.path(datasets_of(home).chunk_key(chunk.digest)))
            assert "__split" not in table.column_names
            times = table["asked"].to_pylist()
            assert times == sorted(times)
            assert (len({(time.year, time.month) for time in times}), len(times)) == (1, chunk.rows)
        assert len(manifest.folds) == split.get("folds", 0)
        for fold in manifest.folds:
            assert fold["train"]
            assert fold["validation"]
            if split["by"] == "time":
                assert max(chunk.end for chunk in fold["train"]) < min(
                    chunk.start for chunk in fold["validation"]
                )

    def test_nobody_changes_sides_when_a_month_comes_in(self, home):
        split = {"by": "hash", "train": 0.7, "validation": 0.15, "test": 0.15}
        before = provision(home, split=split)
        land(home, 3)
        after = provision(home, split=split)
        sides = [
            {row["id"]: name for name in result["splits"] for row in rows_of(result, name)}
            for result in (before, after)
        ]
        assert len(sides[1]) == 900
        assert {key: sides[1][key] for key in sides[0]} == sides[0]

    def test_the_column_that_says_the_split_is_no_input(self, home):
        sql = EXAMPLES["sql"].replace(
            "size,", "size, CASE WHEN id < 400 THEN 'train' ELSE 'test' END AS part,"
        )
        result = provision(
            home,
            examples={**EXAMPLES, "sql": sql, "folder": str(home)},
            split={"by": "column", "column": "part"},
        )
        assert result["splits"] == {"train": 400, "test": 200}
        manifest = datasets_of(home).manifest(result["dataset_id"])
        assert manifest.model_inputs == ("city", "size", "temp")
        assert column_config(manifest)["features"] == ["city", "size", "temp"]

    def test_a_frozen_test_stays_the_test(self, home):
        split = {"by": "hash", "train": 0.7, "validation": 0.15, "test": 0.15}
        first = provision(home, split=split)
        land(home, 3)
        frozen = provision(home, split={**split, "freeze": first["dataset_id"][:10]})
        tested = [[row["id"] for row in rows_of(result, "test")] for result in (first, frozen)]
        assert tested[0] == tested[1]
        assert frozen["rows"] == 900
        # Frozen by its own outcome the question is the same, and so is the version.
        again = provision(home, split={**split, "freeze": "latest"})
        assert (again["dataset_id"], again["created"]) == (frozen["dataset_id"], False)

    def test_the_version_whose_test_is_frozen_outlives_its_time(self, home):
        split = {"by": "hash", "train": 0.7, "validation": 0.15, "test": 0.15}
        first = provision(home, split=split)
        given = {"split": {**split, "freeze": first["dataset_id"][:8]}, "features": None}
        second = provision(home, **given)
        assert commit_of(home, second)["frozen"] == first["dataset_id"]
        later = Pruning(datasets_of(home), now=datetime.now(UTC) + timedelta(days=400))
        nothing = RetentionRule(Keep(0, timedelta(0)), Keep(0, timedelta(0)))
        assert later.prune(nothing, {}, dry_run=False).versions == ()
        land(home, 3)
        assert provision(home, **given)["splits"]["test"] == first["splits"]["test"]
        assert later.prune(nothing, {}, dry_run=False).versions == (second["dataset_id"],)

    @pytest.mark.parametrize(
        ("split", "message"),
        [
            (
                {"by": "time", **{k: v for k, v in SPLIT.items() if k not in ("by", "gap")}, "gap": "60d"},
                "would be empty",
            ),
            ({"by": "hash", "train": 0.9999, "test": 0.0001}, "split 'test' would be empty: 600 example"),
            (
                {"by": "group", "key": ["temp"], "train": 0.5, "test": 0.5},
                "no column temp among the examples",
            ),
            ({"by": "hash", "train": 0.5, "test": 0.5, "freeze": "nothing"}, "begins with 'nothing'"),
        ],
    )
    def test_what_cannot_be_divided_fails_for_good(self, home, split, message):
        with pytest.raises(AirflowFailException, match=message):
            provision(home, split=split)
        assert published(home) == []


class TestDividingAgain:
    def divide(self, home, **changes):
        given = {
            "task_id": "split",
            "application": "app",
            "store": str(home / "store"),
            "dataset": "latest",
            "line": "hashed",
            "split": {"by": "hash", "train": 0.7, "validation": 0.15, "test": 0.15, "folds": 2},
        }
        return json.loads(json.dumps(SplitDatasetOperator(**{**given, **changes}).execute({})))

    def test_it_gives_the_version_that_provisioning_would_have_given(self, home, monkeypatch):
        first = provision(home)
        monkeypatch.delenv("AIRFLOW_CONN_FEAST_DEFAULT")
        divided = self.divide(home)
        assert divided["rows"] == 600
        assert datasets_of(home).resolve("latest") == first["dataset_id"]
        assert datasets_of(home).resolve("hashed/latest") == divided["dataset_id"]
        assert commit_of(home, divided)["parents"] == [first["dataset_id"]]
        assert (
            self.divide(home, split=SPLIT, dataset=divided, line="back")["dataset_id"] == first["dataset_id"]
        )
        monkeypatch.undo()

    def test_provisioning_finds_it_again(self, home):
        provision(home)
        divided = self.divide(home)
        again = provision(
            home, split={"by": "hash", "train": 0.7, "validation": 0.15, "test": 0.15, "folds": 2}
        )
        assert (again["dataset_id"], again["created"]) == (divided["dataset_id"], False)

    def test_it_checks_what_it_is_told(self, home):
        provision(home)
        with pytest.raises(AirflowFailException, match="rows ≥ 1000, observed 600 rows"):
            self.divide(home, assumptions=[{"min_rows": 1000}])
        with pytest.raises(AirflowFailException, match="no column nope among"):
            self.divide(home, split={"by": "group", "key": ["nope"], "train": 0.5, "test": 0.5})


_ELSEWHERE = """
import sys
from pathlib import Path
from airflow_mlops.primitives.datasets.making.make import DatasetRequest, make_dataset
examples = {"parquet": "examples/*.parquet", "folder": sys.argv[1], "keys": ["id"], "timestamp": "asked",
            "targets": ["late"], "targets_known_at": "known"}
split = {"by": "hash", "key": ["city", "asked"], "train": 0.7, "validation": 0.15, "test": 0.15, "folds": 3}
request = DatasetRequest.parse(application="app", purpose="training", examples=examples, features=None, window="40d",
    window_start=None, window_end="2024-02-20T01:30", split=split, assumptions=[{"column": "size", "between": [0, 6]}])
print(make_dataset(request, None, Path(sys.argv[2]), lambda digest: False).manifest.id)
"""


def test_the_same_inputs_are_the_same_version_in_any_time_zone_and_locale(home, tmp_path):
    ids = set()
    for number, (zone, locale) in enumerate([("Asia/Kolkata", "C"), ("America/New_York", "de_DE.UTF-8")]):
        (tmp_path / f"scratch{number}").mkdir()
        words = [sys.executable, "-c", _ELSEWHERE, str(home), str(tmp_path / f"scratch{number}")]
        environment = {**os.environ, "TZ": zone, "LC_ALL": locale, "PYTHONHASHSEED": str(number)}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        ids.add(done.stdout.strip())
    assert len(ids) == 1
    assert len(ids.pop()) == 64


class TestLines:
    def test_another_line_leaves_production_alone(self, home):
        outlet = Asset(name="app.dataset", uri="mlops://app/dataset")
        task = operator(home, outlets=[outlet])
        first = task.execute({})
        assert task.outlets == [outlet]
        beside = operator(home, line="calm", features=None, outlets=[outlet])
        second = beside.execute({})
        assert beside.outlets == []  # what Airflow sends events for when the task has succeeded
        assert second["line"] == "calm"
        assert datasets_of(home).refs() == {
            "latest": first["dataset_id"],
            "calm/latest": second["dataset_id"],
        }
        assert [commit_of(home, result)["retention"] for result in (first, second)] == [
            "production",
            "experiment",
        ]

    @pytest.mark.parametrize("line", ["latest", "../x", "Main", ""])
    def test_what_is_no_line_is_refused(self, home, line):
        with pytest.raises(AirflowFailException, match="expected up to 63 lower-case"):
            provision(home, line=line)

    def test_the_commit_says_where_and_what_for(self, home):
        result = provision(home, code={"image": "app:2"})
        commit = commit_of(home, result)
        assert commit["where"] == {
            "folder": str(home),
            "feast_conn_id": "feast_default",
            "aws_conn_id": "aws_default",
        }
        assert (commit["line"], commit["rows"], commit["code"]) == ("main", 600, {"image": "app:2"})
        assert commit["findings"] == []
        without_image = provision(home, code={"image": ""}, line="calm")  # run_on: process
        assert "code" not in datasets_of(home).commits(without_image["dataset_id"])[0]


class TestFindingsOfTheRun:
    """What depends on clock or history is written down with the run, not in the version."""

    RULES = [{"rows_vs_previous": [0.9, 1.1], "severity": "warn"}]  # noqa: RUF012

    def test_the_same_rows_stay_the_same_version(self, home):
        plain = provision(home)
        checked = provision(home, assumptions=self.RULES)
        assert checked["dataset_id"] == plain["dataset_id"]
        (finding,) = datasets_of(home).commits(checked["dataset_id"])[0]["findings"]
        assert (finding["rule"], finding["passed"]) == ("rows_vs_previous", True)

    def test_rows_are_counted_against_the_last_versions_of_the_line(self, home):
        provision(home, assumptions=self.RULES)
        provision(home, line="calm", window="10d", assumptions=self.RULES)
        land(home, 3)
        result = provision(home, assumptions=self.RULES)
        (finding,) = commit_of(home, result)["findings"]
        assert not finding["passed"]
        assert "900" in finding["observed"]
        with pytest.raises(AirflowFailException, match="multiple of earlier versions"):
            provision(home, window="10d", assumptions=[{"rows_vs_previous": [0.9, 1.1]}])


class TestJoinedOnce:
    """Rows that a version holds are not joined again."""

    @pytest.fixture
    def joins(self, monkeypatch):
        """Feature services that were joined."""
        joined = []
        real = FeastHook.training_set

        def counted(self, service, *rest):
            joined.append(service)
            return real(self, service, *rest)

        monkeypatch.setattr(FeastHook, "training_set", counted)
        return joined

    HASHED = {"by": "hash", "train": 0.7, "validation": 0.15, "test": 0.15}  # noqa: RUF012

    def test_another_division_gives_the_same_version_with_and_without_a_join(self, home, joins):
        provision(home)
        taken = provision(home, split=self.HASHED, assumptions=[{"min_rows": 10}], line="calm")
        assert joins == ["app_v1"]
        fresh = provision(home, split=self.HASHED, assumptions=[{"min_rows": 10}], store=str(home / "other"))
        assert joins == ["app_v1"] * 2
        assert fresh["dataset_id"] == taken["dataset_id"]
        one, other = FileStore(home / "store"), FileStore(home / "other")
        for key in other.list("app/datasets/chunks/"):
            assert one.read(key) == other.read(key)

    def test_whoever_is_first_serves_the_other(self, home, joins):
        provision(home, split=self.HASHED)
        by_time = provision(home)
        assert joins == ["app_v1"]
        assert provision(home, store=str(home / "other"))["dataset_id"] == by_time["dataset_id"]

    @pytest.mark.parametrize(
        "change",
        [
            {"window": "20d"},
            {"window_end": "2024-02-20T00:00:00+00:00"},
            {"features": None},
            {"examples": {**EXAMPLES, "sql": EXAMPLES["sql"].replace("size,", "size * 2 AS size,")}},
        ],
        ids=["window", "end", "features", "query"],
    )
    def test_another_question_is_asked_anew(self, home, joins, change):
        provision(home)
        if "examples" in change:
            change = {"examples": {**change["examples"], "folder": str(home)}}
        changed = provision(home, line="calm", **change)
        assert len(joins) == (1 if "features" in change else 2)
        assert provision(home, store=str(home / "other"), **change)["dataset_id"] == changed["dataset_id"]

    def test_other_sources_are_joined_anew(self, home, joins):
        first = provision(home)
        land(home, 2, columns="* REPLACE (size + 1 AS size)")
        second = provision(home, split=self.HASHED)
        assert joins == ["app_v1"] * 2
        assert second["dataset_id"] != first["dataset_id"]

    def test_rows_left_out_by_a_gap_are_not_there_to_be_taken(self, home, joins):
        assert provision(home, split={**SPLIT, "gap": "2d"})["rows"] < 600
        assert provision(home, split=self.HASHED)["rows"] == 600
        assert joins == ["app_v1"] * 2

    @pytest.mark.parametrize(
        "sql",
        ["now()", "current_timestamp", "random()", "getvariable('x')", "ago(INTERVAL 1 DAY)", "age(asked)"],
    )
    def test_a_query_that_may_answer_otherwise_is_asked_anew(self, home, joins, sql):
        examples = {**EXAMPLES, "sql": EXAMPLES["sql"].replace("size,", f"{sql} IS NULL AS odd, size,")}
        provision(home, examples={**examples, "folder": str(home)})
        provision(home, examples={**examples, "folder": str(home)})
        assert joins == ["app_v1"] * 2

    def test_rows_that_were_removed_are_joined_anew(self, home, joins):
        first = provision(home)
        store = FileStore(home / "store")
        chunk = next(key for key in store.list("app/datasets/chunks/"))
        store.path(chunk).unlink()
        second = provision(home, split=self.HASHED, line="calm")
        assert joins == ["app_v1"] * 2
        assert second["rows"] == 600
        assert provision(home)["dataset_id"] == first["dataset_id"]  # and the chunk is there again
        assert store.exists(chunk)

    def test_rows_that_were_damaged_are_joined_anew(self, home, joins):
        provision(home)
        store = FileStore(home / "store")
        chunk = store.path(next(key for key in store.list("app/datasets/chunks/")))
        table = pq.read_table(chunk)
        changed = pc.add(table.column("size"), 1).cast(table.schema.field("size").type)
        table = table.set_column(table.column_names.index("size"), "size", changed)
        chunk.chmod(0o644)
        pq.write_table(table, chunk)
        taken = provision(home, split=self.HASHED, line="calm")
        assert joins == ["app_v1"] * 2
        fresh = provision(home, split=self.HASHED, store=str(home / "other"))
        assert taken["dataset_id"] == fresh["dataset_id"]

    def test_rows_of_a_file_that_was_rewritten_meanwhile_are_neither_published_nor_kept(
        self, home, joins, monkeypatch
    ):
        real = Examples.pins

        def pinned_too_early(examples):
            pins = real(examples)
            land(home, 2, columns="* REPLACE (size + 1 AS size)")
            return pins

        with monkeypatch.context() as patch:
            patch.setattr(Examples, "pins", pinned_too_early)
            with pytest.raises(AirflowException, match="changed while it was read"):
                provision(home)
        assert published(home) == []
        assert provision(home)["dataset_id"] == provision(home, store=str(home / "other"))["dataset_id"]


class TestBadInput:
    def test_a_source_without_rows_is_empty(self, home):
        with pytest.raises(AirflowFailException, match="it gives no example at all"):
            provision(
                home, examples={**EXAMPLES, "sql": f"{EXAMPLES['sql']} WHERE false", "folder": str(home)}
            )

    def test_a_truncated_file_is_named(self, home):
        file = home / "examples" / "2024-02.parquet"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(AirflowFailException, match=r"2024-02.parquet"):
            provision(home)
        assert published(home) == []

    def test_a_type_that_changed_in_one_file_is_named(self, home):
        land(home, 2, columns="* REPLACE ('many' AS size)")
        with pytest.raises(AirflowFailException, match=r"2024-02.parquet: size is string instead of"):
            provision(home)

    def test_an_example_of_the_future_moves_no_window(self, home):
        first = provision(home)
        sql = f"{EXAMPLES['sql']} UNION ALL SELECT 9999, TIMESTAMP '2099-01-01', 'A', 1, 1, TIMESTAMP '2024-02-01'"
        second = provision(home, examples={**EXAMPLES, "sql": sql, "folder": str(home)})
        assert second["window"] == first["window"]
        assert second["rows"] == 600

    def test_a_full_disk_says_where_room_is_needed(self, home, tmp_path, monkeypatch):
        from airflow_mlops.primitives.datasets.making import make as dataset

        real = dataset.connect

        def small(spill, memory):
            connection = real(spill, "60MB")
            connection.execute("SET max_temp_directory_size='1MB'; SET threads=1")
            return connection

        monkeypatch.setattr(dataset, "connect", small)
        sql = (
            "SELECT i AS id, TIMESTAMP '2024-01-01' + to_seconds(i) AS asked, repeat(md5(i::VARCHAR), 20) AS text, "
            "1 AS late, asked + INTERVAL 1 SECOND AS known FROM range(200_000) t(i)"
        )
        with pytest.raises(AirflowFailException, match=r"more memory or disk than there is: .*set TMPDIR"):
            provision(home, examples={**EXAMPLES, "sql": sql, "folder": str(home)}, features=None)
        assert published(home) == []

    def test_two_runs_of_one_window_at_once_make_one_version(self, home):
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda _: provision(home), range(2)))
        assert results[0]["dataset_id"] == results[1]["dataset_id"]
        assert Counter(result["created"] for result in results) == {True: 1, False: 1}
        assert len(published(home)) == 2  # one manifest, one reference
