"""All or nothing: writers that are killed at every step, and many at once, on files and on S3."""

from __future__ import annotations

import functools
import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from airflow_mlops.exceptions import StoreConflictError
from airflow_mlops.hooks.store import s3
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.primitives.datasets.retention import Keep, RetentionRule
from airflow_mlops.stores.datasets.damage import find_damage
from airflow_mlops.stores.datasets.retention import Pruning
from airflow_mlops.stores.datasets.versions import DatasetStore
from tests.fixtures.publisher import Publisher
from tests.fixtures.versions import Version, complete

KILLED, CREATED, FOUND_AGAIN, FAILED = -9, 10, 11, 1
NOTHING = RetentionRule(Keep(0, timedelta(0)), Keep(0, timedelta(0)))


@pytest.fixture(params=["files", "s3"])
def place(request, tmp_path, monkeypatch):
    """Gives the address of a new empty store for every number."""
    if request.param == "files":
        return lambda number: str(tmp_path / "stores" / str(number))
    bucket = request.getfixturevalue("s3_bucket")
    # One client for all stores: making one takes longer than a publication.
    monkeypatch.setattr(s3, "s3_client", functools.cache(s3.s3_client))
    return lambda number: f"s3://{bucket}/{number}"


@pytest.fixture
def publisher(place):
    process = Publisher()
    yield process
    process.close()


@pytest.fixture
def versions(tmp_path):
    old = Version(tmp_path / "old", [1, 2], tests=[2])
    new = Version(tmp_path / "new", [2, 3, 4], tests=[4])
    return old, new


def order(tmp_path, version: Version, store: str, **more) -> dict:
    path = tmp_path / f"{version.id}.json"
    path.write_text(version.manifest.to_json())
    files = {digest: str(file) for digest, file in version.files.items()}
    return {"do": "publish", "manifest": str(path), "files": files, "store": store, **more}


def test_a_writer_killed_at_any_step_leaves_no_half_version(place, publisher, versions, tmp_path):
    old, new = versions
    seen = []
    for step in range(1, 500):
        datasets = DatasetStore(open_store(place(step)), "app")
        assert old.publish(datasets)
        [status] = publisher.ask(**order(tmp_path, new, place(step), step=step))
        assert status in (KILLED, CREATED)
        visible = complete(datasets)
        assert visible in ({old.id}, {old.id, new.id})
        assert datasets.resolve("latest") in visible
        seen.append((new.id in visible, datasets.resolve("latest") == new.id))
        # The next try, whoever makes it, publishes.
        new.publish(datasets)
        assert set(datasets.ids()) == {old.id, new.id}
        assert find_damage(datasets, new.id) == []
        assert datasets.resolve("latest") == new.id
        if status == CREATED:
            break
    # It was killed before, between and after the manifest and the reference.
    assert step > 12
    assert set(seen) == {(False, False), (True, False), (True, True)}


def test_what_a_killed_writer_left_is_removed_in_time(publisher, versions, tmp_path, place):
    old, new = versions
    datasets = DatasetStore(open_store(place(0)), "app")
    old.publish(datasets)
    for step in range(5, 200):
        publisher.ask(**order(tmp_path, new, place(0), step=step))
        if len(datasets.store.list("app/datasets/chunks/")) > 2:
            break
    young = Pruning(datasets).prune(NOTHING, {})
    assert young.chunks == ()
    orphan = datasets.store.list("app/datasets/chunks/")
    later = Pruning(datasets, now=datetime.now(UTC) + timedelta(days=2))
    assert later.prune(NOTHING, {}, dry_run=True).chunks
    assert datasets.store.list("app/datasets/chunks/") == orphan
    later.prune(NOTHING, {}, dry_run=False)
    assert complete(datasets) == {datasets.resolve("latest")}
    needed = {chunk.digest for chunk in datasets.manifest(datasets.resolve("latest")).chunks}
    assert len(datasets.store.list("app/datasets/chunks/")) == len(needed)
    assert datasets.store.list("app/datasets/pending/") == []
    if root := getattr(datasets.store, "root", None):
        assert list((root / ".staging").iterdir()) == []


