"""Reasons in a DAG run: taken once, answered once, whoever starts, clears or fails it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from airflow_mlops.assets import code_asset, retraining_asset, training_asset
from airflow_mlops.exceptions import TrackingUnavailableError
from airflow_mlops.hooks.mlflow.hook import MLflowHook
from airflow_mlops.operators.retraining import (
    AnswerReasonsOperator,
    CollectReasonsOperator,
    ConcludeTrainingOperator,
    RearmOperator,
)
from airflow_mlops.primitives.reasons import short_ids
from tests.fixtures.inlets import Events

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PASSED, REFUSED = {"passed": True}, {"passed": False}


class Store:
    """An asset's state, kept as JSON text between tasks."""

    def __init__(self):
        self.values = {}

    def get(self, key, default=None):
        return self.values.get(key, default)

    def set(self, key, value):
        self.values[key] = value


class ByAsset(dict):
    """Found by the asset's name and URI, as Airflow does."""

    def get(self, asset, default=None):
        return self[asset]

    def __getitem__(self, asset):
        said = {key: getattr(asset, key) for key in ("name", "uri") if hasattr(asset, key)}
        return next(
            value for key, value in self.items() if said.items() <= {"name": key.name, "uri": key.uri}.items()
        )


@dataclass
class World:
    """An application's retraining asset, and the training runs that it sees."""

    store: Store = field(default_factory=Store)
    events: Events = field(default_factory=Events)
    asset: Any = field(default_factory=lambda: retraining_asset("tiny"))
    new_code: Events = field(default_factory=Events)
    training: Any = field(default_factory=lambda: SimpleNamespace(extra=None))

    def alarm(self, number, minutes=0, **extra):
        at = NOON + timedelta(minutes=minutes)
        extra = {"reason": "performance", "alarm_id": f"alarm{number}", **extra}
        self.events.append(SimpleNamespace(id=len(self.events), timestamp=at, extra=extra))

    def context(self, run_id="run1", run_type="asset_triggered", clear_number=0, by=(), late=0):
        return {
            "ti": SimpleNamespace(run_id=run_id),
            "dag_run": SimpleNamespace(
                run_id=run_id,
                run_type=run_type,
                run_after=NOON,
                start_date=NOON + timedelta(minutes=late),
                triggering_user_name="ann" if run_type == "manual" else None,
                clear_number=clear_number,
            ),
            "triggering_asset_events": ByAsset({self.asset: [*by], code_asset("tiny"): []}),
            "inlet_events": ByAsset({self.asset: self.events, code_asset("tiny"): self.new_code}),
            "asset_state_store": {self.asset: self.store},
            "outlet_events": {training_asset("tiny"): self.training},
        }

    def collect(self, *, why="", model="", **run):
        operator = CollectReasonsOperator(
            task_id="collect_reasons",
            application="tiny",
            why=why,
            model=model,
            experiment="tiny",
            outlets=[training_asset("tiny")],
        )
        return operator.execute(self.context(**run))

    def answer(self, reasons, decision, registered=None, **run):
        operator = AnswerReasonsOperator(
            task_id="answer",
            application="tiny",
            reasons=reasons,
            decision=decision,
            registered=registered,
            outlets=[training_asset("tiny")],
        )
        return operator.execute(self.context(**run))

    @property
    def told(self):
        """What stands on the page of the run."""
        return self.training.extra


@pytest.fixture
def world():
    return World()


def ids(reasons):
    return [reason["id"] for reason in reasons]


