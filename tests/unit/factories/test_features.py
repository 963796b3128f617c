"""The DAG of a feature pipeline: which task follows which, what each is told, and what the asset says."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk import CronDataIntervalTimetable, CronTriggerTimetable

from airflow_mlops.assets import dataset_asset, features_asset
from airflow_mlops.factories import application_dags, build_dags
from airflow_mlops.factories.features import definitions_of
from airflow_mlops.spec import load_features

YAML: dict[str, Any] = {
    "features": "weather",
    "description": "Hourly weather.",
    "owner": "data-team",
    "tags": ["demo"],
    "store": "/s",
    "extract": {"files": "/in/*.parquet", "watermark": "created", "late": "2d"},
    "publish": {"timestamp": "time", "created": "created"},
    "views": [{"entities": {"origin": "string"}, "ttl": "3h", "features": {"temp": "float64"}}],
    "services": {"delay_v1": ["weather", {"view": "plane", "features": ["seats"], "alias": "p"}]},
}


PUBLISHED = {("publish", "apply"), ("publish", "announce"), ("apply", "announce")}


@pytest.fixture
def spec(tmp_path):
    def load(**keys):
        path = tmp_path / "weather.yaml"
        path.write_text(json.dumps({**YAML, **keys}))
        return load_features(path)

    return load


@pytest.fixture
def build(spec):
    def build(**keys):
        (dag,) = build_dags(spec(**keys)).values()
        return dag

    return build


def said(value):
    """What a task is told, as it runs."""
    return value.resolve({}) if hasattr(value, "resolve") else value


def edges(dag):
    return {(task.task_id, following) for task in dag.tasks for following in task.downstream_task_ids}


class TestTheDag:
    def test_extract_transform_publish_apply_announce(self, build):
        dag = build()
        assert dag.dag_id == "weather__features"
        assert edges(dag) == {("extract", "transform"), *PUBLISHED, ("transform", "publish")}
        assert (dag.catchup, dag.max_active_runs) == (False, 1)
        assert set(dag.tags) == {"mlops", "weather", "demo"}
        assert '"features": "weather"' in dag.doc_md
        assert {task.owner for task in dag.tasks} == {"data-team"}
        assert {task.retries for task in dag.tasks} == {2}
        dag.validate()

    def test_what_is_online_is_materialized_unless_somebody_else_does(self, build):
        views = [{**YAML["views"][0], "online": True}]
        dag = build(views=views)
        assert {("apply", "materialize"), ("materialize", "announce"), *PUBLISHED} - {
            ("apply", "announce")
        } <= (edges(dag))
        assert dag.get_task("materialize").views == ["weather"]
        assert dag.get_task("materialize").late == "2d"
        assert "materialize" not in build(views=views, materialize=False).task_ids

    @pytest.mark.parametrize("online", [False, True])
    def test_the_last_task_updates_the_asset(self, build, online):
        dag = build(views=[{**YAML["views"][0], "online": online}])
        emitted = {task.task_id: [asset.name for asset in task.outlets] for task in dag.tasks if task.outlets}
        assert emitted == {"announce": ["weather.features"]}
        last = {task.task_id for task in dag.tasks if not task.downstream_task_ids}
        assert last == {"announce"}

    def test_what_was_changed_in_the_file_is_applied_without_new_rows(self, build):
        dag = build(views=[{**YAML["views"][0], "online": True}])
        rules = {task.task_id: task.trigger_rule.value for task in dag.tasks}
        assert rules.pop("apply") == "none_failed", "it runs when extraction found nothing, and was skipped"
        assert set(rules.values()) == {"all_success"}
        for news in ("materialize", "announce"):  # skipped with `publish`, whatever `apply` did
            assert "publish" in dag.get_task(news).upstream_task_ids

    def test_the_image_in_place_of_sql(self, build):
        dag = build(prepare={"image": "f:1", "parameters": {"days": 7}, "resources": {"memory": "1g"}})
        assert edges(dag) == {("extract", "prepare"), ("prepare", "publish"), *PUBLISHED}
        task = dag.get_task("prepare")
        assert task.code == {"image": "f:1"}
        assert task.runner == {"kind": "docker", "docker_conn_id": "docker_default"}
        assert (task.parameters, task.limits["memory"]) == ({"days": 7}, 1024**3)
        assert task.columns == {"keys": ["origin"], "timestamp": "time", "features": ["temp"]}

    def test_as_a_process_its_jobs_lie_in_the_store(self, build, tmp_path):
        dag = build(prepare={"process": {"directory": str(tmp_path), "command": ["python", "m.py"]}})
        task = dag.get_task("prepare")
        assert task.runner == {"kind": "process", "root": "/s/features/weather/jobs"}
        process = {"process": {"directory": str(tmp_path), "command": ["python", "m.py"]}}
        remote = build(prepare=process, store="s3://bucket/mlops").get_task("prepare")
        assert "://" not in remote.runner["root"], "a bucket is no folder"
        assert task.code == {"entrypoint": ["python", "m.py"], "directory": str(tmp_path)}

    def test_a_worker_builds_it_only_when_it_needs_it(self, spec):
        assert list(build_dags(spec(), only="weather__features")) == ["weather__features"]
        assert build_dags(spec(), only="weather__training") == {}

    def test_a_stub_beside_its_yaml_finds_it(self, spec, tmp_path):
        spec()
        assert set(application_dags(str(tmp_path / "weather.py"))) == {"weather__features"}


class TestWhatTasksAreTold:
    def test_the_source_as_json_values(self, build):
        source = said(build().get_task("extract").source)
        assert source == {
            "files": "/in/*.parquet",
            "watermark": "created",
            "late": "2d",
            "batch_rows": 50000,
        }
        extract = {"connection": "wh", "sql": "SELECT 1 FROM t WHERE u >= :after", "watermark": "u"}
        source = said(build(extract=extract).get_task("extract").source)
        assert (source["connection"], source["sql"]) == ("wh", extract["sql"])
        http = {"endpoint": "v1", "params": {"since": ":after"}}
        source = said(build(extract={"http": http}).get_task("extract").source)
        assert source["http"] == {
            "connection": "http_default",
            "endpoint": "v1",
            "format": "json",
            "params": {"since": ":after"},
        }

    def test_what_looks_like_a_template_is_none(self, build):
        """``LIKE '{%'`` is SQL, and an author of YAML gets no password of a connection into the browser."""
        sql = "SELECT * FROM extracted WHERE note NOT LIKE '{%' AND note <> '{{ conn.wh.password }}'"
        dag = build(
            extract={"connection": "wh", "sql": sql, "watermark": "u"},
            transform={"sql": sql, "tables": {"t": "/in/{{ x }}.parquet"}},
            views=[{**YAML["views"][0], "description": "What {{ is }} measured."}],
        )
        found = {}
        for task_id in ("extract", "transform", "apply"):
            task = dag.get_task(task_id)
            found[task_id] = {
                name: task.render_template(getattr(task, name), {})
                for name in ("source", "sql", "tables", "definitions")
                if name in task.template_fields
            }
        assert found["extract"]["source"]["sql"] == sql
        assert found["transform"] == {"sql": sql, "tables": {"t": "/in/{{ x }}.parquet"}}
        assert found["apply"]["definitions"][0]["description"] == "What {{ is }} measured."

    def test_publish_knows_rows_rules_and_layout(self, build):
        task = build(assumptions=[{"column": "temp", "not_null": True}]).get_task("publish")
        assert (task.timestamp, task.created, task.keys) == ("time", "created", ["origin"])
        assert (task.partition, task.late) == ("month", "2d")
        assert task.assumptions == [{"column": "temp", "not_null": True, "severity": "fail"}]

    def test_definitions(self, spec):
        view, service = definitions_of(spec())
        assert view == {
            "kind": "feature_view",
            "name": "weather",
            "entities": [{"name": "origin", "join_key": "origin", "type": "string"}],
            "ttl_seconds": 10800,
            "timestamp": "time",
            "created": "created",
            "features": [{"name": "temp", "type": "float64"}],
            "source": {"name": "weather_source", "path": "/s/features/weather/data", "table": "weather"},
            "description": "Hourly weather.",
            "tags": {"pipeline": "weather", "demo": ""},
            "owner": "data-team",
            "online": False,
        }
        assert service == {
            "kind": "feature_service",
            "name": "delay_v1",
            "views": [
                {"view": "weather", "features": None, "join_keys": None, "alias": None},
                {"view": "plane", "features": ["seats"], "join_keys": None, "alias": "p"},
            ],
        }

    def test_everything_is_json(self, build):
        for task in build().tasks:
            for name in task.template_fields:
                json.dumps(getattr(task, name), default=lambda value: f"<{type(value).__name__}>")


def rendered(dag, *, interval=True, **params):
    """Both ends of the window as Airflow renders them for one data interval."""
    from airflow.sdk import macros

    context = {"params": {"start": None, "end": None, **params}, "macros": macros}
    if interval:
        context["data_interval_start"] = datetime(2026, 1, 1, tzinfo=UTC)
        context["data_interval_end"] = datetime(2026, 1, 2, tzinfo=UTC)
    task = dag.get_task("extract")
    environment = dag.get_template_env()
    return tuple(environment.from_string(text).render(context) for text in (task.start, task.end))


class TestWindow:
    def test_by_the_watermark_nothing_is_said(self, build):
        dag = build(schedule="@daily")
        assert rendered(dag) == ("", "")
        assert isinstance(dag.timetable, CronTriggerTimetable)

    def test_the_form_is_stronger(self, build):
        dag = build()
        assert dag.params.dump() == {"start": None, "end": None, "allow_removal": False}
        start, end = rendered(dag, start="2025-01-01T00:00:00Z", end="2025-02-01T00:00:00Z")
        assert (start, end) == ("2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z")

    def test_an_interval_is_that_of_the_run_so_that_airflow_can_backfill(self, build):
        extract = {"files": "/in/*.parquet", "watermark": "created", "window": "interval"}
        dag = build(extract=extract, schedule="@daily")
        assert isinstance(dag.timetable, CronDataIntervalTimetable)
        assert rendered(dag) == ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00")
        assert rendered(dag, start="2025-01-01")[0] == "2025-01-01"
        assert rendered(dag, interval=False) == ("", ""), "started by hand, without a logical date"
        assert dag.start_date < datetime(2000, 1, 1, tzinfo=UTC)
        late = build(extract={**extract, "late": "6h"}, schedule="@daily")
        assert rendered(late)[0] == "2025-12-31T18:00:00+00:00"

    def test_assets_wake_it(self, build):
        dag = build(schedule={"assets": ["landed"]})
        assert [asset.name for asset in dag.timetable.asset_condition.objects] == ["landed"]


class TestAsset:
    def test_its_name_and_address(self):
        asset = features_asset("weather")
        assert (asset.name, asset.uri) == ("weather.features", "mlops://features/weather")
        assert features_asset("tiny") != dataset_asset("tiny")


class TestRemoval:
    @pytest.mark.parametrize("allowed", [True, False])
    def test_only_the_form_of_one_run_allows_it(self, build, allowed):
        dag = build()
        task = dag.get_task("apply")
        assert task.destructive is False
        task._pre_execute_hook({"task": task, "params": {"allow_removal": allowed}})
        assert task.destructive is allowed


def test_the_intervals_of_a_backfill_are_those_of_the_schedule(spec, tmp_path):
    """As Airflow lists them when a backfill is asked for, years before anything was ever scheduled."""
    extract = {"files": "/in/*.parquet", "watermark": "created", "window": "interval"}
    spec(extract=extract, schedule="@daily")
    program = f"""
