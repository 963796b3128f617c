"""``airflow-mlops try`` as a person calls it, with a real MLflow server of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.deadlines import DEADLINE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def segments(tmp_path) -> Path:
    folder = tmp_path / "customer_segments"
    ignored = shutil.ignore_patterns("data", "store", "__pycache__")
    shutil.copytree(ROOT / "examples/customer_segments", folder, ignore=ignored)
    subprocess.run([sys.executable, "data.py"], cwd=folder, check=True)
    return folder


def attempt(folder: Path, *words: str) -> tuple[int, str, str]:
    scratch = folder.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(folder.parent / "airflow"),
        "AIRFLOW__MLOPS__SCRATCH_FOLDER": str(scratch),
    }
    command = [Path(sys.executable).with_name("airflow-mlops"), "try", "application.yaml", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert [path for path in scratch.rglob("*") if path.is_dir() and any(path.iterdir())] == []
    return done.returncode, done.stdout, done.stderr


def test_the_tasks_of_a_training_and_nothing_is_left(segments):
    before = sorted(segments.iterdir())
    code, said, log = attempt(segments, "--rows", "600", "--json")
    assert code == 0, log
    decision = json.loads(said)
    assert decision["passed"]
    assert "600 examples after" in log
    steps = [line.removeprefix("== ") for line in log.splitlines() if line.startswith("== ")]
    server = "an MLflow server of the trial's own starts"
    assert steps == ["provision", "describe", server, "train", "evaluate", "test", "gate"]
    assert [path for path in sorted(segments.iterdir()) if path.name != "__pycache__"] == before


def test_what_cannot_work_is_said_as_in_the_dag_before_anything_is_started(segments):
    file = segments / "application.yaml"
    file.write_text(file.read_text().replace("keys: [customer_id]", "keys: [customer]"))
    code, said, log = attempt(segments)
    assert (code, said) == (1, "")
    assert "provision: SourceError: examples lack the column(s) customer;" in log
    assert "did you mean 'customer_id'?" in log
    assert "MLflow" not in log
