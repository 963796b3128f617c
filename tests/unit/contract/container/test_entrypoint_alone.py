"""The contract runs where nothing is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
TINY = Path(__file__).parents[1] / "tiny.py"


@pytest.fixture
def alone(tmp_path):
    """A folder with the contract's part of the package, and the tiny model code beside it."""
    folder = tmp_path / "code"
    package = folder / "airflow_mlops"
    package.mkdir(parents=True)
    shutil.copy(ROOT / "airflow_mlops" / "__init__.py", package)
    shutil.copytree(ROOT / "airflow_mlops" / "contract", package / "contract")
    shutil.copy(TINY, folder / "model_code.py")
    return folder


def python(folder, *arguments, **environment):
    # -S: no site-packages; the folder itself is the only path beside the standard library.
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_and_version(alone):
    result = python(alone, "-m", "airflow_mlops.contract")
    assert result.returncode == 0, result.stderr
    assert "model-code contract 1" in result.stdout


def test_wrong_words_are_refused(alone):
    assert python(alone, "-m", "airflow_mlops.contract", "chekc", ".").returncode == 2
    assert python(alone, "-m", "airflow_mlops.contract", "check", "./nowhere").returncode == 2


def test_a_model_code_describes_itself_and_trains(alone, prepare):
    result = python(alone, "model_code.py", "describe")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["name"] == "tiny"

    paths = prepare()
    result = python(alone, "model_code.py", "train", MLOPS_ROOT=str(paths.root))
    assert result.returncode == 0, result.stderr
    result = python(alone, "-m", "airflow_mlops.contract", "check", str(paths.root))
    assert result.returncode == 0, result.stdout


def test_only_the_standard_library_is_imported(alone):
    program = (
        "import sys, pkgutil, importlib, airflow_mlops.contract as c\n"
        "names = [m.name for m in pkgutil.walk_packages(c.__path__, 'airflow_mlops.contract.')]\n"
        "assert 'airflow_mlops.contract.container.entrypoint' in names\n"
        "[importlib.import_module(name) for name in names if not name.endswith('.__main__')]\n"
        "print([n for n in {m.partition('.')[0] for m in sys.modules} - {'airflow_mlops', '__main__'}"
        " if n not in sys.stdlib_module_names])"
    )
    result = python(alone, "-c", program)
    assert result.stdout.strip() == "[]", result.stderr
