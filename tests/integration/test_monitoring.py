"""The monitoring operators over a real store: datasets, predictions, labels that land month by month."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mlops.assets import retraining_asset
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.monitoring.alarm import RaiseAlarmOperator
from airflow_mlops.operators.monitoring.decide import DecideRetrainingOperator
from airflow_mlops.operators.monitoring.performance import MeasurePerformanceOperator
from airflow_mlops.operators.monitoring.profile import ProfileInputsOperator
from airflow_mlops.primitives.datasets.manifest import Chunk, Column, Manifest
from airflow_mlops.stores.datasets.versions import DatasetStore
from tests.fixtures.inlets import Events

APP = "flight_delay"
INPUTS = ("temp", "wind", "carrier")
PERFORMANCE = {"loss": "brier", "false_alarm_rate": 1e-6, "min_rows": 1000}
RULES = {
    "drift": {"alarm": "warn"},
    "performance": PERFORMANCE,
    "retraining": {"on": ["drift", "performance"]},
}


class World:
    """An application whose months arrive one after another."""

    def __init__(self, folder):
        self.folder = folder
        self.uri = str(folder / "store")
        self.store = open_store(self.uri)
        self.rng = np.random.default_rng(3)
        self.events = Events()
        (folder / "landed").mkdir()
        self.reference = self.dataset("train", 1, self.inputs(8000))
        self.land(1, split="train")
        self.examples = {
            "parquet": "landed/*.parquet",
            "folder": str(folder),
            "keys": ["flight_id"],
            "timestamp": "event_timestamp",
            "targets": ["late"],
            "targets_known_at": "known_at",
        }

    def inputs(self, n, warmer=0.0):
        temp = self.rng.normal(50 + warmer, 10, n)
        return {
            "temp": temp,
            "wind": self.rng.gamma(2, 5, n),
            "carrier": self.rng.choice(["AA", "UA", "B6"], n),
        }

    def dataset(self, split, month, columns):
        """Publish a dataset version of one split and one chunk."""
        n = len(next(iter(columns.values())))
        start = datetime(2013, month, 1, tzinfo=UTC)
        times = [start + timedelta(days=28) * (i / n) for i in range(1, n + 1)]
        table = pa.table(
            {"flight_id": [month * 10**6 + i for i in range(n)], "event_timestamp": times} | columns
        )
        path = self.folder / f"{split}{month}.parquet"
        pq.write_table(table, path)
        digest = f"{month:02d}{'ab' * 31}"
        roles = {"flight_id": "key", "event_timestamp": "timestamp"}
        manifest = Manifest(
            application=APP,
            purpose="training" if split == "train" else "prediction",
            columns=tuple(Column(f.name, str(f.type), roles.get(f.name, "feature")) for f in table.schema),
            chunks=(Chunk(digest, split, n, times[0].isoformat(), times[-1].isoformat()),),
            window=(start.isoformat(), times[-1].isoformat()),
        )
        DatasetStore(self.store, APP).publish(manifest, {digest: path}, {"time": start.isoformat()})
        return manifest

    def predict(self, month, n=4000, version="1", **changes):
        """Publish a month's predictions by a model that says .3, as the publishing task does."""
        columns = self.inputs(n, changes.pop("warmer", 0.0)) | changes
        manifest = self.dataset("predict", month, {k: v for k, v in columns.items() if v is not None})
        table = pq.read_table(
            self.folder / f"predict{month}.parquet", columns=["flight_id", "event_timestamp"]
        )
        predictions = table.append_column("prediction", pa.array(np.full(n, 0.3)))
        window_id = f"2013{month:02d}01T000000Z"
        pq.write_table(predictions, self.folder / "predictions.parquet")
        key = f"{APP}/predictions/{window_id}"
        self.store.put_if_absent(f"{key}/predictions.parquet", self.folder / "predictions.parquet")
        meta = {
            "window_id": window_id,
            "window": list(manifest.window),
            "rows": n,
            "application": APP,
            "dataset_id": manifest.id,
            "model": APP,
            "model_version": version,
            "reference_dataset_id": self.reference.id,
            "run_id": "run",
            "predicted_at": manifest.window[1],
            "reference": {
                "metrics": [{"name": "brier", "value": 0.21, "stderr": 0.001, "n": 9000, "split": "test"}]
            },
        }
        self.store.put_json_if_absent(f"{key}/meta.json", meta)
        return window_id

    def land(self, month, share=0.3, cancelled=0.02, split="predict"):
        """Let the month's flights land; some never do."""
        table = pq.read_table(
            self.folder / f"{split}{month}.parquet", columns=["flight_id", "event_timestamp"]
        )
        n = table.num_rows
        late = pa.array((self.rng.random(n) < share).astype(int))
        known = pa.array([t + timedelta(hours=5) for t in table["event_timestamp"].to_pylist()])
        table = table.append_column("late", late).append_column("known_at", known)
        landed = table.filter(pa.array(self.rng.random(n) >= cancelled))
        pq.write_table(landed, self.folder / "landed" / f"{month}.parquet")

    def where(self, task_id):
        return {"task_id": task_id, "application": APP, "store": self.uri}

    def profile(self, drift=None):
        return ProfileInputsOperator(**self.where("profile"), drift=drift or {}).execute({})

    def measure(self):
        return MeasurePerformanceOperator(
            **self.where("measure"), examples=self.examples, performance=PERFORMANCE
        ).execute({})

    def decide(self, **rules):
        operator = DecideRetrainingOperator(**self.where("decide"), rules={**RULES, **rules})
        return operator.execute(self.context())

    def context(self):
        return {"inlet_events": {retraining_asset(APP): self.events}}

    def raise_alarm(self, decision):
        """Raise it, and let Airflow keep the event; a second one of a run that raises again is another event."""
        outlet = retraining_asset(APP)
        event = SimpleNamespace(extra={})
        context = {
            "outlet_events": {outlet: event},
            "ti": SimpleNamespace(run_id="run1"),
            **self.context(),
        }
        operator = RaiseAlarmOperator(**self.where("raise"), decision=decision, outlets=[outlet])
        raised = operator.execute(context)
        self.events.append(
            SimpleNamespace(
                id=len(self.events) + 1,
                timestamp=datetime.now(UTC),
                extra=event.extra,
                source_run_id="run1",
            )
        )
        return raised, event.extra

    def report(self, window_id, name):
        return self.store.read_json(f"{APP}/monitoring/windows/{window_id}/{name}.json")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_the_months_go_by_until_the_model_gets_worse_and_one_alarm_is_raised(world):
    march = world.predict(3)
    assert world.profile() == [{"window_id": march, "model_version": "1", "rows": 4000, "drifted": []}]
    assert world.measure() == []
    assert world.decide() == {"decision": "OK", "windows": [], "alarms": []}

    world.land(3)
    (measured,) = world.measure()
    assert measured["labelled"] > 3800
    assert not measured["degraded"]
    assert [w["decision"] for w in world.decide()["windows"]] == ["OK"]

    april = world.predict(4, warmer=8)
    world.land(4, share=0.45)
    assert world.profile()[0]["drifted"] == ["temp"]
    assert world.measure()[0]["degraded"]
    decision = world.decide()
    assert decision["decision"] == "RETRAIN"
    json.dumps(decision, allow_nan=False)

    ids, extra = world.raise_alarm(decision)
    assert ids == [extra["alarm_id"]]
    assert extra["reason"] == "performance"
    assert extra["window_id"] == april
    assert extra["model_version"] == "1"
    assert extra["figures"]["actual"] > extra["figures"]["tested_bound"]
    assert extra["figures"]["drifted_columns"][0]["column"] == "temp"
    assert extra["alarms"] == [{key: value for key, value in extra.items() if key != "alarms"}]
    assert world.decide() == {"decision": "OK", "windows": [], "alarms": []}


