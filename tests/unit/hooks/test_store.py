"""The store: objects whole or absent, one winner in every race."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from airflow_mlops.exceptions import StoreConflictError, StoreError
from airflow_mlops.hooks.datasets import DatasetStore
from airflow_mlops.hooks.store import open_store
from airflow_mlops.hooks.store_files import FileStore
from airflow_mlops.primitives.provisioning.version import Chunk, Column, Manifest

CONTEXT = multiprocessing.get_context("spawn")


def _count_up(root: str, times: int) -> None:
    store = FileStore(Path(root))
    for _ in range(times):
        while True:
            data, etag = store.read_versioned("refs/counter")
            try:
                store.compare_and_set("refs/counter", str(int(data or b"0") + 1).encode(), etag)
                break
            except StoreConflictError:
                continue


def _put(root: str, name: str, wins: multiprocessing.Queue) -> None:
    store = FileStore(Path(root))
    content = name.encode() * 100_000
    wins.put((name, [key for key in range(25) if store.put_if_absent(f"objects/{key}", content)]))


def _processes(target, *arguments) -> None:
    workers = [CONTEXT.Process(target=target, args=given) for given in arguments]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0


def test_no_update_is_lost_between_processes(tmp_path):
    _processes(_count_up, *[(str(tmp_path), 40)] * 3)
    assert FileStore(tmp_path).read("refs/counter") == b"120"


def test_one_process_wins_each_name_and_nobody_sees_a_mixture(tmp_path):
    wins = CONTEXT.Queue()
    _processes(_put, *[(str(tmp_path), name, wins) for name in "abc"])
    won = {key: name for name, keys in (wins.get(timeout=10) for _ in "abc") for key in keys}
    store = FileStore(tmp_path)
    assert sorted(won) == list(range(25))
    assert all(store.read(f"objects/{key}") == name.encode() * 100_000 for key, name in won.items())
    assert list((tmp_path / ".staging").iterdir()) == []


def test_compare_and_set_refuses_what_it_did_not_read(tmp_path):
    store = FileStore(tmp_path)
    etag = store.compare_and_set("refs/latest", b"one", None)
    assert etag == hashlib.sha256(b"one").hexdigest()
    for expected in (None, "0" * 64):
        with pytest.raises(StoreConflictError, match="read it again"):
            store.compare_and_set("refs/latest", b"two", expected)
    assert store.read_versioned("refs/latest") == (b"one", etag)
    store.compare_and_set("refs/latest", b"two", etag)
    assert store.read("refs/latest") == b"two"


def test_an_object_is_never_replaced(tmp_path):
    store, source = FileStore(tmp_path), tmp_path / "local"
    source.write_bytes(b"from a file")
    assert store.put_if_absent("a/b.bin", source)
    assert not store.put_if_absent("a/b.bin", b"other")
    assert store.read("a/b.bin") == b"from a file"


def test_a_file_system_without_hard_links_still_has_one_winner(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    store = FileStore(tmp_path)
    assert store.put_if_absent("a", b"1")
    assert not store.put_if_absent("a", b"2")
    with pytest.raises(StoreConflictError):
        store.compare_and_set("a", b"3", None)
    assert store.read("a") == b"1"


def test_a_write_that_breaks_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    store = FileStore(tmp_path)

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StoreError, match="No space left on device"):
            store.put_if_absent("a/b", b"data")
    assert store.list() == []
    assert store.put_if_absent("a/b", b"data")


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", "a/.", ".locks/a", "a/", "a\\b", "a\0b"])
def test_keys_cannot_leave_the_store(tmp_path, key):
    with pytest.raises(StoreError, match="not allowed"):
        FileStore(tmp_path).put_if_absent(key, b"")


def test_list_knows_prefixes_as_an_object_store_does(tmp_path):
    store = FileStore(tmp_path)
    for key in ("a/1", "a/2", "ab/1", "b"):
        store.put_if_absent(key, b"")
    store.compare_and_set("a/3", b"", None)
    assert store.list() == ["a/1", "a/2", "a/3", "ab/1", "b"]
    assert store.list("a") == ["a/1", "a/2", "a/3", "ab/1"]
    assert store.list("a/") == ["a/1", "a/2", "a/3"]
    assert store.list("none/") == []


def test_what_is_absent_reads_as_none(tmp_path):
    store = FileStore(tmp_path / "not there yet")
    assert store.read("a") is None
    assert store.read_json("a") is None
    assert store.read_versioned("a") == (None, None)
    assert not store.exists("a")
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://bucket/prefix", "s3:// stores come later"),
        ("relative/folder", "give an absolute folder"),
        ("file://host/folder", "names no machine"),
    ],
)
def test_a_store_that_cannot_be_opened_says_why(uri, message):
    with pytest.raises(StoreError, match=message):
        open_store(uri)


def test_an_address_and_a_folder_are_the_same_store(tmp_path):
    folder = tmp_path / "with space"
    open_store(folder).put_if_absent("a", b"1")
    assert open_store(folder.as_uri()).read("a") == b"1"


def manifest(*chunks: Chunk) -> Manifest:
    return Manifest(
        application="app",
        purpose="training",
        columns=(Column("id", "int64", "key"),),
        chunks=chunks,
        window=("2024-01-01T00:00:00+00:00", "2024-02-01T00:00:00+00:00"),
    )


def chunk(digest: str, split: str = "train") -> Chunk:
    return Chunk(digest, split, 1, "2024-01-01T00:00:00+00:00", "2024-01-01T00:00:00+00:00")


COMMIT = {"time": "2024-02-01T00:00:00+00:00", "run_id": "manual"}


def test_a_version_is_published_once_and_its_reference_moves(tmp_path):
    datasets = DatasetStore(FileStore(tmp_path / "store"), "app")
    file = tmp_path / "chunk"
    file.write_bytes(b"rows")
    one, two = manifest(chunk("aa11")), manifest(chunk("aa11"), chunk("bb22", "test"))
    assert datasets.resolve("latest") is None
    assert datasets.publish(one, {"aa11": file}, COMMIT)
    assert not datasets.publish(one, {}, {**COMMIT, "run_id": "again"})
    assert datasets.resolve("latest") == one.id
    assert datasets.publish(two, {"bb22": file}, COMMIT)
    assert datasets.resolve("latest") == two.id
    assert datasets.manifest(one.id) == one
    assert [path.name for path in datasets.paths(two.id, "test", Path("unused"))] == ["bb22.parquet"]
    assert len(datasets.store.list("app/datasets/chunks")) == 2
    commits = [datasets.store.read_json(key) for key in datasets.store.list("app/datasets/commits")]
    assert sorted((commit["run_id"], commit["created"]) for commit in commits) == [
        ("again", False),
        ("manual", True),
        ("manual", True),
    ]


def test_a_version_without_its_chunks_is_not_published(tmp_path):
    datasets = DatasetStore(FileStore(tmp_path), "app")
    with pytest.raises(StoreError, match="chunk aa11 is neither stored nor given"):
        datasets.publish(manifest(chunk("aa11")), {}, COMMIT)
    assert datasets.store.list() == []


def test_damage_is_noticed(tmp_path):
    datasets = DatasetStore(FileStore(tmp_path), "app")
    file = tmp_path / "chunk"
    file.write_bytes(b"rows")
    version = manifest(chunk("aa11"))
    datasets.publish(version, {"aa11": file}, COMMIT)
    with pytest.raises(StoreError, match="has no split 'test'; it has train"):
        datasets.paths(version.id, "test", Path("unused"))
    datasets.store.path(datasets.chunk_key("aa11")).unlink()
    with pytest.raises(StoreError, match=r"1 chunk\(s\) are gone"):
        datasets.paths(version.id, "train", Path("unused"))
    path = datasets.store.path(f"app/datasets/manifests/{version.id}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "application": "other"}))
    with pytest.raises(StoreError, match="was changed"):
        datasets.manifest(version.id)
    with pytest.raises(StoreError, match="no dataset version 0000"):
        datasets.manifest("0000")


def test_a_folder_that_cannot_be_read_does_not_pass_for_an_empty_one(tmp_path, monkeypatch):
    """Otherwise a share that hangs for a moment makes the next batch begin at the beginning."""
    store = FileStore(tmp_path)
    store.put_if_absent("app/predictions/w/meta.json", b"{}")
    assert store.list("app/nothing/") == []
    real = os.scandir

    def refused(path):
        if str(path).endswith("/w"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(StoreError, match=r"cannot list .*/w: Permission denied"):
        store.list("app/predictions/")