class TestWhoStartsARun:
    def test_an_alarm(self, world):
        world.alarm(1)
        assert ids(world.collect()) == ["alarm1"]

    @pytest.mark.parametrize(
        "run_type", ["manual", "operator_triggered", "asset_materialization", "backfill"]
    )
    def test_a_person_or_another_dag_is_a_reason(self, world, run_type):
        (reason,) = world.collect(run_type=run_type, why="new idea")
        assert (reason["kind"], reason["evidence"]["why"]) == ("on_demand", "new idea")

    def test_who_it_was_is_said(self, world):
        (reason,) = world.collect(run_type="manual")
        assert reason["evidence"] == {"who": "ann"}

    def test_the_clock_takes_waiting_alarms_along(self, world):
        world.alarm(1, minutes=-5)
        assert ids(world.collect(run_type="scheduled")) == ["alarm1", "schedule:run1"]

    def test_a_dag_that_is_switched_on_does_not_train_for_a_time_that_is_over(self, world):
        """Airflow makes a run for the last time of the schedule as soon as a DAG is switched on."""
        with pytest.raises(AirflowSkipException):
            world.collect(run_type="scheduled", late=300)
        assert ids(world.collect(run_type="scheduled", run_id="run2")) == ["schedule:run2"]
        # From then on it is a scheduler that was away, or a training that took long.
        assert ids(world.collect(run_type="scheduled", run_id="run3", late=300)) == ["schedule:run3"]

    def test_an_alarm_counts_then_all_the_same(self, world):
        world.alarm(1)
        assert ids(world.collect(run_type="scheduled", late=300)) == ["alarm1"]

    def test_an_event_that_says_nothing_new_skips_the_run(self, world):
        with pytest.raises(AirflowSkipException, match="nothing to do"):
            world.collect()
        assert world.store.values == {}


class TestAnswers:
    def test_a_registered_model_answers_for_good(self, world):
        world.alarm(1)
        world.answer(world.collect(), PASSED, {"version": "2"})
        with pytest.raises(AirflowSkipException):
            world.collect(run_id="run2")

    def test_a_refused_model_answers_too(self, world):
        """Training again from the same data would be refused again."""
        world.alarm(1)
        world.answer(world.collect(), REFUSED)
        with pytest.raises(AirflowSkipException):
            world.collect(run_id="run2")

    @pytest.mark.parametrize("decision", [None, PASSED])
    def test_a_run_that_failed_before_the_gate_or_at_the_registry_does_not(self, world, decision):
        world.alarm(1)
        assert world.answer(world.collect(), decision) == []
        assert ids(world.collect(run_id="run2")) == ["alarm1"]

    def test_a_failed_run_that_a_person_cleared_from_its_training_on_does(self, world):
        """collect_reasons has succeeded and is not run again: its alarm must not start a second training."""
        world.alarm(1)
        reasons = world.collect()
        world.answer(reasons, None)
        world.answer(reasons, PASSED, {"version": "2"}, clear_number=1)
        with pytest.raises(AirflowSkipException):
            world.collect(run_id="run2")

    def test_clearing_a_whole_run_trains_again(self, world):
        world.alarm(1)
        world.answer(world.collect(), PASSED, {"version": "2"})
        (reason,) = world.collect(clear_number=1)
        assert (reason["kind"], reason["evidence"]) == ("on_demand", {"why": "cleared"})

    def test_a_task_tried_again_takes_the_same(self, world):
        world.alarm(1)
        assert world.collect() == world.collect()

    def test_a_skipped_run_answers_nothing(self, world):
        assert world.answer(None, None) == []

    def test_what_came_meanwhile_is_told(self, world):
        world.alarm(1)
        reasons = world.collect()
        world.alarm(2, minutes=1)
        world.alarm(1, minutes=2)
        assert world.answer(reasons, PASSED, {"version": "2"}) == ["alarm2"]
        assert ids(world.collect(run_id="run2")) == ["alarm2"]

    def test_a_run_that_keeps_failing_does_not_wake_itself(self, world):
        world.alarm(1)
        for number in range(3):
            reasons = world.collect(run_id=f"run{number}")
            assert world.answer(reasons, None, run_id=f"run{number}") == []

    def test_the_memory_is_bounded_by_open_runs(self, world):
        for number in range(20):
            world.alarm(number, minutes=number)
            reasons = world.collect(run_id=f"run{number}")
            world.answer(reasons, None if number % 2 else REFUSED, run_id=f"run{number}")
        assert world.store.get("answers")["taken"] == {}