def test_running_every_task_again_changes_nothing(world):
    world.predict(3)
    world.land(3, share=0.5)
    world.profile(), world.measure(), world.decide()
    before = {key: world.store.read(key) for key in world.store.list(f"{APP}/monitoring/")}
    assert (world.profile(), world.measure()) == ([], [])
    world.decide()
    assert {key: world.store.read(key) for key in world.store.list(f"{APP}/monitoring/")} == before


def test_an_alarm_survives_a_crash_between_deciding_and_raising(world):
    world.predict(3)
    world.land(3, share=0.5)
    world.profile(), world.measure()
    first = world.decide()
    again = world.decide()
    assert again["windows"] == []
    assert again["alarms"] == first["alarms"]
    assert world.raise_alarm(again)[0] == world.raise_alarm(first)[0]
    assert world.decide()["alarms"] == []


def test_no_alarm_skips_what_comes_after(world):
    with pytest.raises(AirflowSkipException, match="No alarm"):
        world.raise_alarm(world.decide())


def test_the_profile_of_a_window_and_of_its_reference_are_stock_whylogs(world):
    from airflow_mlops.hooks.whylogs import read_profile

    march = world.predict(3)
    world.profile()
    window = read_profile(world.store.read(f"{APP}/monitoring/windows/{march}/profile.bin"))
    reference = read_profile(world.store.read(f"{APP}/monitoring/references/{world.reference.id}.bin"))
    assert tuple(window["columns"]) == tuple(reference["columns"]) == tuple(sorted(INPUTS))
    assert window["columns"]["carrier"]["counts/n"] == 4000
    assert reference["columns"]["temp"]["distribution/mean"] == pytest.approx(50, abs=1)


