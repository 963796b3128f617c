"""``contract check IMAGE --data FOLDER`` as a person calls it: every command of a real image, on rows of a folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.docker import ROOT, build

pytestmark = pytest.mark.docker
MODEL = ROOT / "tests/fixtures/checked_model"
WHOLE = ("-m", "airflow_mlops.cli", "contract", "check")
CONTRACT = ("-m", "airflow_mlops.contract", "check")
ROLES = ("--keys", "id", "--timestamp", "asked_at", "--targets", "price")
ROWS = "SELECT i AS id, TIMESTAMPTZ '2026-01-01' + to_hours(i) AS asked_at, i % 7 AS rooms, i % 7 * 9.5::DOUBLE AS price"


@pytest.fixture(scope="module")
def image(docker_engine, packages_image, tmp_path_factory) -> str:
    context = tmp_path_factory.mktemp("checked")
    for path in (*MODEL.glob("*.*"), MODEL / "Dockerfile", ROOT / "airflow_mlops/__init__.py"):
        shutil.copy(path, context)
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "airflow_mlops/contract", context / "contract", ignore=unwanted)
    return build(
        docker_engine, "airflow-mlops-test-checked:1", context, context / "Dockerfile", packages_image
    )


@pytest.fixture
def table(tmp_path) -> Path:
    """A folder with a CSV file."""
    folder = tmp_path / "rows"
    folder.mkdir()
    duckdb.sql(f"COPY ({ROWS} FROM range(200) t(i)) TO '{folder}/rows.csv'")
    return folder


@pytest.fixture
def fetched(tmp_path) -> Path:
    """A folder as a job finds it: one folder a split, and the roles of the columns."""
    folder = tmp_path / "ml"
    for split, begin, end in (("train", 0, 120), ("validation", 120, 150), ("test", 150, 200)):
        (folder / "input/data" / split).mkdir(parents=True)
        source = f"{ROWS} FROM range({begin}, {end}) t(i)"
        duckdb.sql(f"COPY ({source}) TO '{folder}/input/data/{split}/0.parquet'")
    columns = {"keys": ["id"], "timestamp": "asked_at", "targets": ["price"], "features": ["rooms"]}
    (folder / "input/config").mkdir()
    (folder / "input/config/mlops.json").write_text(json.dumps({"columns": columns}))
    return folder


class Check:
    """The command with a scratch folder of its own, in which nothing may be left."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.scratch = folder / "scratch"
        self.process = subprocess.Popen(
            [sys.executable, *words],
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")},
                "AIRFLOW_HOME": str(folder / "airflow"),
                "AIRFLOW__MLOPS__SCRATCH_FOLDER": str(self.scratch),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, docker_engine) -> tuple[int, str, str]:
        said, log = self.process.communicate(timeout=DEADLINE)
        assert "contract_check" not in docker_engine("ps", "--all", "--format", "{{.Names}}")
        assert list(self.scratch.glob("*")) == []
        return self.process.returncode, said, log


def test_every_command_runs_on_the_rows_of_a_file(image, table, tmp_path, docker_engine):
    code, said, log = Check(tmp_path, *WHOLE, image, "--data", str(table), *ROLES).end(docker_engine)
    assert code == 0, log
    assert "train, evaluate, test, predict ran on 200 rows, and nothing breaks the contract" in said
    assert "It measured" in said
    assert "rmse" in said
    steps = [line.removeprefix("== ") for line in log.splitlines() if line.startswith("== ")]
    server = "an MLflow server of the trial's own starts"
    trained = ["provision", "describe", server, "train", "evaluate", "test"]
    assert steps == [*trained, "provision", "predict"]


def test_predictions_that_a_delivery_would_refuse_are_refused(image, fetched, tmp_path, docker_engine):
    """By the contract's own command line, on the files of a job."""
    words = (image, "--data", str(fetched), "--parameters", '{"breaks": "predict"}')
    code, said, log = Check(tmp_path, *CONTRACT, *words).end(docker_engine)
    assert (code, "nothing breaks the contract" in said) == (1, False)
    told = log[log.index("airflow-mlops contract:") :]
    assert "predict: " in told
    assert "does not answer the split predict" in told
    assert "  | three rows are left out" in told
    assert "Cure: " in told


def test_failed_cases_are_named(image, fetched, tmp_path, docker_engine):
    words = (image, "--data", str(fetched), "--parameters", '{"breaks": "test"}')
    code, _, log = Check(tmp_path, *WHOLE, *words).end(docker_engine)
    assert code == 1
    assert "test: 1 failed: " in log
    assert "it was told to break" in log
    assert "== predict" not in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_interrupts_it_leaves_nothing(image, fetched, tmp_path, docker_engine, number):
    words = (image, "--data", str(fetched), "--parameters", '{"breaks": "train"}')
    check = Check(tmp_path, *WHOLE, *words)
    assert check.process.stderr is not None
    for line in check.process.stderr:
        if line.strip() == "it sleeps":
            check.process.send_signal(number)
            break
    code, said, _ = check.end(docker_engine)
    assert code == 128 + number
    assert "ran on" not in said
