"""Windows that cannot be measured: told once, in nobody's way."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from types import SimpleNamespace

import duckdb
import pyarrow.parquet as pq
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.assets import retraining_asset
from airflow_mlops.hooks.mlflow.hook import MLflowHook
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.monitoring.alarm import RaiseAlarmOperator
from airflow_mlops.operators.monitoring.decide import DecideRetrainingOperator
from airflow_mlops.operators.monitoring.performance import MeasurePerformanceOperator
from tests.fixtures.inlets import Events
from tests.fixtures.tasks import EXAMPLES, write_examples

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
BRIER = {"name": "brier", "value": 0.2, "stderr": 0.01, "n": 100, "split": "test"}
RULES = {
    "drift": {"alarm": "retrain", "min_columns": 1},
    "performance": {"min_rows": 10},
    "retraining": {"on": ["drift"]},
}


class World:
    """Published predictions of a tiny application, whose labels are there."""

    def __init__(self, folder):
        self.folder, self.uri = folder, str(folder / "store")
        self.store = open_store(self.uri)
        self.events = Events()

    def predict(self, number: int, version: str, metrics: list) -> str:
        window_id = f"2026010{number}T000000Z"
        path = self.folder / "data" / f"{number}.parquet"
        write_examples(path, 50, start=f"2026-01-0{number}", first=1000 * number)
        self.store.put_if_absent(f"tiny/predictions/{window_id}/predictions.parquet", path)
        meta = {
            "window_id": window_id,
            "window": [f"2026-01-0{number}T00:00:00+00:00", f"2026-01-0{number}T02:00:00+00:00"],
            "rows": 50,
            "application": "tiny",
            "dataset_id": f"p{number}",
            "predicted_at": "2026-01-09T00:00:00+00:00",
            "model": "m",
            "model_version": version,
            "reference_dataset_id": "d",
            "run_id": "r1",
            "reference": {"metrics": metrics},
        }
        self.store.put_json_if_absent(f"tiny/predictions/{window_id}/meta.json", meta)
        drifted = {"column": "x", "kind": "number", "drifted": True, "p_value": 1e-9, "effects": {"ks": 0.4}}
        inputs = {
            "window_id": window_id,
            "model_version": version,
            "rows": 50,
            "reference_rows": 50,
            "threshold": 1e-4,
            "drifted": ["x"],
            "judged": True,
            "columns": [drifted],
        }
        self.store.put_json_if_absent(f"tiny/monitoring/windows/{window_id}/inputs.json", inputs)
        return window_id

    def measure(self):
        examples = {**EXAMPLES, "parquet": "*.parquet", "folder": str(self.folder / "data")}
        operator = MeasurePerformanceOperator(
            task_id="measure",
            application="tiny",
            store=self.uri,
            examples=examples,
            performance={"min_rows": 10},
        )
        return operator.execute({})

    def context(self):
        return {"inlet_events": {retraining_asset("tiny"): self.events}}

    def decide(self):
        operator = DecideRetrainingOperator(task_id="decide", application="tiny", store=self.uri, rules=RULES)
        return operator.execute(self.context())

    def raise_alarm(self, decision, *, dies: bool = False):
        """Let the task run; its event is there only if it ends well."""
        outlet = retraining_asset("tiny")
        operator = RaiseAlarmOperator(
            task_id="raise_alarm", application="tiny", store=self.uri, decision=decision, outlets=[outlet]
        )
        event = SimpleNamespace(extra=None)
        raised = operator.execute(
            {"outlet_events": {outlet: event}, "ti": SimpleNamespace(run_id="run1"), **self.context()}
        )
        if not dies:
            event = SimpleNamespace(id=7, timestamp=NOON, extra=event.extra, source_run_id="run1")
            self.events.append(event)
        return raised


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_model_that_promised_no_such_loss_holds_up_no_other_window(world):
    mute = world.predict(1, "1", [{"name": "auc", "value": 0.7, "split": "test"}])
    fine = world.predict(2, "2", [BRIER])
    with pytest.raises(AirflowFailException, match=rf"{mute}: Model m version 1.*no metric brier"):
        world.measure()
    report = world.store.read_json(f"tiny/monitoring/windows/{fine}/performance.json")
    assert report["labelled"] == 50
    # It has been said: the next run goes on, and a window of the same model that comes later is told again.
    assert world.measure() == []
    world.predict(3, "1", [])
    with pytest.raises(AirflowFailException, match="20260103"):
        world.measure()
    assert world.measure() == []


def test_such_a_window_is_decided_by_its_inputs(world):
    world.predict(1, "1", [])
    with pytest.raises(AirflowFailException):
        world.measure()
    decision = world.decide()
    assert decision["decision"] == "RETRAIN"
    (alarm,) = decision["alarms"]
    assert alarm["reason"] == "drift"
    assert "could not be measured" in alarm["message"]
    json.dumps(decision, allow_nan=False)


def examples_of(world, number: int, **columns) -> None:
    """Change columns of a day's labels, by SQL."""
    path = world.folder / "data" / f"{number}.parquet"
    made = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    table = duckdb.sql(f"SELECT * REPLACE ({made}) FROM '{path}'").to_arrow_table()
    pq.write_table(table, path)


def report_of(world, window: str) -> dict:
    return world.store.read_json(f"tiny/monitoring/windows/{window}/performance.json")


