"""The DAG that tidies up: for every place that the YAML files name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from airflow_mlops.factories.maintenance import maintenance_dags
from tests.unit.factories.samples import write

PROCESS = {"process": {"directory": "/srv/model", "command": ["python", "model.py"]}}


def test_it_looks_at_every_place_once_and_a_broken_file_is_left_out(tmp_path):
    loader, applications = tmp_path / "mlops.py", tmp_path / "applications"
    assert maintenance_dags(str(loader)) == {}
    applications.mkdir()
    write(applications, "one", code=PROCESS)
    write(applications, "two")
    write(applications, "three", store="/other")
    (applications / "broken.yaml").write_text("application: [")

    dag = maintenance_dags(str(loader))["mlops_maintenance"]
    task = dag.get_task("reap")
    assert task.runners == [
        {"kind": "docker", "docker_conn_id": "docker_default"},
        {"kind": "process", "root": "/s/one/jobs"},
    ]
    assert task.stores == ["/other", "/s"]
    assert task.applications == ["one", "three", "two"]


def test_the_loader_has_it(tmp_path):
    shipped = Path(__file__).parents[3] / "dags/mlops.py"
    (tmp_path / "mlops.py").write_text(shipped.read_text())
    (tmp_path / "applications").mkdir()
    write(tmp_path / "applications", "one", code=PROCESS)
    code = "import runpy; print(runpy.run_path('mlops.py')['mlops_maintenance'].dag_id)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "mlops_maintenance"
    assert (tmp_path / "applications/one.py").is_file()
