"""``airflow-mlops validate`` over applications and feature pipelines together."""

from __future__ import annotations

import json

import pytest

from airflow_mlops.cli import main
from tests.unit.spec.features.test_pipeline import SMALLEST
from tests.unit.spec.samples import MINIMAL


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("applications", "features"):
        (tmp_path / name).mkdir()
    (tmp_path / "defaults.yaml").write_text("store: /s\nfeature_store: feast_eu\ntraining: {seed: 3}\n")
    (tmp_path / "applications" / "tiny.yaml").write_text(MINIMAL.replace("tiny_v1", "flight_delay_v1"))
    (tmp_path / "features" / "weather.yaml").write_text(SMALLEST.replace("store: /s\n", ""))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_both_kinds_with_one_defaults(folder, capsys):
    assert main(["validate", "."]) == 0
    assert capsys.readouterr().out == (
        "OK  applications/tiny.yaml: tiny\nOK  features/weather.yaml: airport_weather (features)\n"
    )
    assert main(["validate", "--json", "defaults.yaml"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "applications": [{"application": "tiny", "file": "applications/tiny.yaml"}],
        "features": [{"features": "airport_weather", "file": "features/weather.yaml"}],
        "problems": [],
        "warnings": [],
    }


def test_a_doubt_is_a_warning_and_no_failure(folder, capsys):
    file = folder / "features" / "weather.yaml"
    file.write_text(file.read_text().replace("[airport_weather]", "[airport_weather, plane]"))
    assert main(["validate", "."]) == 0
    assert "warning: features/weather.yaml:7:47: services.flight_delay_v1[1] names the view plane" in (
        capsys.readouterr().out
    )
    main(["validate", "--json", "."])
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert (warning["line"], warning["key"]) == (7, "services.flight_delay_v1[1]")


def test_what_does_not_fit_between_files_is_a_problem_of_both(folder, capsys):
    other = SMALLEST.replace("features: airport_weather", "features: sky").replace(
        "- entities", "- name: airport_weather\n    entities"
    )
    (folder / "features" / "sky.yaml").write_text(other)
    assert main(["validate", "."]) == 1
    out = capsys.readouterr().out
    assert "features/sky.yaml:6:5: views[0] defines the view airport_weather otherwise than" in out
    assert "features/weather.yaml:5:5: views[0] defines the view airport_weather otherwise than" in out
    assert "OK  applications/tiny.yaml: tiny" in out


def test_the_schema_of_each_kind(capsys):
    assert main(["schema", "--features"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert (schema["title"], schema["required"]) == ("airflow-mlops feature pipeline", ["features"])
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["required"] == ["application"]
    assert main(["schema", "--features", "--markdown"]) == 2