class TestHandedEvents:
    """Those that started the run count, whatever the memory thinks of their time, and once."""

    def test_one_before_everything_that_is_read(self, world):
        world.alarm(1, minutes=60 * 24 * 30)
        world.answer(world.collect(), PASSED, {"version": "1"})
        old = SimpleNamespace(
            timestamp=NOON - timedelta(days=300), extra={"message": "of a clock far behind"}
        )
        (reason,) = world.collect(run_id="run2", by=[old])
        assert reason["evidence"] == old.extra

    def test_one_that_is_read_too_counts_once(self, world):
        world.events.append(SimpleNamespace(id=17, timestamp=NOON, extra={"message": "x"}))
        handed = SimpleNamespace(timestamp=NOON, extra={"message": "x"})
        (reason,) = world.collect(by=[handed])
        world.answer([reason], PASSED, {"version": "1"})
        with pytest.raises(AirflowSkipException):
            world.collect(run_id="run2", by=[handed])

    def test_one_handed_and_read_by_a_later_run_counts_once(self, world):
        handed = SimpleNamespace(timestamp=NOON, extra={"message": "x"})
        world.answer(world.collect(by=[handed]), PASSED, {"version": "1"})
        world.events.append(SimpleNamespace(id=17, timestamp=NOON, extra={"message": "x"}))
        with pytest.raises(AirflowSkipException):
            world.collect(run_id="run2")

    def test_one_that_no_database_keeps_is_collected_and_said(self, world, caplog):
        world.alarm(1, message="a\0b \ud800")
        (reason,) = world.collect()
        assert reason["evidence"]["message"] == r"a\x00b \ud800"
        assert "\\u0000" not in json.dumps([reason, world.told, world.store.values])


class TestARunThatNeverSaidWhatBecameOfIt:
    """answer_reasons used up its tries behind a registered model."""

    @pytest.fixture
    def mlflow(self, monkeypatch):
        known = SimpleNamespace(versions=[], refused=[], asked=0)

        def versions(hook, model):
            known.asked += 1
            if isinstance(known.versions, Exception):
                raise known.versions
            return [SimpleNamespace(tags=tags) for tags in known.versions]

        monkeypatch.setattr(MLflowHook, "versions", versions)
        monkeypatch.setattr(
            MLflowHook,
            "refused_runs",
            lambda hook, experiment, application, run: [
                SimpleNamespace(tags=tags) for name, tags in known.refused if name == run
            ],
        )
        return known

    def test_the_version_carries_what_it_answers(self, world, mlflow):
        world.alarm(1)
        reasons = world.collect(model="m")
        mlflow.versions = [{}, {"airflow_mlops.reason_ids": short_ids(ids(reasons))}]
        with pytest.raises(AirflowSkipException):
            world.collect(run_id="run2", model="m")
        world.alarm(2, minutes=1)
        assert ids(world.collect(run_id="run3", model="m")) == ["alarm2"]

    def test_so_does_a_run_that_the_gate_refused(self, world, mlflow):
        world.alarm(1)
        reasons = world.collect(model="m")
        mlflow.refused = [("run1", {"airflow_mlops.reason_ids": short_ids(ids(reasons))})]
        with pytest.raises(AirflowSkipException):
            world.collect(run_id="run2", model="m")

    def test_without_either_its_reasons_are_taken_again(self, world, mlflow):
        world.alarm(1)
        world.collect(model="m")
        mlflow.versions = [{"airflow_mlops.reason_ids": short_ids(["another"])}]
        assert ids(world.collect(run_id="run2", model="m")) == ["alarm1"]

    def test_a_server_that_is_away_is_asked_again(self, world, mlflow):
        world.alarm(1)
        world.collect(model="m")
        mlflow.versions = TrackingUnavailableError("away")
        with pytest.raises(AirflowException, match="away") as caught:
            world.collect(run_id="run2", model="m")
        assert not isinstance(caught.value, AirflowFailException)

    def test_where_every_run_has_said_so_nobody_is_asked(self, world, mlflow):
        world.alarm(1)
        world.answer(world.collect(model="m"), PASSED, {"version": "1"})
        world.alarm(2, minutes=1)
        world.collect(run_id="run2", model="m")
        assert mlflow.asked == 0


