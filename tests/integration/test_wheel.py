"""The wheel in an empty environment with Airflow: it installs, and the shipped DAGs load from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOAD = """
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("dags")
import airflow_mlops
print(json.dumps({"dags": sorted(bag.dags), "errors": bag.import_errors, "package": airflow_mlops.__file__}))
"""


def run(*command: object, **kwargs) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **kwargs
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_shipped_dags_load_from_an_installed_wheel(tmp_path, uv, wheel):
    run(uv, "venv", "--quiet", "--python", "3.11", tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    # The versions of the lock: what is tested is the wheel, not today's index.
    locked = run(
        uv, "export", "--quiet", "--frozen", "--no-hashes", "--no-dev", "--no-emit-project", cwd=ROOT
    )
    (tmp_path / "locked.txt").write_text(locked)
    run(uv, "pip", "install", "--quiet", "--python", python, "--constraint", tmp_path / "locked.txt", wheel)

    # Stubs that a run in the checkout has left are no part of the wheel's.
    stubs = {
        f"{path.stem}.py"
        for folder in ("applications", "features")
        for path in (ROOT / "dags" / folder).glob("*.yaml")
    }
    shutil.copytree(ROOT / "dags", tmp_path / "dags", ignore=shutil.ignore_patterns("__pycache__", *stubs))
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}
    command = tmp_path / "env" / "bin" / "airflow-mlops"
    assert "flight_delay.py" in run(command, "generate", tmp_path / "dags/applications", env=environment)
    assert "airport_weather.py" in run(command, "generate", tmp_path / "dags/features", env=environment)
    run(python.with_name("airflow"), "db", "migrate", env=environment)
    loaded = json.loads(run(python, "-c", LOAD, cwd=tmp_path, env=environment).splitlines()[-1])
    assert loaded["errors"] == {}
    assert str(tmp_path) in loaded["package"]
    primitives = ("delivery", "monitoring", "provisioning", "training")
    assert loaded["dags"] == [
        "airport_weather__features",
        *(f"early_arrival__{primitive}" for primitive in primitives[2:]),
        *(f"flight_delay__{primitive}" for primitive in primitives),
        *(f"long_delay__{primitive}" for primitive in primitives[2:]),
        "mlops_maintenance",
        "nyc_flights__landings",
        "nyc_flights__schedule",
    ]
