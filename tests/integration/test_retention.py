"""Retention with a real MLflow server: what a registered model or an open run uses stays."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from airflow_mlops.hooks.mlflow.hook import MLflowHook
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.primitives.datasets.retention import Keep, RetentionRule
from airflow_mlops.stores.datasets.retention import Pruning
from airflow_mlops.stores.datasets.versions import DatasetStore
from tests.fixtures.versions import Version, complete

NOTHING = RetentionRule(Keep(0, timedelta(0)), Keep(0, timedelta(0)))


@pytest.fixture
def hook(mlflow_server, monkeypatch):
    for key, value in mlflow_server.environment.items():
        monkeypatch.setenv(key, value)
    return MLflowHook()


@pytest.fixture(params=["files", "s3"])
def datasets(request, tmp_path):
    if request.param == "files":
        return DatasetStore(open_store(tmp_path / "store"), "app")
    return DatasetStore(open_store(f"s3://{request.getfixturevalue('s3_bucket')}/mlops"), "app")


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: nothing\n")
    return folder


def lineage(version: Version, application: str) -> dict[str, str]:
    return {"airflow_mlops.dataset_id": version.id, "airflow_mlops.application": application}


def start(hook: MLflowHook, datasets: DatasetStore, version: Version, *, named: bool = True) -> str:
    """A run that is open, and says by its dataset input what it learns from."""
    run = hook.find_or_create_run(f"experiment-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex)
    if named:
        hook.log_dataset(
            run, name="app.dataset", digest=version.id, source=datasets.manifest_address(version.id)
        )
    return run


def test_what_is_in_use_stays_and_goes_when_it_is_not(hook, datasets, model, tmp_path):
    application = f"app-{uuid.uuid4().hex[:8]}"
    registered, running, ended, unused, latest = (
        Version(tmp_path / "files", [1, month]) for month in (2, 3, 4, 5, 6)
    )
    for version in (registered, running, ended, unused, latest):
        version.publish(datasets)

    run = start(hook, datasets, registered)
    hook.log_directory(run, model, "model")
    hook.finish_run(run)
    number = hook.register_model(application, run, tags=lineage(registered, application))
    other = start(hook, datasets, unused)
    hook.finish_run(other, "FAILED")
    hook.finish_run(start(hook, datasets, ended))
    open_run = start(hook, datasets, running)

    uses = hook.datasets_in_use(application)
    assert uses[registered.id] == [f"version {number} of model {application}"]
    assert uses[running.id] == [f"open run {open_run}"]
    assert {ended.id, unused.id, latest.id}.isdisjoint(uses)
    assert registered.id not in hook.datasets_in_use("another application")
    assert registered.id in hook.datasets_in_use()

    later = Pruning(datasets, now=datetime.now(UTC) + timedelta(days=2))
    found = later.prune(NOTHING, uses, dry_run=False)
    assert set(found.versions) == {ended.id, unused.id}
    assert complete(datasets) == {registered.id, running.id, latest.id}

    hook.finish_run(open_run)
    found = later.prune(NOTHING, hook.datasets_in_use(application), dry_run=False)
    assert found.versions == (running.id,)
    assert complete(datasets) == {registered.id, latest.id}


def test_a_run_that_names_its_dataset_by_a_tag_counts(hook, tmp_path):
    version = Version(tmp_path / "files", [1])
    run = hook.find_or_create_run(f"e-{uuid.uuid4().hex[:8]}", "key", tags=lineage(version, "app"))
    assert hook.datasets_in_use()[version.id] == [f"open run {run}"]
    hook.finish_run(run, "KILLED")
    assert version.id not in hook.datasets_in_use()


def test_all_pages_are_read(hook, tmp_path, monkeypatch):
    """More experiments than fit into one search."""
    monkeypatch.setattr("airflow_mlops.hooks.mlflow.runs._EXPERIMENTS_PER_SEARCH", 1)
    versions = [Version(tmp_path / "files", [month]) for month in (1, 2, 3)]
    runs = [
        hook.find_or_create_run(f"e-{uuid.uuid4().hex[:8]}", "key", tags=lineage(version, "app"))
        for version in versions
    ]
    assert {version.id for version in versions} <= set(hook.datasets_in_use())
    for run in runs:
        hook.finish_run(run)
