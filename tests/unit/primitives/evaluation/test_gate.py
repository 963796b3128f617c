"""The gate between a candidate and the champion."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.evaluation.cases import TestSummary
from airflow_mlops.primitives.evaluation.evidence import Evidence
from airflow_mlops.primitives.evaluation.gate import GateDecision, decide, judge
from airflow_mlops.primitives.evaluation.measures import measure
from airflow_mlops.primitives.evaluation.predicted import PredictedRows


def metric(name, value, **more):
    return {"name": name, "value": value, "split": "test", **more}


AT_LEAST = {"metric": "auc", "at_least": 0.6}
#: By the figures themselves: those of these tests come without an error.
NO_WORSE = {"metric": "auc", "against": "champion", "no_worse_by": 0.01, "confidence": 0.5}


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
    assert "0.5000 ± 0.0196 against 0.7000" in decision.table()


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
    rule = {"metric": "x", "against": "champion", "no_worse_by": slack, "confidence": 0.5}
    up = decide([rule], [metric("x", new, direction="maximize")], [metric("x", old)])
    down = decide([rule], [metric("x", -new, direction="minimize")], [metric("x", -old)])
    assert up.passed == down.passed
    if new >= old:
        assert up.passed


# Measured evidence -----------------------------------------------------------------------------


def rows_of(noise=1.0, seed=1, n=4_000):
    """Predictions of a model that sees the truth through noise."""
    truth = (np.random.default_rng(0).random(n) < 0.4).astype(float)
    seen = truth + np.random.default_rng(seed).normal(size=n) * noise
    return PredictedRows("binary", 1 / (1 + np.exp(-seen)), truth)


GOOD, WORSE = rows_of(0.8), rows_of(1.2, seed=2)
#: Four large groups and a small one, of which one gets its predictions at random.
ORIGIN = np.where(
    np.arange(4_000) < 100, "tiny", np.array(["EWR", "JFK", "LGA", "BOS"])[np.arange(4_000) % 4]
)
LUCK = replace(
    GOOD, prediction=np.where(ORIGIN == "BOS", np.random.default_rng(3).random(4_000), GOOD.prediction)
)


def outcome(rule, **evidence):
    (check,) = judge([rule], Evidence(**evidence)).results
    return check


class TestMeasured:
    def test_the_predictions_count_and_not_what_the_model_code_says(self):
        check = outcome({"metric": "auc", "at_least": 0.9}, metrics=[metric("auc", 0.95)], rows=GOOD)
        assert not check.passed
        assert "the model code says 0.9500, its predictions give 0.8" in check.note
        value = measure("auc", GOOD).value
        assert not outcome({"metric": "auc", "at_least": 0.5}, metrics=[metric("auc", value)], rows=GOOD).note

    def test_a_metric_that_nobody_knows_is_the_model_codes(self):
        assert outcome({"metric": "gizmo", "at_least": 1}, metrics=[metric("gizmo", 2)], rows=GOOD).passed
        reported = [{**metric("auc", 0.99), "split": "validation"}]
        rule = {"metric": "auc", "at_least": 0.95, "split": "validation"}
        assert outcome(rule, metrics=reported, rows=GOOD).passed

    def test_a_figure_may_have_to_be_sure(self):
        value = measure("auc", GOOD).value
        assert outcome({"metric": "auc", "at_least": value - 0.001}, rows=GOOD).passed
        sure = outcome({"metric": "auc", "at_least": value - 0.001, "confidence": 0.95}, rows=GOOD)
        assert not sure.passed
        assert "95 % confidence" in sure.rule
        assert outcome({"metric": "brier", "at_most": 0.3, "confidence": 0.95}, rows=GOOD).passed

    def test_one_slice(self):
        rule = {"metric": "auc", "at_least": 0.7, "slice": "origin=BOS"}
        assert not outcome(rule, rows=LUCK, columns={"origin": ORIGIN}).passed
        assert outcome({**rule, "slice": "origin=JFK"}, rows=LUCK, columns={"origin": ORIGIN}).passed
        # The model code's own, where the column is not in the data.
        assert outcome(rule, rows=LUCK, metrics=[metric("auc", 0.9, slice="origin=BOS")]).passed


class TestSurelyNoWorse:
    RULE: ClassVar = {"metric": "auc", "against": "champion", "no_worse_by": 0.01}

    def both(self, new, old, rule=None, **more):
        return outcome({**self.RULE, **(rule or {})}, rows=new, champion_rows=old, champion=[], **more)

    def test_better_and_worse(self):
        assert self.both(GOOD, WORSE).passed
        worse = self.both(WORSE, GOOD)
        assert not worse.passed
        assert re.search(
            r"worse by 0\.\d+ \(more is better\) at 95 % confidence \(DeLong, paired, 4000 rows", worse.reason
        )
        assert self.both(GOOD, GOOD).passed, "the same model again"

    def test_a_small_difference_must_be_sure_and_more_rows_make_it_so(self):
        """Two models equally good: with few rows nobody can say so, with many rows one can."""
        few = [
            replace(one, prediction=one.prediction[:80], actual=one.actual[:80])
            for one in (GOOD, rows_of(0.8, seed=5))
        ]
        assert not self.both(*few).passed
        many = rows_of(0.8, seed=6, n=200_000), rows_of(0.8, seed=7, n=200_000)
        assert self.both(*many).passed
        assert self.both(*few, rule={"no_worse_by": 0.2}).passed

    def test_confidence_of_one_half_is_the_figures_themselves(self):
        few = [replace(one, prediction=one.prediction[:80], actual=one.actual[:80]) for one in (GOOD, GOOD)]
        shifted = replace(few[0], prediction=np.roll(few[0].prediction, 1))
        assert self.both(few[0], shifted, {"confidence": 0.5}).passed

    @pytest.mark.parametrize("name", ["f1", "brier", "accuracy", "average_precision"])
    def test_other_metrics(self, name):
        assert self.both(GOOD, WORSE, {"metric": name, "no_worse_by": 0}).passed
        assert not self.both(WORSE, GOOD, {"metric": name}).passed

    def test_better_by(self):
        rule = {"metric": "auc", "against": "champion", "better_by": 0.05}
        assert outcome(rule, rows=GOOD, champion_rows=WORSE, champion=[]).passed
        assert not outcome({**rule, "better_by": 0.2}, rows=GOOD, champion_rows=WORSE, champion=[]).passed
        same = outcome({**rule, "better_by": 0.0}, rows=GOOD, champion_rows=GOOD, champion=[])
        assert not same.passed
        assert same.rule == "test.auc better than champion"

    def test_reported_errors_are_taken_as_if_apart(self):
        new, old = (
            metric("gizmo", 0.70, stderr=0.01, direction="maximize"),
            metric("gizmo", 0.70, stderr=0.01),
        )
        rule = {"metric": "gizmo", "against": "champion", "no_worse_by": 0.01}
        check = outcome(rule, metrics=[new], champion=[old])
        assert not check.passed
        assert "(not paired)" in check.reason
        assert outcome({**rule, "no_worse_by": 0.03}, metrics=[new], champion=[old]).passed
        assert outcome({**rule, "confidence": 0.5}, metrics=[new], champion=[old]).passed

    @pytest.mark.parametrize("old", [metric("gizmo", 0.1), metric("gizmo", 0.1, stderr=0.01)])
    def test_an_error_that_nobody_knows_is_no_proof(self, old):
        rule = {"metric": "gizmo", "against": "champion", "no_worse_by": 0.01}
        new = metric("gizmo", 0.9, direction="maximize")
        check = outcome(rule, metrics=[new], champion=[old])
        assert not check.passed
        assert check.reason.startswith("its error is not known")
        assert "write confidence: 0.5" in check.reason
        assert outcome({**rule, "confidence": 0.5}, metrics=[new], champion=[old]).passed

    def test_a_champion_that_fails_is_no_verdict(self):
        failure = {"champion_failure": "exit code 11: no column weather_v2"}
        check = outcome(self.RULE, rows=GOOD, **failure)
        assert check.passed
        assert "no column weather_v2" in check.note
        assert not outcome({**self.RULE, "if_champion_fails": "fail"}, rows=GOOD, **failure).passed
        assert "weather_v2" in judge([self.RULE], Evidence(rows=GOOD, **failure)).message

    def test_no_champion(self):
        assert outcome(self.RULE, rows=GOOD).passed
        assert not outcome({**self.RULE, "metric": "gizmo"}, rows=GOOD).passed


class TestSlices:
    RULE: ClassVar = {"metric": "auc", "per_slice": "origin", "at_least": 0.7}

    def test_each_slice_counts_but_the_small_ones(self):
        good = outcome(self.RULE, rows=GOOD, columns={"origin": ORIGIN})
        assert good.passed
        assert good.observed == "4 of 4 slices, 1 too small"
        assert re.fullmatch(r"origin=[A-Z]{3}: 0\.\d{4}( ± 0\.\d{4})?", good.worst)
        bad = outcome(self.RULE, rows=LUCK, columns={"origin": ORIGIN})
        assert not bad.passed
        assert re.fullmatch(r"origin=BOS: 0\.\d+ is too low", bad.reason)
        assert bad.worst.startswith("origin=BOS: 0.")
        assert f"worst: {bad.worst}" in GateDecision((bad,)).table()
        assert {part["slice"]: part["passed"] for part in bad.slices} == {
            "origin=BOS": False, "origin=EWR": True, "origin=JFK": True, "origin=LGA": True,
        }  # fmt: skip

    def test_minimum_rows(self):
        nobody = outcome({**self.RULE, "minimum_rows": 5_000}, rows=GOOD, columns={"origin": ORIGIN})
        assert (nobody.passed, nobody.reason) == (False, "no slice has 5000 rows")
        everyone = outcome({**self.RULE, "minimum_rows": 1}, rows=GOOD, columns={"origin": ORIGIN})
        assert len(everyone.slices) == 5

    def test_against_the_champion_in_each(self):
        rule = {"metric": "auc", "per_slice": ["origin"], "against": "champion", "no_worse_by": 0.05}
        columns = {"origin": ORIGIN}
        assert outcome(rule, rows=GOOD, champion_rows=GOOD, champion=[], columns=columns).passed
        check = outcome(rule, rows=LUCK, champion_rows=GOOD, champion=[], columns=columns)
        assert not check.passed
        assert check.reason.startswith("origin=BOS: worse by")

    def test_reported_slices_where_nothing_can_be_measured(self):
        reported = [
            metric("auc", 0.9, slice="origin=JFK", n=500),
            metric("auc", 0.1, slice="origin=BOS", n=20),
        ]
        check = outcome(self.RULE, metrics=reported)
        assert (check.passed, check.observed) == (True, "1 of 1 slices, 1 too small")
        assert "wrote no predictions" in outcome(self.RULE).reason
        assert "no column origin" in outcome(self.RULE, rows=GOOD).reason

    def test_a_column_of_too_many_values(self):
        columns = {"origin": np.array([f"tail{i}" for i in range(4_000)])}
        assert "group them" in outcome(self.RULE, rows=GOOD, columns=columns).reason


class TestFairness:
    @pytest.mark.parametrize("kind", ["demographic_parity", "equal_opportunity", "auc"])
    def test_a_gap_between_groups(self, kind):
        rule = {"fairness": kind, "column": "origin", "at_most": 0.08}
        columns = {"origin": ORIGIN}
        assert outcome(rule, rows=GOOD, columns=columns).passed
        biased = replace(GOOD, prediction=np.where(ORIGIN == "BOS", GOOD.prediction**6, GOOD.prediction))
        if kind != "auc":  # an order within the group stays
            check = outcome(rule, rows=biased, columns=columns)
            assert not check.passed
            assert "for origin=BOS" in check.reason
        else:
            assert not outcome(rule, rows=LUCK, columns=columns).passed

    def test_demographic_parity_is_the_difference_of_two_shares(self):
        rows = PredictedRows("binary", np.array([1.0, 1, 0, 0, 1, 0, 0, 0]), np.zeros(8))
        rule = {"fairness": "demographic_parity", "column": "sex", "at_most": 0.25, "minimum_rows": 4}
        check = outcome(rule, rows=rows, columns={"sex": np.repeat(["a", "b"], 4)})
        assert (check.passed, check.observed) == (True, "gap 0.2500")

    def test_groups_too_small_are_no_evidence(self):
        rule = {"fairness": "demographic_parity", "column": "origin", "at_most": 0.9, "minimum_rows": 5_000}
        assert "fewer than two groups" in outcome(rule, rows=GOOD, columns={"origin": ORIGIN}).reason
        assert "no column" in outcome(rule, rows=GOOD).reason
        assert "wrote no predictions" in outcome(rule).reason
        numbers = PredictedRows("numbers", GOOD.prediction, GOOD.actual)
        assert "target of 0 and 1" in outcome(rule, rows=numbers, columns={"origin": ORIGIN}).reason


class TestLatencyAndSize:
    def test_latency(self):
        reported = [metric("latency_p95", 0.034, n=200)]
        good = outcome({"latency": "p95", "at_most": 0.05}, metrics=reported)
        assert (good.passed, good.rule, good.observed) == (
            True,
            "latency p95 ≤ 50 ms",
            "34 ms over 200 calls",
        )
        assert not outcome({"latency": "p95", "at_most": 0.03}, metrics=reported).passed
        assert "job.measure_latency" in outcome({"latency": "p50", "at_most": 1}, metrics=reported).reason

    def test_size(self):
        rule = {"size": "model", "at_most": 1024**2}
        assert outcome(rule, model_bytes=1024**2).passed
        assert outcome(rule, model_bytes=3 * 1024**2).reason == "3 MiB is too large"
        assert not outcome(rule).passed


class TestDryRun:
    def test_it_says_everything_and_lets_through(self):
        decision = judge([AT_LEAST], Evidence(metrics=[metric("auc", 0.5)]), "dry_run")
        assert (decision.passed, decision.register, decision.outcome) == (False, True, "dry_run_failed")
        assert "goes on all the same" in decision.message
        assert decision.to_dict()["register"] is True

    def test_it_changes_nothing_for_who_passes(self):
        assert judge([], Evidence(), "dry_run").outcome == "passed"
        enforced = judge([AT_LEAST], Evidence(metrics=[metric("auc", 0.5)]))
        assert (enforced.register, enforced.outcome) == (False, "failed")


@pytest.mark.parametrize(
    "rule",
    [
        {"fairness": "auc", "at_most": 0.1},
        {"fairness": "auc", "column": "x"},
        {"latency": "p42", "at_most": 0.1},
        {"latency": "p50"},
        {"size": "model", "at_least": 3},
        {"metric": "auc", "fairness": "auc", "at_most": 1},
        {"metric": "auc", "against": "champion", "no_worse_by": 0.1, "better_by": 0.1},
        {"metric": "auc", "against": "champion", "if_champion_fails": "maybe"},
        {"metric": "auc", "against": "champion", "confidence": 1},
        {"metric": "auc", "against": "champion", "confidence": 0.3},
        {"metric": "auc", "at_least": 1, "better_by": 0.3},
        {"metric": "auc", "at_least": 1, "slice": "a=1", "per_slice": "a"},
        {"metric": "auc", "at_least": 1, "minimum_rows": -1},
    ],
)
def test_rules_of_every_kind_that_mean_nothing_are_refused(rule):
    with pytest.raises(SpecError, match=r"evaluation\.require\[0\]"):
        judge([rule], Evidence())
