"""Folders for temporary files: in one place, locked by their process, swept when that is no more."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import airflow_mlops
from airflow_mlops.exceptions import StoreError, StoreUnavailableError
from airflow_mlops.hooks import scratch
from airflow_mlops.hooks.scratch import scratch_folder, scratch_home, sweep_scratch

OWNER = """
import sys, time
from pathlib import Path
from airflow_mlops.hooks.scratch import scratch_folder
with scratch_folder(sys.argv[1]) as folder:
    Path(folder, "rows").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner(tmp_path):
    """Another process with a scratch folder: the process, and the folder."""
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_it_is_removed_at_the_end_whatever_happens(tmp_path):
    with scratch_folder(tmp_path) as folder:
        Path(folder, "rows").write_text("x")
        assert Path(folder).stat().st_mode & 0o777 == 0o700
    assert not Path(folder).exists()
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path) as folder:
        raise ZeroDivisionError
    kept = scratch_folder(tmp_path)
    kept.cleanup()
    kept.cleanup()
    assert list(tmp_path.iterdir()) == []


def test_that_of_a_living_process_stays_and_that_of_a_killed_one_goes(owner, tmp_path):
    process, folder = owner
    assert sweep_scratch(tmp_path) == 0
    os.kill(process.pid, signal.SIGSTOP)
    with scratch_folder(tmp_path):
        assert (folder / "rows").exists()
    process.kill()
    process.wait()
    assert (folder / "rows").exists()

    with scratch_folder(tmp_path) as mine:
        assert [str(path) for path in tmp_path.iterdir()] == [mine]


def test_maintenance_sweeps_it_too(owner, tmp_path):
    process, folder = owner
    process.kill()
    process.wait()
    assert (sweep_scratch(tmp_path), folder.exists()) == (1, False)


def test_only_what_is_ours_is_removed(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "mlops-scratch-file").write_text("no folder")
    (tmp_path / "mlops-scratch-link").symlink_to(tmp_path / "notes")
    (tmp_path / "mlops-scratch-dead").mkdir()
    assert sweep_scratch(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mlops-scratch-file",
        "mlops-scratch-link",
        "notes",
    ]
    assert sweep_scratch(tmp_path / "not there") == 0


def test_one_that_is_swept_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    real, made = os.open, []

    def swept(path, *arguments):
        opened = real(path, *arguments)
        if not made:
            made.append(path)
            monkeypatch.setattr(os, "open", real)
            Path(path).rmdir()
        return opened

    monkeypatch.setattr(os, "open", swept)
    with scratch_folder(tmp_path) as folder:
        assert made[0] != folder
        assert Path(folder).is_dir()


def test_many_at_once_lose_none(tmp_path):
    lost = []

    def work():
        for _ in range(30):
            with scratch_folder(tmp_path) as folder:
                Path(folder, "rows").write_text("x")
                sweep_scratch(tmp_path)
                if not Path(folder, "rows").exists():
                    lost.append(folder)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (lost, list(tmp_path.iterdir())) == ([], [])


def test_one_folder_an_installation(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_HOME", "/one")
    one = scratch_home()
    assert (one, one.parent) == (scratch_home(), tmp_path)
    monkeypatch.setenv("AIRFLOW_HOME", "/another")
    assert scratch_home() != one
    monkeypatch.setenv("AIRFLOW__MLOPS__SCRATCH_FOLDER", str(tmp_path / "given"))
    with scratch_folder() as folder:
        assert Path(folder).parent == tmp_path / "given"


def test_a_place_that_another_user_made_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "theirs").mkdir()
    scratch_home().symlink_to(tmp_path / "theirs")
    with pytest.raises(StoreError, match=r"another user.*SCRATCH_FOLDER"):
        scratch_folder()


def test_an_error_says_where_and_the_cure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/below.*Not a directory.*AIRFLOW__MLOPS__SCRATCH_FOLDER"):
        scratch_folder(tmp_path / "file" / "below")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch, "ScratchFolder", full)
    with pytest.raises(StoreUnavailableError, match="No space left"):
        scratch_folder(tmp_path)


def test_no_other_module_makes_temporary_files():
    """Only what runs in the model's container, and a file that is renamed over its neighbour."""
    found = {
        f"{path.relative_to(root)}: {line.strip()}"
        for root in [Path(airflow_mlops.__file__).parent]
        for path in root.rglob("*.py")
        if path.parts[len(root.parts)] != "contract" and path.name != "scratch.py"
        for line in path.read_text().splitlines()
        if re.search(r"\b(mkdtemp|mkstemp|TemporaryDirectory|(Named|Spooled)?TemporaryFile)\(", line)
    }
    assert {place.split(":")[0] for place in found} == {"factories/stubs.py"}
