"""The tutorial's Airflow part, in a real Airflow: its model is trained, and predicts what comes later."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fixtures.markdown import ROOT, blocks, write_files


@pytest.mark.airflow
@pytest.mark.timeout(600)
def test_the_first_application_trains_and_predicts(airflow, tmp_path):
    files = {block.file: block.text for block in blocks(ROOT / "docs/tutorial.md") if block.file}
    (tmp_path / "data").mkdir()
    write_files(tmp_path, files)
    subprocess.run([sys.executable, "make_data.py"], cwd=tmp_path, check=True)
    # Airflow reads one folder of applications here: the YAML's paths are made absolute.
    yaml = (
        files["applications/churn.yaml"].replace("..,", f"{tmp_path},").replace(": ..\n", f": {tmp_path}\n")
    )
    airflow.add("churn", yaml.replace("../store", str(tmp_path / "store")))
    wanted = {f"churn__{name}" for name in ("provisioning", "training", "delivery", "monitoring")}
    airflow.until("DAGs", lambda: wanted <= airflow.dag_ids())

    run_id = airflow.client.trigger("churn__training", {"why": "the tutorial", "parameters": {"C": 0.5}})
    assert airflow.finish("churn__training", run_id) == "success"
    registered = airflow.client.xcom("churn__training", run_id, "register")
    assert (registered["model"], registered["version"], registered["champion"]) == ("churn", "1", True)

    later = files["make_data.py"].replace("range(5000)", "range(5000, 6000)").replace("2026", "later", 2)
    (tmp_path / "later.py").write_text(later.replace("later-01-01", "2026-01-01"))
    subprocess.run([sys.executable, "later.py"], cwd=tmp_path, check=True)
    run_id = airflow.client.trigger("churn__delivery", {})
    assert airflow.finish("churn__delivery", run_id) == "success"
    assert airflow.client.xcom("churn__delivery", run_id, "predict")["rows"] == 1000
    run_id = airflow.until("monitoring", lambda: airflow.triggered_by_asset("churn__monitoring"))
    assert airflow.finish("churn__monitoring", run_id) == "success"
    airflow.remove("churn")
