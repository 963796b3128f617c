from __future__ import annotations

import json

import pytest

from airflow_mlops.cli import main
from tests.unit.spec.features.test_pipeline import SMALLEST
from tests.unit.spec.samples import MINIMAL


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(MINIMAL)
    (tmp_path / "defaults.yaml").write_text("store: /s\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_writes_a_stub_beside_each_yaml_and_takes_away_what_is_left_over(folder, capsys):
    assert main(["generate", "--check", "."]) == 1
    assert not (folder / "tiny.py").exists()
    assert main(["generate", "."]) == 0
    assert "airflow_mlops" in (folder / "tiny.py").read_text()
    assert not (folder / "defaults.py").exists()
    assert main(["generate", "--check", "."]) == 0
    (folder / "tiny.yaml").rename(folder / "other.yaml")
    capsys.readouterr()
    assert main(["generate", "--json", "."]) == 0
    done = json.loads(capsys.readouterr().out)
    assert {(one["file"], one["action"]) for one in done} == {("other.py", "written"), ("tiny.py", "removed")}
    assert not (folder / "tiny.py").exists()


def test_it_says_when_airflow_finds_a_new_dag(folder, capsys):
    assert main(["generate", "."]) == 0
    said = capsys.readouterr().out
    assert "refresh_interval" in said
    assert "airflow dags reserialize" in said
    assert main(["generate", "."]) == 0
    assert "refresh_interval" not in capsys.readouterr().out


def test_a_file_of_somebody_else_is_left_alone(folder, capsys):
    (folder / "tiny.py").write_text("print('mine')\n")
    assert main(["generate", "."]) == 1
    assert "Cure: " in capsys.readouterr().err
    assert (folder / "tiny.py").read_text() == "print('mine')\n"


@pytest.mark.parametrize(("path", "words"), [("no", "does not exist"), ("tiny.yaml", "is not a folder")])
def test_no_such_folder_is_2(folder, capsys, path, words):
    assert main(["generate", path]) == 2
    assert words in capsys.readouterr().err


def test_folders_below_count_too_and_so_do_feature_pipelines(folder, capsys):
    (folder / "team").mkdir()
    (folder / "team" / "usage.yaml").write_text(SMALLEST)
    (folder / "team" / "defaults.yaml").write_text("owner: them\n")
    (folder / "team" / "left.py").write_text("print('mine')\n")
    assert main(["generate", "--json", "."]) == 0
    done = {one["file"]: one["action"] for one in json.loads(capsys.readouterr().out)}
    assert done == {"team/usage.py": "written", "tiny.py": "written"}
    (folder / "team" / "usage.yaml").unlink()
    assert main(["generate", "--check", "."]) == 1
    assert main(["generate", "."]) == 0
    assert sorted(path.name for path in (folder / "team").iterdir()) == ["defaults.yaml", "left.py"]


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_two_of_one_registered_model_are_1_and_said(folder, capsys, check):
    twin = MINIMAL.replace("application: tiny", "application: other\nregistration: {model: tiny}")
    (folder / "other.yaml").write_text(twin)
    assert main(["generate", *check, "."]) == 1
    said = capsys.readouterr().err
    assert "registration.model: tiny is also the registered model in other.yaml. Cure" in said
    (folder / "other.yaml").unlink()
    assert main(["generate", "."]) == 0