class TestWhatIsSaid:
    def test_why_a_run_trains_is_on_its_page(self, world):
        world.alarm(1, message="brier 0.3")
        world.collect()
        assert (world.told["phase"], world.told["message"]) == ("begun", "performance: brier 0.3")
        assert ids(world.told["reasons"]) == ["alarm1"]

    @pytest.mark.parametrize(
        ("decision", "registered", "outcome"),
        [
            (PASSED, {"version": "2"}, "registered"),
            (REFUSED, None, "refused"),
            (None, None, "failed"),
            (PASSED, None, "failed"),
        ],
    )
    def test_and_how_it_ended(self, world, decision, registered, outcome):
        world.alarm(1)
        world.answer(world.collect(), decision, registered)
        assert (world.told["phase"], world.told["outcome"]) == ("ended", outcome)
        assert world.told["why"] == "performance"

    def test_an_alarm_without_a_new_model_is_a_warning(self, world, capsys):
        world.alarm(1)
        world.answer(world.collect(), {**REFUSED, "message": "auc is too low."})
        assert "somebody has to look" in world.told["message"]
        assert "auc is too low." in world.told["message"]
        warnings = [line for line in capsys.readouterr().out.splitlines() if "[warning" in line]
        assert any("stays in use" in line for line in warnings)

    def test_a_wish_without_a_new_model_is_none(self, world):
        world.answer(world.collect(run_type="manual"), REFUSED)
        assert "somebody has to look" not in world.told["message"]


class TestConclude:
    def run(self, reasons, decision, registered, **states):
        operator = ConcludeTrainingOperator(
            task_id="conclude",
            reasons=reasons,
            decision=decision,
            registered=registered,
            watched=["answer_reasons", "rearm"],
        )

        def task_states(dag_id, task_ids, run_ids):
            return {run_ids[0]: {name: states.get(name, "success") for name in task_ids}}

        ti = SimpleNamespace(dag_id="tiny__training", run_id="run1", get_task_states=task_states)
        operator.execute({"ti": ti})

    @pytest.mark.parametrize(
        ("reasons", "decision", "registered", "states"),
        [
            ([{"id": "a"}], PASSED, {"version": "1"}, {}),
            ([{"id": "a"}], REFUSED, None, {"register": "skipped"}),
            (None, None, None, {"register": "skipped"}),
            ("null", "null", "null", {"register": "skipped"}),
            ('[{"id": "a"}]', '{"passed": true}', '{"version": "1"}', {"rearm": "skipped"}),
            # Airflow calls such a run failed by itself.
            ([{"id": "a"}], None, None, {"register": "upstream_failed"}),
            ([{"id": "a"}], PASSED, None, {"register": "failed"}),
        ],
    )
    def test_a_run_that_came_to_its_end_is_left_alone(self, reasons, decision, registered, states):
        self.run(reasons, decision, registered, **states)

    @pytest.mark.parametrize(
        ("decision", "states"),
        [
            (None, {"train": "failed", "register": "skipped"}),
            ("null", {"register": "skipped"}),
            (PASSED, {"register": "skipped"}),
            (PASSED, {"register": "success"}),
        ],
    )
    def test_one_that_was_marked_as_failed_is_red(self, decision, states):
        with pytest.raises(AirflowFailException, match="came to no decision"):
            self.run([{"id": "a"}], decision, None, **states)

    def test_so_is_one_whose_books_are_not_kept(self):
        with pytest.raises(AirflowFailException, match="answer_reasons failed"):
            self.run([{"id": "a"}], PASSED, {"version": "1"}, answer_reasons="failed")