def test_a_window_of_labels_that_are_none_stops_no_other_one(world):
    first, second, other = (
        world.predict(1, "1", [BRIER]),
        world.predict(2, "1", [BRIER]),
        world.predict(3, "2", [BRIER]),
    )
    target = EXAMPLES["targets"][0]
    for number, label in ((1, "2.0::DOUBLE"), (2, f"{target}::DOUBLE"), (3, f"{target}::DOUBLE")):
        examples_of(world, number, **{target: label})
    with pytest.raises(AirflowFailException, match=rf"{first}.*expected labels 0 and 1.*CASE"):
        world.measure()
    assert "error" in report_of(world, first)
    assert [report_of(world, window)["labelled"] for window in (second, other)] == [50, 50]
    assert world.measure() == []


def test_the_newest_of_several_labels_counts_and_the_others_are_counted(world):
    window = world.predict(1, "1", [BRIER])
    path = world.folder / "data" / "1.parquet"
    pq.write_table(
        duckdb.sql(f"FROM '{path}' LIMIT 7").to_arrow_table(), world.folder / "data" / "again.parquet"
    )
    world.measure()
    report = report_of(world, window)
    assert (report["labelled"], report["replaced"]) == (50, 7)


def test_nan_labels_are_no_labels_and_do_not_silence_the_alarm(world):
    window, later = world.predict(1, "1", [BRIER]), world.predict(2, "1", [BRIER])
    target = EXAMPLES["targets"][0]
    examples_of(world, 2, **{target: f"{target}::DOUBLE"})
    examples_of(world, 1, **{target: f"CASE WHEN id % 50 = 7 THEN 'nan'::DOUBLE ELSE {target}::DOUBLE END"})
    world.measure()
    assert report_of(world, window)["labelled"] == 49
    state = report_of(world, later)["state"]["log_wealth"]
    assert all(math.isfinite(wealth) for wealth in state)
    raw = world.store.read(f"tiny/monitoring/windows/{window}/performance.json")
    json.loads(raw, parse_constant=pytest.fail)


class TestAlarms:
    """The event is the truth, the marker follows from it."""

    @pytest.fixture
    def alarmed(self, world):
        window = world.predict(1, "1", [])
        with pytest.raises(AirflowFailException):
            world.measure()
        return window

    def test_one_whose_task_died_before_its_success_is_raised_again(self, world, alarmed):
        first = world.decide()
        world.raise_alarm(first, dies=True)
        again = world.decide()
        assert again["alarms"] == first["alarms"]
        assert again["decision"] == "RETRAIN"
        assert world.raise_alarm(again) == [first["alarms"][0]["alarm_id"]]

    def test_one_that_was_told_is_not_told_again(self, world, alarmed):
        world.raise_alarm(world.decide())
        assert world.decide() == {"decision": "OK", "windows": [], "alarms": []}
        marker = world.store.read_json(f"tiny/monitoring/windows/{alarmed}/raised.json")
        assert (marker["run_id"], marker["event"]) == ("run1", 7)
        # Airflow may forget old events.
        world.events = Events()
        assert world.decide()["alarms"] == []

    def test_several_in_one_event_are_all_told(self, world, alarmed):
        world.raise_alarm(world.decide(), dies=True)
        world.predict(2, "1", [])
        with pytest.raises(AirflowFailException):
            world.measure()
        both = world.decide()
        assert len(both["alarms"]) == 2
        world.raise_alarm(both)
        assert world.decide()["alarms"] == []

    def test_however_much_there_is_to_say(self, world, alarmed):
        decision = world.decide()
        (alarm,) = decision["alarms"]
        many = [{**alarm, "alarm_id": f"a{n}", "message": "m\0" * 5000} for n in range(100)]
        world.raise_alarm({**decision, "alarms": [*many, alarm]})
        text = json.dumps(world.events.all[0].extra)
        assert "\\u0000" not in text
        assert len(text) < 100_000
        assert world.decide()["alarms"] == []

    def test_whatever_else_was_posted_is_no_alarm(self, world, alarmed):
        deep: dict[str, object] = {}
        for _ in range(2_000):
            deep = {"a": deep}
        posted = (
            None,
            {},
            {"alarms": 7},
            {"alarms": ["x", None, {}]},
            {"alarm_id": ["x"]},
            {"alarm_id": deep},
        )
        for extra in posted:
            world.events.append(SimpleNamespace(id=1, timestamp=NOON, extra=extra, source_run_id=None))
        assert len(world.decide()["alarms"]) == 1


def test_a_warning_is_one_in_the_log_too(world, capsys):
    world.predict(1, "1", [])
    with pytest.raises(AirflowFailException):
        world.measure()
    rules = {**RULES, "retraining": {"on": []}}
    operator = DecideRetrainingOperator(task_id="decide", application="tiny", store=world.uri, rules=rules)
    assert operator.execute(world.context())["decision"] == "WARN"
    assert any("[warning" in line and "WARN" in line for line in capsys.readouterr().out.splitlines())


def test_the_decision_leads_to_the_model_without_a_server_to_ask(world, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", '{"conn_type": "mlflow", "host": "http://127.0.0.1:9"}')
    monkeypatch.setattr(
        MLflowHook, "run", lambda hook, run_id: SimpleNamespace(experiment_id="3", run_id=run_id)
    )
    world.predict(1, "4", [BRIER])
    operator = DecideRetrainingOperator(
        task_id="decide", application="tiny", store=world.uri, rules=RULES, mlflow_conn_id="mlflow_default"
    )
    operator.execute(world.context())
    links = {link.name: link.get_link(operator, ti_key=None) for link in operator.operator_extra_links}
    assert links == {
        "MLflow run": "http://127.0.0.1:9/#/experiments/3/runs/r1",
        "Report": "http://127.0.0.1:9/#/experiments/3/runs/r1/artifacts/evaluation/report.html",
        "MLflow model": "http://127.0.0.1:9/#/models/m/versions/4",
    }