from datetime import UTC, datetime
from airflow.serialization.serialized_objects import DagSerialization
from airflow_mlops.factories import build_dags
from airflow_mlops.spec import load_features
(dag,) = build_dags(load_features({str(tmp_path / "weather.yaml")!r})).values()
stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
for info in stored.iter_dagrun_infos_between(datetime(2013, 3, 1, tzinfo=UTC), datetime(2013, 3, 2, tzinfo=UTC)):
    print("INTERVAL", info.data_interval.start.isoformat(), info.data_interval.end.isoformat())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("INTERVAL")] == [
        ["2013-03-01T00:00:00+00:00", "2013-03-02T00:00:00+00:00"],
        ["2013-03-02T00:00:00+00:00", "2013-03-03T00:00:00+00:00"],
    ]


def test_airflow_can_store_it(spec, tmp_path):
    """In a process of its own: what serializes DAGs is not for DAG files, and heavy."""
    spec(views=[{**YAML["views"][0], "online": True}])
    program = f"""
import json
from airflow.serialization.serialized_objects import DagSerialization
from airflow_mlops.factories import build_dags
from airflow_mlops.spec import load_features
for dag_id, dag in build_dags(load_features({str(tmp_path / "weather.yaml")!r})).items():
    print("DAG", dag_id, len(json.dumps(DagSerialization.to_dict(dag))) > 1000)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "DAG weather__features True" in done.stdout