def test_a_month_without_a_column_fails_once_by_name_and_holds_up_no_other(world):
    march = world.predict(3, wind=None)
    april = world.predict(4)
    with pytest.raises(AirflowFailException, match=f"Window {march}: .* lacks 1 column: wind"):
        world.profile()
    assert "lacks 1 column: wind" in world.report(march, "inputs")["error"]
    assert world.report(april, "inputs")["drifted"] == []
    assert world.profile() == []
    world.land(3), world.land(4)
    world.measure()
    assert [w["decision"] for w in world.decide()["windows"]] == ["WARN", "OK"]


def test_labels_that_never_land_do_not_block_once_the_next_month_has_landed(world):
    world.predict(3), world.predict(4)
    world.land(3, cancelled=0.2)
    assert world.measure() == []
    world.land(4)
    assert [m["labelled"] > 3000 for m in world.measure()] == [True, True]


def test_months_are_measured_in_their_order_whatever_lands_first(world):
    march, april = world.predict(3), world.predict(4)
    world.land(3), world.land(4)
    late = world.folder / "landed" / "3.parquet"
    kept = late.read_bytes()
    late.unlink()
    early = world.folder / "landed" / "4.parquet"
    half = pq.read_table(early).slice(0, 0)
    whole = early.read_bytes()
    pq.write_table(half, early)
    assert world.measure() == []
    early.write_bytes(whole), late.write_bytes(kept)
    assert [m["window_id"] for m in world.measure()] == [march, april]
    assert world.report(april, "performance")["state"]["labels"] > 7500


def test_a_slow_decline_is_found_across_months_and_the_next_version_starts_anew(world):
    for month in range(3, 10):
        world.predict(month, n=1500)
        world.land(month, share=0.35)
    degraded = [m["degraded"] for m in world.measure()]
    assert degraded.index(True) > 0
    october = world.predict(10, n=1500, version="2")
    world.land(10, share=0.3)
    world.measure()
    assert world.report(october, "performance")["state"]["labels"] < 1501


def test_an_alarm_about_a_model_that_was_replaced_is_only_a_warning(world):
    world.predict(3), world.predict(4, version="2")
    world.land(3, share=0.5), world.land(4)
    world.profile(), world.measure()
    decision = world.decide()
    assert [w["decision"] for w in decision["windows"]] == ["WARN", "OK"]
    assert "has been replaced by 2" in decision["windows"][0]["message"]
    assert decision["alarms"] == []


def test_drift_retrains_only_when_asked_and_enough_columns_moved(world):
    world.predict(3, warmer=8, carrier=np.array(["AA"] * 3000 + ["ZZ"] * 1000))
    world.profile()
    rules = {"drift": {"alarm": "retrain", "min_columns": 2}, "performance": None}
    decision = world.decide(**rules)
    assert decision["alarms"][0]["reason"] == "drift"
    assert decision["alarms"][0]["figures"]["drifted"] == 2


def test_a_misspelt_rule_fails_the_task_for_good(world):
    world.predict(3)
    with pytest.raises(AirflowFailException, match=r"monitoring\.drift\.min_row is not a known key"):
        world.profile(drift={"min_row": 10})
