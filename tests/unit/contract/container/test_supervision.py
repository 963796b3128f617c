"""`run --`: what a command sees of it, and SageMaker's channels around it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
TINY = Path(__file__).parents[1] / "tiny.py"


def python(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-S", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*command, **environment):
    return python("-m", "airflow_mlops.contract", "run", "--", *command, **environment)


def ended(process):
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def test_where_the_data_is_there_the_wrapper_becomes_the_command(tmp_path):
    process = run("sh", "-c", "echo $$; exit 7", MLOPS_ROOT=str(tmp_path))
    assert ended(process) == (7, f"{process.pid}\n", "")


@pytest.mark.parametrize(("command", "code"), [("/no/such/program", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_run_has_the_exit_code_of_shells(tmp_path, command, code):
    found, _, errors = ended(run(command, MLOPS_ROOT=str(tmp_path)))
    assert found == code
    assert command in errors


def brought(tmp_path, paths):
    """A root as SageMaker lays it out of what `prepare` made."""
    root = tmp_path / "sagemaker"
    for split in ("train", "validation"):
        (root / "input/data" / split).mkdir(parents=True)
        (paths.split(split) / "part-0.parquet").rename(root / f"input/data/{split}/part-0.parquet")
    channel = root / "input/data/mlops/input/config"
    channel.mkdir(parents=True)
    paths.config.rename(channel / "mlops.json")
    return root


def test_python_model_code_finds_what_sagemaker_brought(tmp_path, prepare):
    root = brought(tmp_path, prepare({"rounds": 2}))

    code, output, errors = ended(python(str(TINY), "train", MLOPS_ROOT=str(root)))

    assert code == 0, errors
    assert output.count("::mlops::") == 2
    assert (root / "model/model.json").is_file()
    kept = root / "output/data/mlops"
    assert json.loads((kept / "metrics.json").read_text())[0]["name"] == "loss"
    assert json.loads((kept / "exit_code").read_text()) == 0


def test_a_failure_is_kept_where_sagemaker_looks_for_it(tmp_path, prepare):
    root = brought(tmp_path, prepare({"fail": "data"}))
    assert ended(python(str(TINY), "train", MLOPS_ROOT=str(root)))[0] == 11
    assert "no such thing" in (root / "output/failure").read_text()
    assert "no such thing" in (root / "output/data/mlops/failure").read_text()


def test_sigterm_reaches_the_model_code(tmp_path, prepare):
    root = brought(tmp_path, prepare({"fail": "hang"}))
    process = python(str(TINY), "train", MLOPS_ROOT=str(root))
    assert any("hanging" in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143
    assert (root / "checkpoints/state.json").is_file()


def test_of_several_machines_the_first_one_hands_over(tmp_path, prepare):
    root = brought(tmp_path, prepare())
    (root / "input/config").mkdir()
    hosts = {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]}
    (root / "input/config/resourceconfig.json").write_text(json.dumps(hosts))
    assert ended(python(str(TINY), "train", MLOPS_ROOT=str(root)))[0] == 0
    assert not (root / "output/data").exists()


def test_an_address_that_nobody_answers_at_is_not_repeated(tmp_path):
    script = "import sys; from airflow_mlops.contract.container import supervision; from airflow_mlops.contract.container import transfer; transfer.TRIES = 2; sys.exit(supervision.run(['true']))"
    address = "http://127.0.0.1:1/?secret=x"
    code, _, errors = ended(python("-c", script, MLOPS_ROOT=str(tmp_path), MLOPS_TRANSFER=address))
    assert code == 75
    assert "does not answer" in errors
    assert "secret" not in errors
