"""The reaper in a real Airflow: it asks for the states of tasks as a task may."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

from airflow_mlops.runners import get_runner
from tests.fixtures.jobs import TINY, tiny_job
from tests.fixtures.tasks import write_examples

APPLICATION = {
    "application": "tidy",
    "code": {"process": {"directory": str(TINY), "command": ["sh", "entry.sh"]}},
    "training": {"run_on": "process", "retries": 0, "parameters": {"do": "nap", "seconds": 600}},
}


def test_it_removes_the_job_of_a_deleted_run_and_not_that_of_a_deferred_task(airflow, tmp_path):
    write_examples(tmp_path / "examples.parquet")
    examples = {"folder": str(tmp_path), "parquet": "*.parquet", "keys": ["id"], "timestamp": "asked_at"}
    provisioning = {"features": None, "examples": {**examples, "targets": ["answer"]}}
    airflow.add("tidy", json.dumps({**APPLICATION, "provisioning": provisioning}))
    wanted = {"tidy__training", "mlops_maintenance"}
    airflow.until("DAGs", lambda: wanted <= airflow.dag_ids())
    run_id = airflow.client.trigger("tidy__training", {})
    airflow.until("deferral", lambda: airflow.client.tasks("tidy__training", run_id)["train"] == "deferred")
    root = airflow.store / "tidy" / "jobs"
    (job,) = [folder.name for folder in root.glob("mlops-tidy-train-*")]
    runner = get_runner("process", root=str(root))
    labels = json.loads((root / job / "job.json").read_text())["labels"]
    orphan = replace(tiny_job("orphan", do="sleep", seconds="600"), labels=labels | {"run_id": "deleted"})
    try:
        runner.submit(orphan)
        for name in (job, "orphan"):
            os.utime(root / name / "job.json", (time.time() - 3600,) * 2)

        swept = airflow.client.trigger("mlops_maintenance", {})
        assert airflow.finish("mlops_maintenance", swept) == "success"
        assert airflow.client.xcom("mlops_maintenance", swept, "reap") == {"removed": ["orphan"], "kept": 1}
        assert runner.inspect(job).status == "running"

        # Where the log is, for a triggerer that comes after this one.
        where = f"/dags/tidy__training/dagRuns/{run_id}/taskInstances/train"
        entry = f"{where}/xcomEntries"
        keys = lambda: {each["key"] for each in airflow.client.call("GET", entry)["xcom_entries"]}  # noqa: E731
        airflow.until("position", lambda: "log_cursor" in keys())
        position = airflow.client.call("GET", f"{entry}/log_cursor")["value"]
        position = json.loads(position) if isinstance(position, str) else position
        assert runner.logs(job, position["cursor"]) == []
        assert airflow.log("tidy__training", run_id, "train").count("tiny train begins") == 1
        airflow.client.call("PATCH", where, {"new_state": "failed"})
        airflow.until("no job", lambda: runner.inspect(job).status == "gone")
    finally:
        for name in (job, "orphan"):
            runner.cleanup(name)
