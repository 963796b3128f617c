from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from airflow.sdk import (
    DAG,
    Asset,
    AssetAll,
    AssetAny,
    AssetOrTimeSchedule,
    BaseOperator,
    CronTriggerTimetable,
)

from airflow_mlops.cli import main
from airflow_mlops.cli.application.plan import describe_dag
from tests.unit.spec.features.test_pipeline import SMALLEST
from tests.unit.spec.samples import MINIMAL

TINY = MINIMAL + "store: /s\n"


class Step(BaseOperator):
    def execute(self, context):
        return None


@pytest.mark.parametrize(
    ("schedule", "described"),
    [
        (None, {"cron": None, "assets": [], "needs": "any"}),
        (
            CronTriggerTimetable("0 3 * * 1", timezone="UTC"),
            {"cron": "0 3 * * 1", "assets": [], "needs": "any"},
        ),
        ([Asset("a"), Asset("b")], {"cron": None, "assets": ["a", "b"], "needs": "all"}),
        (
            AssetAny(Asset("a"), AssetAll(Asset.ref(name="b"))),
            {"cron": None, "assets": ["a", "b"], "needs": "any"},
        ),
        (
            AssetOrTimeSchedule(
                timetable=CronTriggerTimetable("0 0 * * *", timezone="UTC"), assets=AssetAny(Asset("a"))
            ),
            {"cron": "0 0 * * *", "assets": ["a"], "needs": "any"},
        ),
    ],
)
def test_schedules(schedule, described):
    assert describe_dag(DAG("x", schedule=schedule))["schedule"] == described


def test_tasks_come_in_the_order_in_which_they_may_run():
    with DAG("x", schedule=None) as dag:
        last = Step(task_id="a_last", outlets=[Asset("model")])
        first = Step(task_id="b_first", inlets=[Asset("data")])
        middle = Step(task_id="c_middle")
        first >> middle >> last
        first >> last
    assert describe_dag(dag)["tasks"] == [
        {"task_id": "b_first", "operator": "Step", "after": [], "reads": ["data"], "writes": []},
        {"task_id": "c_middle", "operator": "Step", "after": ["b_first"], "reads": [], "writes": []},
        {
            "task_id": "a_last",
            "operator": "Step",
            "after": ["b_first", "c_middle"],
            "reads": [],
            "writes": ["model"],
        },
    ]


def test_the_real_plan_of_an_application(tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny.yaml").write_text(TINY + 'retraining: {schedule: "0 5 * * *"}\n')
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "tiny.yaml"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny (tiny.yaml)\n")
    assert "  tiny__training: at 0 5 * * * UTC" in out
    assert main(["plan", "--json", "."]) == 0
    [plan] = json.loads(capsys.readouterr().out)["applications"]
    tasks = {dag["dag_id"]: [task["task_id"] for task in dag["tasks"]] for dag in plan["dags"]}
    assert {"tiny__provisioning", "tiny__training"} <= tasks.keys()
    assert tasks["tiny__training"].index("train") < tasks["tiny__training"].index("evaluate")


def test_a_bad_file_is_1_and_the_good_ones_are_planned(tmp_path, capsys, monkeypatch):
    factories = SimpleNamespace(build_dags=lambda spec: {})
    monkeypatch.setitem(__import__("sys").modules, "airflow_mlops.factories", factories)
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "bad.yaml").write_text("aplication: x")
    assert main(["plan", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("tiny (")
    assert "bad.yaml:1:1: aplication is not a known key" in said.err


def test_no_such_file_is_2(capsys):
    assert main(["plan", "no.yaml"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_plan_of_a_feature_pipeline(tmp_path, monkeypatch, capsys):
    (tmp_path / "weather.yaml").write_text(SMALLEST + "schedule: {assets: [landed]}\n")
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "weather.yaml"]) == 0
    out = capsys.readouterr().out
    assert "  airport_weather__features: on news of landed" in out
    assert "writes airport_weather.features" in out
    assert main(["plan", "--json", "."]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["applications"] == []
    ((plan,), (dag,)) = said["features"], said["features"][0]["dags"]
    assert plan["features"] == "airport_weather"
    assert [task["task_id"] for task in dag["tasks"]] == [
        *("extract", "transform", "publish", "apply", "announce")
    ]
