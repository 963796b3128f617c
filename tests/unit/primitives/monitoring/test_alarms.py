import json

import pytest

from airflow_mlops.exceptions import DataError, SpecError
from airflow_mlops.primitives.delivery.batch import PredictionBatch
from airflow_mlops.primitives.monitoring.alarms import Decision, alarm_id, decide_window
from airflow_mlops.primitives.monitoring.rules import DriftRule, PerformanceRule
from airflow_mlops.primitives.monitoring.windows import WindowInputs, WindowPerformance

NAMES = {"window_id": "w3", "model_version": "1"}
BATCH = PredictionBatch(
    window_id="w3",
    window=("2013-03-01T00:00:00+00:00", "2013-03-31T23:00:00+00:00"),
    rows=5100,
    application="flight_delay",
    dataset_id="d3",
    model="flight_delay",
    model_version="1",
    reference_dataset_id="d1",
    run_id="r1",
    predicted_at="2013-04-01T00:00:00+00:00",
)


def inputs(*drifted, judged=True):
    columns = [
        {"column": c, "kind": "number", "drifted": True, "p_value": 1e-9, "effects": {"ks": 0.2}}
        for c in drifted
    ]
    columns.append({"column": "calm", "kind": "number", "drifted": False, "p_value": 0.5, "effects": {}})
    report = {"rows": 5000, "reference_rows": 9000, "judged": judged, "threshold": 1e-4, "columns": columns}
    return WindowInputs.from_json({**NAMES, **report, "drifted": list(drifted), "error": ""})


def performance(*, degraded, **changes):
    report = {
        "rows": 5100,
        "labelled": 5000,
        "loss": "brier",
        "mean": 0.2,
        "interval": [0.19, 0.21],
        "tested": {"mean": 0.15, "stderr": 0.001, "bound": 0.153, "auc": 0.7},
        "auc": 0.65,
        "auc_interval": [0.64, 0.66],
        "e_value": 12_345_678.9,
        "threshold": 1e6,
        "fired_after": 700 if degraded else None,
        "degraded": degraded,
        "state": {"log_wealth": [0.0], "labels": 5000},
    }
    return WindowPerformance.from_json({**NAMES, **report, **changes})


def decide(report, actual, drift=None, watch=None, on=("drift", "performance"), **changes):
    return decide_window(
        BATCH,
        report,
        actual,
        drift_rule=DriftRule.from_mapping(drift),
        performance_rule=PerformanceRule.from_mapping(watch),
        retrain_on=on,
        **changes,
    )


def test_a_quiet_window_is_ok_and_says_the_figures():
    decision = decide(inputs(), performance(degraded=False))
    assert (decision.kind, decision.alarm) == ("OK", None)
    assert (
        "brier 0.2000 (0.1900 to 0.2100) over 5000 labels, as tested (0.1500, at most 0.1530)"
        in decision.message
    )
    assert "None of 1 inputs has drifted" in decision.message


def test_a_worse_spell_within_a_good_window_is_no_alarm():
    decision = decide(inputs(), performance(degraded=False, fired_after=700))
    assert decision.kind == "OK"
    assert "as tested" in decision.message


def test_worse_performance_asks_for_a_new_model_with_evidence():
    decision = decide(inputs("temp", "dewp"), performance(degraded=True))
    assert decision.kind == "RETRAIN"
    alarm = decision.alarm
    assert alarm.reason == "performance"
    assert alarm.alarm_id == alarm_id("flight_delay", "1", "d1", "w3")
    assert alarm.figures["actual"] == 0.2
    assert alarm.figures["tested_bound"] == 0.153
    assert [column["column"] for column in alarm.figures["drifted_columns"]] == ["temp", "dewp"]
    assert "2 of 3 inputs have drifted: temp, dewp." in alarm.message
    stored = json.loads(json.dumps(decision.to_json(), allow_nan=False))
    assert Decision.from_json(stored).to_json() == stored


