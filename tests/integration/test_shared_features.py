"""The shipped feature pipeline and the two applications that share it, on the flights of 2013."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from airflow.sdk.definitions.xcom_arg import XComArg
from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.factories import build_dags
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.jobs.files import column_config
from airflow_mlops.spec import load_folder
from airflow_mlops.stores.datasets.versions import DatasetStore
from examples.flight_delay import flights

ROOT = Path(__file__).resolve().parents[2]
MONTHS = flights.MONTHS[:3]


class Events(list):
    def ascending(self, ascending):
        return self if ascending else Events(reversed(self))

    def limit(self, number):
        return Events(self[:number])


class Memory(dict):
    def set(self, key, value):
        self[key] = value


class Installation:
    """The shipped YAML files with a store and data of the test's own, and their tasks one after the other."""

    def __init__(self, home: Path) -> None:
        self.home, self.runs = home, 0
        shutil.copytree(ROOT / "dags", home / "dags", ignore=shutil.ignore_patterns("*.py", "flight_delay.*"))
        for folder in ("applications", "features"):
            (home / "dags" / folder / "defaults.yaml").unlink()
        (home / "dags" / "defaults.yaml").write_text(
            f"store: {home}/store\nfolder: {home}/data\n"
            f"provisioning: {{examples: {{folder: {home}/data}}}}\ntraining: {{run_on: process}}\n"
        )
        for folder in ("applications", "features"):
            (home / "dags" / folder / "defaults.yaml").write_text("")
        loaded, errors = load_folder(home / "dags")
        assert not errors, errors
        self.loaded = loaded
        self.memory: dict[Any, Memory] = {}
        self.told: dict[Any, Events] = {}

    def land(self, month: str) -> None:
        flights.land_schedule(self.home / "data", month)
        flights.land_labels(self.home / "data", month)

    def run(self, dag_id: str) -> dict[str, Any]:
        """Run a DAG's tasks here: what each returned, ``None`` for one that was skipped."""
        dag = next(found for one in self.loaded if (found := build_dags(one.spec, only=dag_id).get(dag_id)))
        results: dict[str, Any] = {}
        self.runs += 1
        params = {name: dag.params[name] for name in dag.params}
        for task in dag.topological_sort():
            for name in task.template_fields:
                setattr(task, name, self._value(dag, getattr(task, name), params, results))
            events = {asset: SimpleNamespace(extra={}) for asset in task.outlets}
            context = {
                "ti": SimpleNamespace(
                    dag_id=dag_id, run_id=f"r{self.runs}", task_id=task.task_id, map_index=-1, try_number=1, max_tries=0
                ),
                "task": task,
                "params": params,
                "outlet_events": events,
                "inlet_events": {asset: self.told.setdefault(asset, Events()) for asset in task.inlets},
                "asset_state_store": {asset: self.memory.setdefault(asset, Memory()) for asset in task.inlets},
            }  # fmt: skip
            if task._pre_execute_hook:
                task._pre_execute_hook(context)
            try:
                results[task.task_id] = task.execute(context)
                for asset, event in events.items():
                    self.told.setdefault(asset, Events()).append(event)
            except AirflowSkipException:
                results[task.task_id] = None
        return results

    def _value(self, dag, value, params, results):
        if isinstance(value, XComArg):
            return results[value.operator.task_id]
        if hasattr(value, "resolve"):  # said as it is, and no template
            return value.resolve({})
        if isinstance(value, str) and "{{" in value:
            return dag.get_template_env().from_string(value).render(params=params)
        return value

    def dataset(self, application: str, provisioned: dict[str, Any]) -> DatasetStore:
        return DatasetStore(open_store(provisioned["store"]), application)

    def train(self, application: str, provisioned: dict[str, Any]) -> dict[str, float]:
        """Train and evaluate the model code on a dataset; its metrics of the test split."""
        root, datasets = self.home / f"job-{application}", self.dataset(application, provisioned)
        for split, files in datasets.fetch(provisioned["dataset_id"], root / "fetched").items():
            (root / "input/data" / split).mkdir(parents=True)
            for file in files:
                shutil.copy(file, root / "input/data" / split)
        (root / "input/config").mkdir()
        config = {
            "contract": 1,
            "seed": 7,
            "parameters": {"max_iter": 50},
            "columns": column_config(datasets.manifest(provisioned["dataset_id"])),
        }
        (root / "input/config/mlops.json").write_text(json.dumps(config))
        for word in ("train", "evaluate"):
            done = subprocess.run(
                [sys.executable, ROOT / "examples/flight_delay/model_code.py", word],
                env={**os.environ, "MLOPS_ROOT": str(root)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        metrics = json.loads((root / "output/metrics.json").read_text())
        return {one["name"]: one["value"] for one in metrics if "slice" not in one}


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    home = tmp_path_factory.mktemp("shared")
    extra = {
        "project": "flights",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{home}/registry.db"},
        "online_store": {"type": "sqlite", "path": f"{home}/online.db"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_FEAST_DEFAULT", json.dumps({"conn_type": "feast", "extra": extra}))
        yield Installation(home)


@pytest.mark.timeout(600)
def test_two_applications_learn_from_features_that_were_made_once(installation):
    for month in MONTHS[:2]:
        installation.land(month)
    made = installation.run("airport_weather__features")
    landed = f"{installation.home}/data/features/weather/*.parquet"
    (rows,) = duckdb.sql(f"SELECT count(*) FROM '{landed}'").fetchone()
    assert made["announce"]["new_rows"] == made["announce"]["rows"] == rows
    assert made["announce"]["partitions"] == ["2013-01", "2013-02", "2013-03"]  # the last night, in UTC

    columns = {}
    for application, target in (("long_delay", "long_delay"), ("early_arrival", "early")):
        provisioned = installation.run(f"{application}__provisioning")["provision"]
        datasets = installation.dataset(application, provisioned)
        manifest = datasets.manifest(provisioned["dataset_id"])
        columns[application] = set(column_config(manifest)["features"])
        assert column_config(manifest)["targets"] == [target]
        assert installation.train(application, provisioned)["auc"] > 0.55, "what its YAML requires"
    shared = {"felt_temp", "wind_speed", "wind_gust", "visib"}
    assert shared <= columns["early_arrival"]
    assert not {"temp", "icing"} & columns["early_arrival"], "its service has four of the features"
    assert shared | {"temp", "icing"} <= columns["long_delay"]

    # The next month: only it is published, and what was joined before is joined again as it was.
    installation.land(MONTHS[2])
    again = installation.run("airport_weather__features")["announce"]
    (total,) = duckdb.sql(f"SELECT count(*) FROM '{landed}'").fetchone()
    assert (again["rows"], again["new_rows"]) == (total, total - rows)
    assert installation.run("airport_weather__features")["announce"] is None, "nothing new, nothing told"


def test_no_joined_observation_is_younger_than_its_question(installation):
    provisioned = installation.run("long_delay__provisioning")["provision"]
    datasets = installation.dataset("long_delay", provisioned)
    fetched = datasets.fetch(provisioned["dataset_id"], installation.home / "checked")
    files = [str(path) for paths in fetched.values() for path in paths]
    data = f"{installation.home}/data"
    wrong = duckdb.sql(f"""
        SELECT count(*) AS wrong, count(temp) AS known FROM read_parquet({files}) AS joined
        ASOF LEFT JOIN (SELECT origin AS at, created, temp AS published FROM '{data}/features/weather/*.parquet')
            AS weather ON joined.origin = weather.at AND joined.event_timestamp >= weather.created
        WHERE joined.temp IS NOT NULL AND joined.temp IS DISTINCT FROM weather.published
    """).fetchone()[0]
    (known,) = duckdb.sql(f"SELECT count(temp) FROM read_parquet({files})").fetchone()
    assert known > 50_000
    assert wrong == 0
