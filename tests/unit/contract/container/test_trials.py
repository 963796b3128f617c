"""Several trainings in one job: each has its own result, and one that fails ends none of the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mlops.contract.container.trials import read_trials
from airflow_mlops.contract.protocol.failures import ParameterError
from airflow_mlops.contract.protocol.paths import Paths
from airflow_mlops.contract.protocol.progress import PREFIX
from tests.fixtures.tuning import FIXED, TUNED


@pytest.fixture
def root(tmp_path):
    for folder in ("input/config", "input/data/train", "output", "model"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "input/data/train/a.parquet").touch()
    return tmp_path


def configure(root, *trials, **more):
    content = {"contract": 1, "parameters": {**FIXED, "x": 0.0, "depth": 1}, "trials": list(trials), **more}
    (root / "input/config/mlops.json").write_text(json.dumps(content))


def trial(number, **parameters):
    return {"number": number, "parameters": {**FIXED, "x": 0.3, "depth": 2, **parameters}}


def train(root, **options):
    return subprocess.Popen(
        [sys.executable, str(TUNED / "model_code.py"), "train"],
        env={"PATH": os.environ["PATH"], "MLOPS_ROOT": str(root), "PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def test_each_trial_has_its_own_result_and_no_model_is_left(root):
    configure(root, trial(4, x=0.3), trial(5, broken=True), trial(6, x="much"), trial(7, x=1.3))
    process = train(root)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output

    results = root / "output/trials"
    found = {path.name: sorted(each.name for each in path.iterdir()) for path in results.iterdir()}
    assert found == {"4": ["metrics.json"], "5": ["failure"], "6": ["failure"], "7": ["metrics.json"]}
    losses = {
        number: json.loads((results / number / "metrics.json").read_text())[0]["value"] for number in "47"
    }
    assert losses == {"4": 0.0, "7": 1.0}
    assert "nothing can be learnt" in (results / "5/failure").read_text()
    assert "x is 'much'" in (results / "6/failure").read_text()
    assert list((root / "model").iterdir()) == []
    assert list((root / "trials").iterdir()) == []


def test_a_stop_ends_them_all_and_keeps_what_is_done(root):
    configure(root, trial(0), trial(1, steps=1, pause=60), trial(2))
    process = train(root)
    begun = 0
    while begun < 2:  # each reports one step, and the second then stays where it is
        line = process.stdout.readline()
        assert line
        begun += line.startswith(PREFIX)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143
    process.stdout.close()
    assert [path.name for path in (root / "output/trials").iterdir()] == ["0"]


def test_a_list_that_is_none_is_named(root):
    paths = Paths(root)
    assert read_trials(paths) == []
    configure(root, {"number": "one", "parameters": {}})
    with pytest.raises(ParameterError, match="expected a list of objects with number and parameters"):
        read_trials(paths)
    process = train(root)
    assert process.wait(timeout=30) == 10
    process.stdout.close()