class TestEventsThatAirflowCannotShow:
    """The run of one has not started: a person cleared it, or failed it in the queue (apache/airflow#71360)."""

    def test_the_others_are_reasons(self, world):
        for number in range(5):
            world.alarm(number, minutes=number)
        world.events.all[2].waits = True
        assert ids(world.collect()) == ["alarm0", "alarm1", "alarm3", "alarm4"]

    def test_its_reason_is_taken_once_it_can_be_read(self, world):
        for number in range(3):
            world.alarm(number, minutes=number)
        world.events.all[1].waits = True
        world.answer(world.collect(), PASSED, {"version": "2"})
        world.events.all[1].waits = False
        assert ids(world.collect(run_id="run2")) == ["alarm1"]

    def test_what_started_the_run_itself_is_at_hand(self, world):
        """Another DAG of the same asset has a run that waits: these events are unreadable, but not unknown."""
        world.alarm(1)
        world.events.append(
            SimpleNamespace(id=7, timestamp=NOON + timedelta(minutes=1), extra={"who": "ann"})
        )
        by = [*world.events.all]
        for event in by:
            event.waits = True
        reasons = world.collect(by=by)
        assert ids(reasons)[0] == "alarm1"
        assert reasons[1]["evidence"] == {"who": "ann"}
        assert reasons == world.collect(by=by)
        assert world.answer(reasons, PASSED, {"version": "2"}) == []

    def test_what_can_be_read_is_not_taken_twice(self, world):
        world.events.append(SimpleNamespace(id=1, timestamp=NOON, extra={}))
        world.alarm(2, minutes=1)
        world.events.all[1].waits = True
        first, second = world.collect(by=world.events.all)
        assert (first["evidence"], second["id"]) == ({}, "alarm2")

    def test_a_run_is_closed_all_the_same(self, world):
        world.alarm(1)
        reasons = world.collect()
        world.alarm(2, minutes=1)
        world.events.all[1].waits = True
        assert world.answer(reasons, PASSED, {"version": "2"}) == []
        assert world.store.get("answers")["answered"] == ["alarm1"]


class TestRearm:
    def operator(self, pending):
        return RearmOperator(task_id="rearm", application="tiny", pending=pending)

    def test_it_wakes_the_dag_without_being_a_reason(self, world):
        event = SimpleNamespace(extra={})
        self.operator(["alarm2"]).execute({"outlet_events": {world.asset: event}})
        assert event.extra == {"reason": "rearm", "pending": ["alarm2"]}
        world.events.append(SimpleNamespace(id=1, timestamp=NOON, extra=event.extra))
        with pytest.raises(AirflowSkipException):
            world.collect()

    @pytest.mark.parametrize("pending", [None, []])
    def test_it_skips_when_nothing_came(self, pending):
        with pytest.raises(AirflowSkipException):
            self.operator(pending).execute({})


class TestNewCode:
    def watched(self, world, digest="sha256:2"):
        payload = {
            "reason": "new_code",
            "id": f"registry/tiny:1: sha256:1 -> {digest}",
            "message": f"registry/tiny:1 is now {digest}",
        }
        extra = {"from_trigger": True, "payload": payload}
        world.new_code.append(SimpleNamespace(id=len(world.new_code), timestamp=NOON, extra=extra))

    def test_what_a_watcher_noticed_is_a_reason_once(self, world):
        self.watched(world)
        self.watched(world)  # sent again, because nobody knew whether it was committed
        (reason,) = world.collect()
        assert (reason["kind"], reason["evidence"]["message"]) == (
            "new_code",
            "registry/tiny:1 is now sha256:2",
        )
        world.answer([reason], PASSED, {"version": "1"})
        self.watched(world)
        with pytest.raises(AirflowSkipException):
            world.collect(run_id="run2")

    def test_whoever_built_it_may_say_so_without_a_word(self, world):
        world.new_code.append(SimpleNamespace(id=7, timestamp=NOON, extra={"commit": "abc"}))
        (reason,) = world.collect()
        assert (reason["kind"], reason["evidence"]) == ("new_code", {"commit": "abc"})

    def test_it_comes_together_with_an_alarm(self, world):
        world.alarm(1)
        self.watched(world)
        assert {reason["kind"] for reason in world.collect()} == {"performance", "new_code"}