def test_writers_of_one_version_write_it_once(place, publisher, versions, tmp_path):
    _, new = versions
    for turn in range(2):
        codes = publisher.ask(**order(tmp_path, new, place(turn), processes=6))
        datasets = DatasetStore(open_store(place(turn)), "app")
        assert sorted(codes) == [CREATED, *[FOUND_AGAIN] * 5]
        assert complete(datasets) == {new.id}
        assert len(datasets.commits(new.id)) == 6
        assert datasets.resolve("latest") == new.id


def test_writers_of_different_versions_do_not_meet(place, tmp_path):
    versions = [Version(tmp_path / str(last), [1, 2, last]) for last in range(3, 9)]
    threads = [
        threading.Thread(
            target=lambda version=version: version.publish(DatasetStore(open_store(place(0)), "app"))
        )
        for version in versions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    datasets = DatasetStore(open_store(place(0)), "app")
    assert complete(datasets) == {version.id for version in versions}
    assert datasets.resolve("latest") in {version.id for version in versions}
    assert len(datasets.store.list("app/datasets/chunks/")) == 8


def test_a_prune_beside_a_publish_takes_nothing_that_is_needed(place, tmp_path):
    datasets = DatasetStore(open_store(place(0)), "app")
    versions = [Version(tmp_path / str(last), [1, last]) for last in (2, 3)]
    stop, pruned, broken = threading.Event(), [], []

    def prune() -> None:
        own = DatasetStore(open_store(place(0)), "app")
        while not stop.is_set():
            try:
                pruning = Pruning(own, now=datetime.now(UTC) + timedelta(seconds=5), grace=timedelta(0))
                pruned.append(len(pruning.prune(NOTHING, {}, dry_run=False).versions))
            except Exception as error:  # noqa: BLE001 - the main thread fails by it
                broken.append(error)
                return

    thread = threading.Thread(target=prune)
    thread.start()
    try:
        until, turns = time.monotonic() + 4, 0
        while time.monotonic() < until or turns < 4 or not sum(pruned):
            assert not broken
            version = versions[turns % 2]
            version.publish(datasets)
            assert datasets.resolve("latest") == version.id
            assert find_damage(datasets, version.id) == []
            turns += 1
    finally:
        stop.set()
        thread.join(60)
    assert not broken
    assert sum(pruned) > 0


def test_a_prune_killed_at_any_step_leaves_whole_versions(place, publisher, tmp_path):
    last_months = (4, 5) if place(0).startswith("s3") else (3, 4, 5)
    versions = [Version(tmp_path / str(last), [1, 2, last], tests=[last]) for last in last_months]
    for step in range(1, 500):
        datasets = DatasetStore(open_store(place(step)), "app")
        for version in versions:
            version.publish(datasets)
        [status] = publisher.ask(do="prune", store=place(step), step=step)
        assert status in (KILLED, 0)
        assert versions[-1].id in complete(datasets)
        assert datasets.resolve("latest") == versions[-1].id
        if status == 0:
            break
    assert step > 10
    assert complete(datasets) == {versions[-1].id}
    assert len(datasets.store.list("app/datasets/chunks/")) == 3


def test_the_lock_of_a_killed_prune_ends(place, versions, monkeypatch, tmp_path):
    old, new = versions
    datasets = DatasetStore(open_store(place(0)), "app")
    spare = Version(tmp_path / "spare", [7])
    spare.publish(datasets)
    old.publish(datasets)
    monkeypatch.setattr("airflow_mlops.stores.datasets.versions.PRUNE_WAIT", 0.5)
    now = datetime.now(UTC)
    shared = old.manifest.chunks[-1].digest
    plan = {"time": now.isoformat(), "versions": [], "chunks": [shared]}

    def leave(until: datetime, etag: str | None) -> str:
        data = json.dumps({**plan, "until": until.isoformat()}).encode()
        return datasets.store.compare_and_set("app/datasets/prune.json", data, etag)

    etag = leave(now + timedelta(minutes=15), None)
    with pytest.raises(StoreConflictError, match="a prune that removes some of its chunks"):
        new.publish(datasets)
    with pytest.raises(StoreConflictError, match="another prune of 'app'"):
        Pruning(datasets).remove([spare.id])
    leave(now - timedelta(minutes=1), etag)
    assert new.publish(datasets)
    Pruning(datasets).remove([old.id, spare.id])
    assert complete(datasets) == {new.id}
