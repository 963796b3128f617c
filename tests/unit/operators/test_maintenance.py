"""What is removed of finished tasks, and what never is."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException

from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.maintenance import ReapJobsOperator
from airflow_mlops.quirks.installation import installation
from airflow_mlops.runners import get_runner
from airflow_mlops.stores.checkpoints import CheckpointStore
from tests.fixtures.jobs import eventually, tiny_job

STATES = {
    "run1": {"train": "success", "evaluate": "deferred", "trials_0": "failed", "trials_1": "up_for_retry"},
    "run2": {"train": "running", "evaluate": None},
}


def task_states(*, dag_id, run_ids, task_ids):
    known = STATES if dag_id == "tiny__training" else {}
    return {
        run: {key: state for key, state in known[run].items() if key.rstrip("_01") in task_ids}
        for run in run_ids
        if run in known
    }


@pytest.fixture
def place(tmp_path):
    """Jobs by name that belong to some task each."""
    root, store = tmp_path / "jobs", str(tmp_path / "store")
    runner = get_runner("process", root=str(root))

    def start(name, run_id, task_id, *, age=3600, do="learn", map_index=-1, **labels):
        of = {
            "application": "tiny",
            "dag_id": "tiny__training",
            "run_id": run_id,
            "task_id": task_id,
            "map_index": str(map_index),
            "store": store,
            "airflow": installation(),
        }
        runner.submit(replace(tiny_job(name, do=do, seconds="600"), labels=of | labels))
        moment = time.time() - age
        os.utime(root / name / "job.json", (moment, moment))

    yield SimpleNamespace(start=start, root=root, store=store, runner=runner)
    for folder in root.glob("*"):
        runner.cleanup(folder.name)


def reap(place, **arguments):
    given = {"runners": [{"kind": "process", "root": str(place.root)}], "stores": [place.store]}
    operator = ReapJobsOperator(task_id="reap", **{**given, **arguments})
    return operator.execute({"ti": SimpleNamespace(get_task_states=task_states)})


def left(place):
    return sorted(folder.name for folder in place.root.iterdir())


def test_what_is_over_or_deleted_goes_and_nothing_else(place):
    place.start("over", "run1", "train", do="sleep")
    place.start("deleted-run", "run0", "train")
    place.start("deleted-dag", "run1", "train", dag_id="gone__training")
    place.start("failed-map", "run1", "trials", map_index=0)
    place.start("retried-map", "run1", "trials", map_index=1)
    place.start("deferred", "run1", "evaluate", do="sleep")
    place.start("running", "run2", "train", do="sleep")
    place.start("cleared", "run2", "evaluate")
    place.start("young", "run1", "train", age=10)
    place.start("other-store", "run1", "train", store="/elsewhere")
    place.start("other-airflow", "run1", "train", airflow="0123456789ab")
    place.start("by-hand", "", "")
    eventually(lambda: place.runner.inspect("running").status == "running")

    assert reap(place) == {"removed": ["deleted-dag", "deleted-run", "failed-map", "over"], "kept": 8}
    kept = [
        "by-hand",
        "cleared",
        "deferred",
        "other-airflow",
        "other-store",
        "retried-map",
        "running",
        "young",
    ]
    assert left(place) == kept
    assert place.runner.inspect("deferred").status == "running"
    assert reap(place) == {"removed": [], "kept": 8}


def test_what_was_started_before_a_clear_goes_though_the_task_waits_again(place):
    before = {"job": "before", "try": "1"}
    place.start("before", "run2", "train", do="sleep", **before)
    place.start("before-trial", "run2", "train", **before)
    # Part of the new job though an earlier try has made it.
    place.start("after-data", "run2", "train", job="after", **{"try": "2"})
    place.start("after", "run2", "train", do="sleep", age=5, job="after", **{"try": "3"})
    place.start("other-task", "run1", "evaluate", job="other", **{"try": "1"})
    assert reap(place) == {"removed": ["before", "before-trial"], "kept": 3}
    assert left(place) == ["after", "after-data", "other-task"]


def test_a_place_that_does_not_answer_does_not_keep_the_others_from_being_tidied_up(place):
    place.start("over", "run1", "train")
    away = {"kind": "docker", "docker_conn_id": "far_away"}
    os.environ["AIRFLOW_CONN_FAR_AWAY"] = (
        '{"conn_type": "docker", "extra": {"engine": "unix:///nowhere.sock"}}'
    )
    try:
        with pytest.raises(AirflowException, match=r"1 places.*\n.*nowhere"):
            reap(place, runners=[away, {"kind": "process", "root": str(place.root)}])
    finally:
        del os.environ["AIRFLOW_CONN_FAR_AWAY"]
    assert left(place) == []


def test_checkpoints_of_tasks_that_are_over_go_too(place, tmp_path):
    store = open_store(place.store)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/weights").write_text("w")
    for job, task in (("job-over", "train"), ("job-deferred", "evaluate")):
        owner = {"dag_id": "tiny__training", "run_id": "run1", "task_id": task, "map_index": "-1"}
        CheckpointStore(store, "tiny", job).save(tmp_path / "checkpoints", 1, owner)
    assert reap(place, applications=["tiny"]) == {"removed": ["job-over"], "kept": 1}
    assert CheckpointStore.jobs(store, "tiny") == ["job-deferred"]


@pytest.mark.docker
@pytest.mark.usefixtures("tiny_image", "no_leftovers")
def test_containers_of_an_engine(docker_engine, place):
    runner, name = get_runner("docker", docker_conn_id=""), "mlops-test-reaped"
    labels = {"dag_id": "tiny__training", "run_id": "run1", "task_id": "train", "store": place.store}
    runner.submit(
        replace(tiny_job(name, do="sleep", seconds="600"), labels=labels | {"airflow": installation()})
    )
    docker = [{"kind": "docker", "docker_conn_id": ""}]
    try:
        assert reap(place, runners=docker)["removed"] == []
        assert reap(place, runners=docker, older_than=0)["removed"] == [name]
        assert docker_engine.containers(name) == []
    finally:
        runner.cleanup(name)
