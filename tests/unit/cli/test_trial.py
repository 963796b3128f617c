from __future__ import annotations

import pytest

from airflow_mlops.cli import main
from tests.unit.spec.features.test_pipeline import SMALLEST
from tests.unit.spec.samples import MINIMAL


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(MINIMAL + "store: /s\n")
    (tmp_path / "usage.yaml").write_text(SMALLEST)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny.yaml", "--rows", "-1"], "--rows is negative"),
        (["usage.yaml"], "not one application"),
        (["."], "not one application"),
        (["gone.yaml"], "gone.yaml does not exist"),
    ],
)
def test_wrong_usage_is_2(folder, capsys, words, said):
    assert main(["try", *words]) == 2
    assert said in capsys.readouterr().err


def test_every_problem_of_the_file_is_said_first(folder, capsys):
    (folder / "tiny.yaml").write_text(MINIMAL + "store: /s\nsplits: 1\nretrain: 2\n")
    assert main(["try", "tiny.yaml"]) == 1
    assert capsys.readouterr().err.count("is not a known key") == 2