def test_drift_alone_is_a_warning_unless_asked_for_more():
    assert decide(inputs("temp", "dewp"), performance(degraded=False)).kind == "WARN"
    decision = decide(inputs("temp", "dewp"), performance(degraded=False), drift={"alarm": "retrain"})
    assert (decision.kind, decision.alarm.reason) == ("RETRAIN", "drift")


def test_one_moved_column_is_never_enough_by_default():
    assert decide(inputs("temp"), None, drift={"alarm": "retrain"}).kind == "OK"
    assert decide(inputs("temp"), None, drift={"alarm": "retrain", "min_columns": 1}).kind == "RETRAIN"


@pytest.mark.parametrize(
    "changes",
    [{"watch": {"alarm": "warn"}}, {"on": ("drift",)}, {"superseded_by": "2"}],
    ids=["only warn", "not a reason", "replaced"],
)
def test_when_nobody_wants_a_retraining_people_are_warned(changes):
    decision = decide(inputs(), performance(degraded=True), **changes)
    assert (decision.kind, decision.alarm) == ("WARN", None)


def test_unreadable_inputs_are_a_warning_that_says_why():
    decision = decide(WindowInputs.unreadable(BATCH, "month.parquet lacks 1 column: wind"), None)
    assert decision.kind == "WARN"
    assert "lacks 1 column: wind" in decision.message


def test_too_few_rows_or_labels_are_said():
    assert "5000 rows are too few" in decide(inputs(judged=False), None).message
    nothing = performance(degraded=False, mean=None, interval=None, labelled=0)
    assert "None of 5100 predictions has a label." in decide(inputs(), nothing).message


def test_the_id_of_an_alarm_depends_on_what_it_is_about_and_nothing_else():
    known = alarm_id("flight_delay", "1", "d1", "w3")
    assert known == "7ac256374d5508d7"
    others = [("x", "1", "d1", "w3"), ("flight_delay", "2", "d1", "w3"), ("flight_delay", "1", "d2", "w3")]
    assert (
        len({known, *(alarm_id(*other) for other in others), alarm_id("flight_delay", "1", "d1", "w4")}) == 5
    )


@pytest.mark.parametrize(
    ("rule", "given", "message"),
    [
        (DriftRule, {"min_row": 5}, "monitoring.drift.min_row is not a known key, expected one of alarm"),
        (
            DriftRule,
            {"alarm": "panic"},
            "monitoring.drift.alarm is none of the known words, expected warn or retrain, got the text 'panic'",
        ),
        (
            PerformanceRule,
            {"loss": "rmse"},
            "monitoring.performance.loss is none of the known words, expected brier, error or absolute_error",
        ),
        (
            PerformanceRule,
            {"false_alarm_rate": 0},
            "false_alarm_rate is out of range, expected more than 0, got the number 0",
        ),
    ],
)
def test_a_rule_that_means_nothing_is_refused(rule, given, message):
    with pytest.raises(SpecError, match=message):
        rule.from_mapping(given)


def test_what_is_left_out_of_a_rule_takes_the_default():
    assert DriftRule.from_mapping({"columns": None, "min_rows": 5}) == DriftRule(min_rows=5)
    assert PerformanceRule.from_mapping(None).alarm == "retrain"


def test_records_of_a_window_are_read_as_they_were_written():
    for record in (inputs("temp"), WindowInputs.unreadable(BATCH, "gone"), performance(degraded=True)):
        stored = json.loads(json.dumps(record.to_json(), allow_nan=False))
        assert type(record).from_json(stored).to_json() == record.to_json()
    unmeasured = WindowPerformance.unmeasured(BATCH, "no brier")
    assert unmeasured.to_json() == {
        **NAMES,
        "error": "no brier",
        "rows": 5100,
        "labelled": 0,
        "degraded": False,
    }
    assert WindowPerformance.from_json(unmeasured.to_json()) == unmeasured


def test_a_record_that_lacks_something_says_what_and_where():
    with pytest.raises(DataError, match=r"s3://b/performance\.json: rows is missing, .* Cure: restore"):
        WindowPerformance.from_json(NAMES, "s3://b/performance.json")
