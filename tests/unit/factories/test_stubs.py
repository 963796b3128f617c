"""The Python file beside each YAML: written, renewed, taken away, and never somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories import stubs
from airflow_mlops.factories.stubs import ensure_stubs, write_stubs


@pytest.fixture
def folder(tmp_path):
    for name in ("one.yaml", "two.yml", "defaults.yaml"):
        (tmp_path / name).write_text("application: x\n")
    return tmp_path


@pytest.fixture
def read_only(monkeypatch):
    """A folder in which nobody can write; permissions would not stop root."""

    def refused(*_, **__):
        raise PermissionError(13, "Read-only file system")

    monkeypatch.setattr(stubs.tempfile, "mkstemp", refused)
    monkeypatch.setattr(Path, "unlink", refused)


def names(done):
    return [(path.name, action) for path, action in done]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_yaml_gets_one_that_airflow_reads(folder):
    assert names(write_stubs(folder)) == [("one.py", "written"), ("two.py", "written")]
    assert files(folder) == ["defaults.yaml", "one.py", "one.yaml", "two.py", "two.yml"]
    text = (folder / "one.py").read_text()
    # Airflow looks for both words before it runs a file.
    assert "airflow" in text.lower()
    assert "dag" in text.lower()
    assert (folder / "one.py").stat().st_mode & 0o777 == 0o644


def test_writing_again_leaves_the_files_alone(folder):
    write_stubs(folder)
    before = (folder / "one.py").stat()
    assert names(write_stubs(folder)) == [("one.py", "unchanged"), ("two.py", "unchanged")]
    assert (folder / "one.py").stat().st_mtime_ns == before.st_mtime_ns
    assert (folder / "one.py").stat().st_ino == before.st_ino


def test_a_stub_of_an_older_version_is_renewed(folder):
    write_stubs(folder)
    new = (folder / "one.py").read_text()
    (folder / "one.py").write_text(f"{stubs._MARK}\nold = True\n")
    assert ("one.py", "written") in names(write_stubs(folder))
    assert (folder / "one.py").read_text() == new


def test_one_whose_yaml_is_gone_is_taken_away_and_nothing_else(folder):
    write_stubs(folder)
    (folder / "mine.py").write_text("print('mine')\n")
    (folder / "one.yaml").unlink()
    assert ("one.py", "removed") in names(write_stubs(folder))
    assert files(folder) == ["defaults.yaml", "mine.py", "two.py", "two.yml"]


def test_looking_changes_nothing(folder):
    write_stubs(folder)
    (folder / "one.yaml").rename(folder / "three.yaml")
    before = files(folder)
    assert names(write_stubs(folder, check=True)) == [
        ("three.py", "missing"),
        ("two.py", "unchanged"),
        ("one.py", "removed"),
    ]
    assert files(folder) == before


def test_a_file_of_somebody_else_is_kept_and_told_and_the_others_get_theirs(folder):
    (folder / "one.py").write_text("print('mine')\n")
    with pytest.raises(SpecError, match=r"one\.py is no stub.*Cure"):
        write_stubs(folder)
    assert (folder / "one.py").read_text() == "print('mine')\n"
    assert (folder / "two.py").is_file()


def test_no_folder_is_told(tmp_path):
    with pytest.raises(SpecError, match=r"is no folder\. Cure"):
        write_stubs(tmp_path / "none")


@pytest.mark.usefixtures("read_only")
class TestReadOnly:
    def test_missing_stubs_are_named_with_the_cure(self, folder):
        with pytest.raises(SpecError, match=r"Read-only.*one\.py, two\.py.*airflow-mlops generate"):
            ensure_stubs(folder)


def test_a_read_only_folder_with_its_stubs_is_fine(folder, monkeypatch):
    write_stubs(folder)
    monkeypatch.setattr(stubs.tempfile, "mkstemp", lambda **_: pytest.fail("nothing to write"))
    ensure_stubs(folder)


def test_a_crash_in_the_middle_leaves_no_half_of_one(folder, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            write_stubs(folder)
    assert not (folder / "one.py").exists()
    write_stubs(folder)
    assert os.access(folder / "one.py", os.R_OK)


def test_two_yamls_for_one_stub_are_an_error_and_the_others_get_theirs(folder):
    (folder / "two.yaml").write_text("application: y\n")
    with pytest.raises(SpecError, match=r"two\.yml: the file stands beside two\.yaml.*one be lost"):
        write_stubs(folder)
    assert (folder / "one.py").is_file()
