"""A dataset version can be had again: fetched byte by byte, and made again from its sources; on files and on S3."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.cli import main
from airflow_mlops.hooks.feast.connection.session import import_feast
from airflow_mlops.hooks.feast.hook import FeastHook
from airflow_mlops.hooks.sources.examples import AirflowSources
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.datasets.split import SplitDatasetOperator
from airflow_mlops.primitives.datasets.making.finish import Facts
from airflow_mlops.primitives.datasets.making.make import DatasetRequest, make_dataset
from airflow_mlops.stores.datasets.versions import DatasetStore

START = datetime(2024, 1, 1, tzinfo=UTC)
SPLIT = {"by": "time", "train": 0.6, "validation": 0.2, "test": 0.2, "gap": "1h"}


def examples(month: int, **changed: Any) -> pa.Table:
    """Examples of a month, four a day; the target is known a day later."""
    days = 31 if month == 1 else 29
    first = 0 if month == 1 else 31
    numbers = range(first * 4, (first + days) * 4)
    times = [START + timedelta(hours=6 * n) for n in numbers]
    columns = {
        "id": pa.array(numbers, pa.int64()),
        "asked": pa.array(times, pa.timestamp("us", "UTC")),
        "city": ["AB"[n % 2] for n in numbers],
        "size": pa.array([n % 7 for n in numbers], pa.int64()),
        "late": pa.array([n % 3 == 0 for n in numbers]),
        "known": pa.array([time + timedelta(days=1) for time in times], pa.timestamp("us", "UTC")),
    }
    return pa.table(columns | changed)


def weather(month: int, offset: float = 0.0) -> pa.Table:
    """Hourly weather of two cities, known ten minutes later."""
    first, hours = (0, 31 * 24) if month == 1 else (31 * 24, 29 * 24)
    rows = [(city, first + hour) for hour in range(hours) for city in "AB"]
    times = [START + timedelta(hours=hour) for _, hour in rows]
    return pa.table(
        {
            "city": [city for city, _ in rows],
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "made": pa.array([time + timedelta(minutes=10) for time in times], pa.timestamp("us", "UTC")),
            "temp": pa.array([hour + offset for _, hour in rows], pa.float64()),
        }
    )


@dataclass
class Files:
    """Sources and store in folders."""

    root: Path
    store: str = field(init=False)
    base: str = field(init=False)

    def __post_init__(self) -> None:
        self.store, self.base = str(self.root / "store"), str(self.root / "sources")

    def write(self, name: str, table: pa.Table, below: str = "sources") -> None:
        path = self.root / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)

    def delete(self, name: str) -> None:
        (self.root / "sources" / name).unlink()

    def back_up(self) -> str:
        """Copy the sources elsewhere, and remove them."""
        shutil.copytree(self.root / "sources", self.root / "backup" / "of" / "2024")
        shutil.rmtree(self.root / "sources")
        return str(self.root / "backup")


@dataclass
class Bucket:
    """Sources and store on S3."""

    client: Any
    bucket: str
    store: str = field(init=False)
    base: str = field(init=False)

    def __post_init__(self) -> None:
        self.store, self.base = f"s3://{self.bucket}/store", f"s3://{self.bucket}/sources"

    def write(self, name: str, table: pa.Table, below: str = "sources") -> None:
        target = io.BytesIO()
        pq.write_table(table, target)
        self.client.put_object(Bucket=self.bucket, Key=f"{below}/{name}", Body=target.getvalue())

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"sources/{name}")

    def back_up(self) -> str:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix="sources/")["Contents"]
        for entry in found:
            key = entry["Key"]
            body = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            self.client.put_object(
                Bucket=self.bucket, Key=f"backup/{key.removeprefix('sources/')}", Body=body
            )
            self.client.delete_object(Bucket=self.bucket, Key=key)
        return f"s3://{self.bucket}/backup"


Place = Files | Bucket


@pytest.fixture(params=["files", "s3"])
def place(request, tmp_path) -> Place:
    if request.param == "files":
        return Files(tmp_path)
    bucket = request.getfixturevalue("s3_bucket")
    return Bucket(request.getfixturevalue("s3_server").client(), bucket)


@pytest.fixture
def world(place, tmp_path, monkeypatch) -> Place:
    """Two months of examples and of weather, and a Feast repository that knows the weather."""
    for month in (1, 2):
        place.write(f"examples/2024-{month:02}.parquet", examples(month))
        place.write(f"weather/2024-{month:02}.parquet", weather(month))
    apply_feast(tmp_path / "repo", f"{place.base}/weather", isinstance(place, Bucket))
    connection = {"conn_type": "feast", "extra": {"repo_path": str(tmp_path / "repo")}}
    monkeypatch.setenv("AIRFLOW_CONN_FEAST_DEFAULT", json.dumps(connection))
    return place


def apply_feast(repo: Path, path: str, far: bool) -> None:
    feast = import_feast()
    from feast.types import Float64

    repo.mkdir()
    aws = ", aws_conn_id: aws_default" if far else ""
    (repo / "feature_store.yaml").write_text(
        f"project: app\nprovider: local\nregistry: {{registry_type: sql, path: 'sqlite:///{repo}/registry.db'}}\n"
        f"offline_store: {{type: airflow_mlops.AsofOfflineStore, memory_limit: 500MB{aws}}}\n"
        "online_store: {type: sqlite, path: online.db}\nentity_key_serialization_version: 3\n"
    )
    city = feast.Entity(name="city", join_keys=["city"], value_type=feast.ValueType.STRING)
    view = feast.FeatureView(
        name="weather",
        entities=[city],
        ttl=timedelta(hours=2),
        schema=[feast.Field(name="temp", dtype=Float64)],
        source=feast.FileSource(path=path, timestamp_field="time", created_timestamp_column="made"),
    )
    feast.FeatureStore(repo_path=str(repo)).apply(
        [city, view, feast.FeatureService(name="app_v1", features=[view])]
    )


def provision(
    place: Place, tmp_path: Path, *, features: str | None = "app_v1", where: bool = True, **changes: Any
) -> str:
    """Publish a version of what there is now; its id."""
    given: dict[str, Any] = {
        "sql": f"SELECT * FROM read_parquet('{place.base}/examples/*.parquet')",
        "keys": ["id"],
        "timestamp": "asked",
        "targets": ["late"],
        "targets_known_at": "known",
    }
    datasets = DatasetStore(open_store(place.store), "app")
    request = DatasetRequest.parse(
        application="app",
        purpose="training",
        examples={**given, **changes.pop("examples", {})},
        features=features,
        window=changes.pop("window", None),
        window_start=None,
        window_end=changes.pop("window_end", None),
        split=changes.pop("split", SPLIT),
        assumptions=[{"column": "size", "between": [0, 6]}, {"min_rows": 10}],
    )
    frozen = changes.pop("frozen", None)
    assert not changes
    scratch = tmp_path / f"scratch-{datetime.now(UTC).timestamp()}"
    scratch.mkdir()
    built = make_dataset(
        request,
        FeastHook(),
        scratch,
        lambda _digest: False,
        sources=AirflowSources(),
        facts=Facts(frozen=tuple(datasets.paths(frozen, "test", scratch / "test"))) if frozen else None,
    )
    commit: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(),
        "libraries": {"duckdb": duckdb.__version__},
    }
    if where:
        commit["where"] = {
            "folder": str(tmp_path),
            "feast_conn_id": "feast_default",
            "aws_conn_id": "aws_default",
        }
    datasets.publish(built.manifest, built.files, commit)
    return built.manifest.id


@pytest.fixture
def dataset(capsys) -> Callable[..., tuple[int, Any]]:
    """Run ``airflow-mlops dataset … --json``: exit code and answer."""

    def run(place: Place, action: str, *words: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main(["dataset", action, *words, "--store", place.store, "--application", "app", "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.parquet"))
    }


def spoil(place: Place) -> None:
    """Overwrite a source, append to one, delete one."""
    place.write("examples/2024-01.parquet", examples(1, size=pa.array([99] * 124, pa.int64())))
    place.write("weather/2024-01.parquet", pa.concat_tables([weather(1), weather(2, offset=7.0)]))
    place.delete("examples/2024-02.parquet")


def test_a_version_outlives_its_sources(world, tmp_path, dataset):
    version = provision(world, tmp_path)
    code, first = dataset(world, "fetch", version[:10], str(tmp_path / "before"))
    assert code == 0
    assert first["rows"] == {"train": 144, "validation": 48, "test": 48}
    spoil(world)
    code, again = dataset(world, "fetch", "latest", str(tmp_path / "after"))
    assert (code, again["dataset_id"], again["rows"]) == (0, version, first["rows"])
    assert digests(tmp_path / "after") == digests(tmp_path / "before")
    assert [path.parts[0] for path in map(Path, digests(tmp_path / "after"))].count("train") == 2
    code, damage = dataset(world, "verify", version)
    assert (code, damage) == (0, {version: []})
    assert version[:12] in (tmp_path / "after" / "README.md").read_text()


def test_a_version_is_made_again_from_its_sources(world, tmp_path, dataset):
    version = provision(world, tmp_path)
    # What came later, even between the pinned files, is not part of it.
    world.write("examples/2024-01-15.parquet", examples(2, id=pa.array(range(9000, 9116))))
    world.write("weather/2024-00.parquet", weather(1, offset=100.0))
    code, found = dataset(world, "rebuild", version, "--into", str(tmp_path / "again"))
    assert (code, found["rebuilt_id"], found["problem"]) == (0, version, None)
    assert {source["state"] for source in found["sources"]} == {"same"}
    assert [source["file"] for source in found["sources"]] == ["2024-01.parquet", "2024-02.parquet"] * 2
    dataset(world, "fetch", version, str(tmp_path / "stored"))
    assert digests(tmp_path / "again") == digests(tmp_path / "stored")


def test_sources_that_were_restored_elsewhere_give_the_same_version(world, tmp_path, dataset, monkeypatch):
    version = provision(world, tmp_path, where=False)
    backup = world.back_up()
    code, lost = dataset(world, "rebuild", version)
    assert code == 1
    assert "all pinned files are gone" in lost["problem"]
    assert {source["state"] for source in lost["sources"]} == {"gone"}
    assert any(f"at {world.base}/examples/*.parquet" in note for note in lost["notes"])
    monkeypatch.delenv("AIRFLOW_CONN_FEAST_DEFAULT")  # the registry is not needed
    code, found = dataset(world, "rebuild", version, "--folder", backup)
    assert (code, found["identical"], found["rebuilt_id"]) == (0, True, version)
    assert all(source["place"].startswith(backup) for source in found["sources"])


def test_what_differs_is_said_exactly(world, tmp_path, dataset):
    version = provision(world, tmp_path)
    sizes = [n % 7 for n in range(124)]
    sizes[8] = 6
    world.write("examples/2024-01.parquet", examples(1, size=pa.array(sizes, pa.int64())))
    world.delete("weather/2024-02.parquet")
    code, found = dataset(world, "rebuild", version)
    assert (code, found["identical"], found["same_rows"]) == (1, False, False)
    states = {(source["of"], source["file"]): source["state"] for source in found["sources"]}
    assert states == {
        ("examples", "2024-01.parquet"): "changed",
        ("examples", "2024-02.parquet"): "same",
        ("view:weather", "2024-01.parquet"): "same",
        ("view:weather", "2024-02.parquet"): "gone",
    }
    rows = found["difference"]["rows"]
    assert [rows[kind]["rows"] for kind in ("added", "removed", "moved")] == [0, 0, 0]
    # One example of January, and all of February without its weather but for the two hours that January's serves.
    assert rows["changed"]["columns"]["size"] == 1
    assert rows["changed"]["columns"]["temp"] > 100
    first = rows["changed"]["examples"][0]
    assert (first["keys"]["id"], first["values"]) == (8, {"size": [1, 6]})
    assert [pin["file"] for pin in found["difference"]["pins"]["removed"]] == ["2024-02.parquet"]
    assert len(found["chunks"]["lost"]) == len(found["chunks"]["new"]) == 4


def test_the_text_says_the_same(world, tmp_path, capsys):
    version = provision(world, tmp_path)
    words = ["--store", world.store, "--application", "app"]
    assert main(["dataset", "rebuild", version[:8], *words]) == 0
    assert "Identical: 240 rows in 4 chunk(s), and the same id." in capsys.readouterr().out
    world.delete("examples/2024-02.parquet")
    assert main(["dataset", "rebuild", version[:8], *words]) == 1
    out = capsys.readouterr().out
    assert "GONE     examples 2024-02.parquet" in out
    assert "Not identical" in out
    assert "- 116 removed" in out


def test_a_bucket_with_versions_gives_overwritten_sources_back(s3_server, s3_bucket, tmp_path, dataset):
    place = Bucket(s3_server.client(), s3_bucket)
    place.client.put_bucket_versioning(Bucket=s3_bucket, VersioningConfiguration={"Status": "Enabled"})
    for month in (1, 2):
        place.write(f"examples/2024-{month:02}.parquet", examples(month))
    version = provision(place, tmp_path, features=None)
    place.write("examples/2024-01.parquet", examples(1, size=pa.array([5] * 124, pa.int64())))
    code, found = dataset(place, "rebuild", version)
    assert (code, found["rebuilt_id"]) == (0, version)
    assert len(found["notes"]) == 1
    assert "was overwritten; its version" in found["notes"][0]


def test_what_only_its_footer_tells_is_said(s3_server, s3_bucket, tmp_path, dataset):
    place, target = (
        Bucket(s3_server.client(), s3_bucket),
        {"Bucket": s3_bucket, "Key": "sources/examples/a.parquet"},
    )
    place.write("examples/a.parquet", examples(1))
    version = provision(place, tmp_path, features=None)
    whole = place.client.get_object(**target)["Body"].read()
    upload = {**target, "UploadId": place.client.create_multipart_upload(**target)["UploadId"]}
    part = place.client.upload_part(**upload, PartNumber=1, Body=whole)
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    place.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    code, found = dataset(place, "rebuild", version)
    assert (code, found["rebuilt_id"], found["sources"][0]["by_footer"]) == (0, version, True)
    assert "by its size and its Parquet footer alone" in found["notes"][0]


@pytest.mark.parametrize(
    "changes",
    [
        {"split": None},
        {"window": "20d"},
        {"window_end": "2024-02-10T00:00:00+00:00", "window": "30d"},
        {"split": {"by": "hash", "train": 0.7, "validation": 0.1, "test": 0.2, "seed": 3, "folds": 3}},
        {"split": {"by": "group", "key": "city", "train": 0.5, "test": 0.5}},
        {"split": {"by": "hash", "train": 0.7, "validation": 0.1, "test": 0.2, "stratify": "late"}},
        {"split": {**SPLIT, "folds": 2}},
        {"examples": {"sql": None, "parquet": "sources/examples/*.parquet"}},
        {
            "examples": {
                "sql": "SELECT * EXCLUDE x FROM read_parquet(['sources/examples/2024-0[12].parquet']), (SELECT 1 AS x)"
            }
        },
    ],
)
def test_every_rule_is_read_back_from_the_manifest(tmp_path, dataset, changes):
    place = Files(tmp_path)
    for month in (1, 2):
        place.write(f"examples/2024-{month:02}.parquet", examples(month))
    given = {"folder": str(tmp_path), **changes.pop("examples", {})}
    version = provision(place, tmp_path, features=None, examples=given, **changes)
    code, found = dataset(place, "rebuild", version)
    assert (code, found["problem"], found["difference"]) == (0, None, None)


def test_a_frozen_test_stays_frozen(tmp_path, dataset):
    place = Files(tmp_path)
    place.write("examples/2024-01.parquet", examples(1))
    split = {"by": "hash", "train": 0.6, "validation": 0.2, "test": 0.2}
    first = provision(place, tmp_path, features=None, split=split)
    place.write("examples/2024-02.parquet", examples(2))
    frozen = {"split": {**split, "freeze": first}, "frozen": first}
    second = provision(place, tmp_path, features=None, **frozen)
    assert second != first
    assert dataset(place, "rebuild", second)[1]["rebuilt_id"] == second
    # In a shorter window some frozen examples are missing, so that only the first version has all of them.
    third = provision(place, tmp_path, features=None, window="40d", **frozen)
    assert dataset(place, "rebuild", third)[1]["rebuilt_id"] == third


def test_a_frozen_test_is_not_one_of_as_many_rows(tmp_path, dataset, monkeypatch):
    place = Files(tmp_path)
    place.write("examples/2024-01.parquet", examples(1))
    split = {"by": "hash", "train": 0.6, "validation": 0.2, "test": 0.2}
    first = provision(place, tmp_path, features=None, split=split)
    rows = DatasetStore(open_store(place.store), "app").manifest(first).splits["test"]
    others = f"SELECT *, CASE WHEN id < {rows} THEN 'c' WHEN id % 2 = 0 THEN 'a' ELSE 'b' END AS part"
    values = {"train": "a", "validation": "b", "test": "c"}
    decoy = provision(
        place,
        tmp_path,
        features=None,
        split={"by": "column", "column": "part", "values": values},
        examples={"sql": f"{others} FROM read_parquet('{place.base}/examples/*.parquet')"},
    )
    assert DatasetStore(open_store(place.store), "app").manifest(decoy).splits["test"] == rows
    place.write("examples/2024-02.parquet", examples(2))
    frozen = {"split": {**split, "freeze": first}, "frozen": first}
    short = provision(place, tmp_path, features=None, window="40d", **frozen)
    # Ids are digests: whichever version is looked at first, the other one is tried next.
    for order in ([decoy, first], [first, decoy]):
        ids = [*order, short]
        monkeypatch.setattr(
            DatasetStore, "ids", lambda _, prefix="", ids=ids: [one for one in ids if one.startswith(prefix)]
        )
        code, found = dataset(place, "rebuild", short)
        assert (code, found["problem"], found["rebuilt_id"]) == (0, None, short)


def test_tables_are_read_at_the_version_that_was_pinned(tmp_path, dataset):
    deltalake = pytest.importorskip("deltalake")
    place, lake = Files(tmp_path), str(tmp_path / "lake")
    deltalake.write_deltalake(lake, examples(1))
    given = {
        "sql": "SELECT * FROM asked_for",
        "tables": {"asked_for": {"delta": "lake"}},
        "folder": str(tmp_path),
    }
    version = provision(place, tmp_path, features=None, examples=given)
    deltalake.write_deltalake(lake, examples(2), mode="append")
    deltalake.write_deltalake(lake, examples(2), mode="overwrite")
    code, found = dataset(place, "rebuild", version)
    assert (code, found["rebuilt_id"]) == (0, version)
    assert found["sources"] == [{"of": "table:asked_for", "pattern": "lake", "state": "same"}]
    deltalake.DeltaTable(lake).vacuum(0, enforce_retention_duration=False, dry_run=False)
    code, found = dataset(place, "rebuild", version)
    assert code == 1
    assert "version 0 cannot be read any more" in found["problem"]
    shutil.rmtree(lake)
    deltalake.write_deltalake(lake, examples(1))
    code, found = dataset(place, "rebuild", version)
    assert "is another table than the pinned one" in found["problem"]


def test_what_operators_made_is_made_again_from_where_they_found_it(tmp_path, monkeypatch, dataset):
    place = Files(tmp_path / "a, b")  # DuckDB's own search path would be two folders
    for month in (1, 2):
        place.write(f"examples/2024-{month:02}.parquet", examples(month))
        place.write(f"weather/2024-{month:02}.parquet", weather(month))
    apply_feast(place.root / "repo", "../sources/weather", far=False)
    connection = {"conn_type": "feast", "extra": {"repo_path": str(place.root / "repo")}}
    monkeypatch.setenv("AIRFLOW_CONN_FEAST_DEFAULT", json.dumps(connection))
    made = ProvisionDatasetOperator(
        task_id="provision",
        application="app",
        store=place.store,
        examples={
            "folder": str(place.root / "sources"),
            "sql": "SELECT * FROM 'examples/*.parquet' -- all of them",
            "keys": ["id"],
            "timestamp": "asked",
            "targets": ["late"],
            "targets_known_at": "known",
        },
        features="app_v1",
        split={**SPLIT, "gap": "2d"},
        assumptions=[{"column": "size", "between": [0, 6]}],
    ).execute({})
    code, found = dataset(place, "rebuild", made["dataset_id"])
    assert (code, found["problem"], found["rebuilt_id"]) == (0, None, made["dataset_id"])
    code, shown = dataset(place, "show", "latest")
    assert (code, shown["id"]) == (0, made["dataset_id"])
    divided = SplitDatasetOperator(
        task_id="split",
        application="app",
        store=place.store,
        dataset=made,
        split={"by": "hash", "train": 0.8, "test": 0.2, "folds": 2},
        line="experiment",
    ).execute({})
    assert divided["rows"] == made["rows"] < 240  # the gaps are gone for good
    code, found = dataset(place, "rebuild", divided["dataset_id"])
    assert (code, found["problem"], found["difference"]) == (0, None, None)
    code, found = dataset(place, "diff", made["dataset_id"], divided["dataset_id"])
    assert [found["rows"][kind]["rows"] for kind in ("added", "removed", "changed")] == [0, 0, 0]
    assert found["rows"]["moved"]["rows"] > 0
