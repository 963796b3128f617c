"""The store: objects whole or absent, one winner in every race."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_mlops.exceptions import StoreConflictError, StoreError, StoreUnavailableError
from airflow_mlops.hooks.store import files
from airflow_mlops.hooks.store.files import FileStore
from airflow_mlops.hooks.store.open import open_store
from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.jobs import eventually
from tests.fixtures.store_cases import StoreCases

CONTEXT = multiprocessing.get_context("spawn")


class TestFileStore(StoreCases):
    @pytest.fixture
    def store(self, tmp_path):
        return FileStore(tmp_path / "store")


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
    won = {key: name for name, keys in (wins.get(timeout=DEADLINE) for _ in "abc") for key in keys}
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
        ("gs://bucket/prefix", "gs:// is not known"),
        ("s3://", "is no S3 address"),
        ("s3://@bucket/prefix", "is no S3 address"),
        ("s3://key:secret@bucket/prefix", "name an Airflow connection"),
        ("s3://bucket/a//b", "not allowed"),
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


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, StoreError, "No space left on device. Make room"),
        (errno.EDQUOT, StoreError, "Make room"),
        (errno.EACCES, StoreError, "Permission denied. Let the user of the Airflow workers own the folder"),
        (errno.EROFS, StoreError, "Mount it for writing"),
        (errno.ESTALE, StoreUnavailableError, "Stale file handle"),
        (errno.EIO, StoreUnavailableError, "Input/output error"),
    ],
)
def test_a_disk_that_refuses_leaves_nothing_and_says_the_cure(tmp_path, monkeypatch, number, kind, words):
    store = FileStore(tmp_path)

    def refuse(_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuse)
        for write in (
            lambda: store.put_if_absent("a/b", b"data"),
            lambda: store.compare_and_set("a/b", b"data", None),
        ):
            with pytest.raises(StoreError, match=words) as caught:
                write()
            assert type(caught.value) is kind
            assert caught.value.retriable is (kind is StoreUnavailableError)
    assert store.list() == []
    assert list((tmp_path / ".staging").iterdir()) == []
    assert store.put_if_absent("a/b", b"data")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_named(tmp_path):
    """A real full device, in the place of the folder of staged files."""
    (tmp_path / ".staging").mkdir()
    store = FileStore(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uuid.uuid4", lambda: type("Name", (), {"hex": "full"}))
        real = Path.open

        def opened(path, mode="r", *arguments, **options):
            return (
                real(Path("/dev/full"), "wb")
                if path.name == "full"
                else real(path, mode, *arguments, **options)
            )

        patch.setattr(Path, "open", opened)
        with pytest.raises(StoreError, match="No space left on device"):
            store.put_if_absent("a", b"data" * 10_000)
    assert store.list() == []


def test_what_a_killed_writer_staged_is_removed_by_a_later_one_and_never_a_running_ones(tmp_path):
    staging = tmp_path / ".staging"
    staging.mkdir()
    for name, age in (("old", 25 * 3600), ("young", 23 * 3600)):
        (staging / name).write_bytes(b"half")
        os.utime(staging / name, (time.time() - age,) * 2)
    FileStore(tmp_path).put_if_absent("a", b"")
    assert [path.name for path in staging.iterdir()] == ["young"]


FROZEN = """
import os, signal, sys
from pathlib import Path
from airflow_mlops.hooks.store.files import FileStore

class Frozen(FileStore):
    def read_versioned(self, key):
        os.kill(os.getpid(), signal.SIGSTOP)
        return super().read_versioned(key)

Frozen(Path(sys.argv[1])).compare_and_set("refs/latest.json", b"1", None)
"""


def test_a_writer_that_stands_still_stops_nobody_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_WAIT", 0.5)
    store = FileStore(tmp_path)
    with subprocess.Popen([sys.executable, "-c", FROZEN, str(tmp_path)]) as frozen:
        try:
            eventually(lambda: Path(f"/proc/{frozen.pid}/stat").read_text().rpartition(") ")[2][0] == "T", 60)
            with pytest.raises(
                StoreUnavailableError, match=r"refs/latest.json: another process has held its lock.*fuser"
            ):
                store.compare_and_set("refs/latest.json", b"2", None)
            assert store.compare_and_set("refs/other.json", b"2", None)
        finally:
            frozen.kill()
    assert store.compare_and_set("refs/latest.json", b"2", None)
    assert store.read("refs/latest.json") == b"2"
