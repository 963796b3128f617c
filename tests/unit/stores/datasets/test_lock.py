"""The lock of a prune: renewed, over soon after its owner's death, and never ended by a former owner."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from airflow_mlops.exceptions import StoreConflictError, StoreUnavailableError
from airflow_mlops.hooks.store.files import FileStore
from airflow_mlops.stores.datasets import retention
from airflow_mlops.stores.datasets.lock import PruneLock
from airflow_mlops.stores.datasets.versions import DatasetStore
from tests.fixtures.jobs import eventually

KEY = "app/datasets/prune.json"
PLAN = {"versions": ["v"], "chunks": ["c"]}


@pytest.fixture
def datasets(tmp_path):
    return DatasetStore(FileStore(tmp_path), "app")


def lock(datasets, working=60.0, locked=120.0):
    return PruneLock(datasets, PLAN, timedelta(seconds=working), timedelta(seconds=locked))


def left(datasets):
    """Seconds for which others take the lock for held."""
    until = datetime.fromisoformat(datasets.store.read_json(KEY)["until"])
    return (until - datetime.now(UTC)).total_seconds()


def test_one_at_a_time_and_the_next_right_after_it(datasets):
    with lock(datasets) as mine:
        mine.check()
        assert datasets.store.read_json(KEY)["chunks"] == ["c"]
        with (
            pytest.raises(StoreConflictError, match="another prune of 'app' has been at work"),
            lock(datasets),
        ):
            pass
        mine.check()
    assert left(datasets) < 0
    assert datasets.store.read_json(KEY)["chunks"] == []
    with lock(datasets):
        pass


def test_it_is_renewed_while_its_owner_lives(datasets):
    with lock(datasets, working=0.4, locked=30) as mine:
        first = datasets.store.read_json(KEY)
        eventually(lambda: datasets.store.read_json(KEY)["until"] > first["until"])
        time.sleep(0.5)  # longer than one renewal lasts
        mine.check()
        assert datasets.store.read_json(KEY)["owner"] == first["owner"]


def test_that_of_a_killed_prune_blocks_for_two_minutes_at_most(datasets):
    assert timedelta(minutes=2) >= retention.LOCKED
    assert retention.WORKING < retention.LOCKED
    killed = lock(datasets, locked=0.3)
    killed._write(killed._locked)  # dead before it could renew it
    time.sleep(0.35)
    with lock(datasets):
        pass


def test_a_former_owner_neither_goes_on_nor_ends_the_lock_of_another(datasets):
    with lock(datasets, working=0.4, locked=0.2) as former:
        former._over.set()  # its machine stands still
        former._thread.join()
        time.sleep(0.3)
        with lock(datasets) as mine:
            held = datasets.store.read(KEY)
            former._etag = former._etag or ""
            former.__exit__(None, None, None)
            assert datasets.store.read(KEY) == held
            mine.check()
            time.sleep(0.2)
            with pytest.raises(StoreConflictError, match="prune again for the rest"):
                former.check()
            former._lost = "x"


def test_one_that_was_taken_over_is_noticed_by_its_renewal(datasets):
    with lock(datasets, working=0.4, locked=0.05) as former:
        data, etag = datasets.store.read_versioned(KEY)
        datasets.store.compare_and_set(
            KEY, json.dumps({**json.loads(data), "owner": "another"}).encode(), etag
        )
        eventually(lambda: former._lost)
        with pytest.raises(StoreConflictError, match="taken over"):
            former.check()
    assert datasets.store.read_json(KEY)["owner"] == "another"


def test_a_store_that_is_away_ends_the_prune_and_not_the_lock(datasets, monkeypatch):
    def away(*_):
        raise StoreUnavailableError("away")

    with lock(datasets, working=0.2) as mine:
        monkeypatch.setattr(FileStore, "compare_and_set", away)
        eventually(lambda: time.monotonic() - mine._renewed > 0.3)
        with pytest.raises(StoreConflictError, match="could not be renewed for"):
            mine.check()
        monkeypatch.undo()
        eventually(lambda: time.monotonic() - mine._renewed < 0.1)
        mine.check()
