"""The gate between a candidate and the champion."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.evaluation.cases import TestSummary
from airflow_mlops.primitives.evaluation.gate import decide


def metric(name, value, **more):
    return {"name": name, "value": value, "split": "test", **more}


AT_LEAST = {"metric": "auc", "at_least": 0.6}
NO_WORSE = {"metric": "auc", "against": "champion", "no_worse_by": 0.01}


@pytest.mark.parametrize(
    ("rule", "value", "passed"),
    [
        (AT_LEAST, 0.6, True),
        (AT_LEAST, 0.59, False),
        ({"metric": "auc", "at_most": 0.6}, 0.61, False),
        ({"metric": "auc", "at_most": 0.6}, 0.6, True),
        ({"metric": "auc", "at_least": 0.1, "at_most": 0.9}, 0.95, False),
        # A parsed YAML hands over every key.
        ({**AT_LEAST, "at_most": None, "against": None, "no_worse_by": None}, 0.7, True),
    ],
)
def test_bounds(rule, value, passed):
    assert decide([rule], [metric("auc", value)]).passed is passed


@pytest.mark.parametrize(
    ("name", "new", "old", "passed"),
    [
        ("auc", 0.70, 0.71, True),
        ("auc", 0.69, 0.71, False),
        ("auc", 0.99, 0.71, True),
        ("log_loss", 0.51, 0.50, True),
        ("log_loss", 0.52, 0.50, False),
        ("log_loss", 0.10, 0.50, True),
        ("auc", 0.61 - 0.01, 0.61, True),  # the last bit of 0.6 decides nothing
    ],
)
def test_against_the_champion_by_direction(name, new, old, passed):
    rule = {**NO_WORSE, "metric": name}
    assert decide([rule], [metric(name, new)], [metric(name, old)]).passed is passed


def test_the_direction_that_the_model_code_writes_wins():
    rule = {**NO_WORSE, "metric": "delay_cost"}
    new, old = metric("delay_cost", 5.0, direction="minimize"), metric("delay_cost", 9.0)
    assert decide([rule], [new], [old]).passed
    assert not decide([rule], [{**new, "direction": "maximize"}], [old]).passed


def test_an_unknown_direction_fails_with_its_cure():
    decision = decide([{**NO_WORSE, "metric": "gizmo"}], [metric("gizmo", 1)], [metric("gizmo", 1)])
    assert not decision.passed
    assert "let the model code write its direction" in decision.message


def test_contradicting_directions_fail():
    new, old = metric("auc", 1, direction="minimize"), metric("auc", 1, direction="maximize")
    assert not decide([NO_WORSE], [new], [old]).passed


def test_without_a_champion_the_comparison_passes_but_the_metric_must_exist():
    assert decide([NO_WORSE], [metric("auc", 0.5)], None).passed
    assert not decide([NO_WORSE], [], None).passed


def test_a_champion_without_the_metric_is_no_free_pass():
    decision = decide([NO_WORSE], [metric("auc", 0.9)], [metric("brier", 0.1)])
    assert not decision.passed
    assert "the champion has no metric test.auc; it has: test.brier" in decision.message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "0.9", True])
def test_what_is_no_number_fails(value):
    decision = decide([AT_LEAST], [metric("auc", value)])
    assert not decision.passed
    assert "no finite number" in decision.message
    assert not decide([NO_WORSE], [metric("auc", 0.9)], [metric("auc", value)]).passed


def test_a_missing_metric_names_what_there_is():
    decision = decide([AT_LEAST], [metric("accuracy", 0.9), metric("auc", 0.9, slice="origin=JFK")])
    assert not decision.passed
    assert "no metric test.auc; it has: test.accuracy, test.auc[origin=JFK]" in decision.message


def test_split_slice_and_last_step_are_told_apart():
    metrics = [
        {"name": "auc", "value": 0.1, "split": "train", "step": 9},
        {"name": "auc", "value": 0.2, "split": "test", "step": 1},
        {"name": "auc", "value": 0.8, "split": "test", "step": 2},
        {"name": "auc", "value": 0.3, "split": "test", "slice": "origin=JFK"},
        {"name": "auc", "value": 0.4},
    ]
    assert decide([AT_LEAST], metrics).passed
    assert not decide([{**AT_LEAST, "split": "train"}], metrics).passed
    assert not decide([{**AT_LEAST, "slice": "origin=JFK"}], metrics).passed
    assert not decide([AT_LEAST], metrics[4:]).passed, "an entry without a split is of the test split"


@pytest.mark.parametrize(
    ("tests", "passed", "said"),
    [
        (TestSummary(total=3), True, "3 of 3 passed"),
        (TestSummary(total=3, skipped=1), True, "2 of 3 passed, 1 skipped"),
        (
            TestSummary(total=2, failures=1, failed=({"name": "t.late", "message": "no"},)),
            False,
            "1 failed: t.late",
        ),
        (TestSummary(total=2, errors=2), False, "2 failed"),
        (TestSummary(), False, "no case ran"),
        (TestSummary(total=2, skipped=2), False, "no case ran"),
    ],
)
def test_cases(tests, passed, said):
    decision = decide([], [], tests=tests)
    assert decision.passed is passed
    assert said in decision.table()


def test_all_failures_are_told_at_once_and_as_json():
    rules = [AT_LEAST, {"metric": "brier", "at_most": 0.2}, NO_WORSE]
    decision = decide(rules, [metric("auc", 0.5, stderr=0.01), metric("brier", 0.3)], [metric("auc", 0.7)])
    value = json.loads(json.dumps(decision.to_dict()))
    assert [check["passed"] for check in value["results"]] == [False, False, False]
    assert "failed 3 of 3 checks" in value["message"]
    assert "0.5000 ± 0.0100 against 0.7000" in decision.table()


def test_no_rule_at_all_passes():
    assert decide([], []).passed


@pytest.mark.parametrize(
    "rule",
    [
        {"metric": "auc"},
        {"at_least": 0.5},
        {"metric": "auc", "atleast": 0.5},
        {"metric": "auc", "at_least": math.nan},
        {"metric": "auc", "at_least": True},
        {"metric": "auc", "at_least": 0.5, "against": "champion"},
        {"metric": "auc", "against": "challenger"},
        {"metric": "auc", "at_least": 0.5, "no_worse_by": 0.1},
        {"metric": "auc", "against": "champion", "no_worse_by": -0.1},
    ],
)
def test_a_rule_that_means_nothing_is_refused(rule):
    with pytest.raises(SpecError, match=r"evaluation\.require\[0\]"):
        decide([rule], [metric("auc", 0.9)])


figures = st.floats(-1e6, 1e6)


@given(figures, figures, st.floats(0, 1e3))
def test_minimizing_is_maximizing_the_negative(new, old, slack):
    rule = {"metric": "x", "against": "champion", "no_worse_by": slack}
    up = decide([rule], [metric("x", new, direction="maximize")], [metric("x", old)])
    down = decide([rule], [metric("x", -new, direction="minimize")], [metric("x", -old)])
    assert up.passed == down.passed
    if new >= old:
        assert up.passed
