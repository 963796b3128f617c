import json

import numpy as np
import pytest

from airflow_mlops.exceptions import DataError
from airflow_mlops.primitives.monitoring.performance import (
    BettingState,
    ExpectedLoss,
    auc_with_interval,
    bet,
    expected_loss,
    losses,
    mean_with_interval,
    measure,
)

METRICS = [
    {"name": "brier", "value": 0.15, "split": "test", "stderr": 0.001, "n": 30_000, "direction": "minimize"},
    {"name": "brier", "value": 0.9, "split": "test", "slice": "origin=EWR", "stderr": 0.1},
    {"name": "brier", "value": 0.1, "split": "validation", "stderr": 0.001},
    {"name": "auc", "value": 0.72, "split": "test"},
    {"name": "accuracy", "value": 0.8, "n": 10_000},
]


def flips(rng, share, n):
    return (rng.random(n) < share).astype(float)


def test_losses_of_probabilities_and_of_numbers():
    prediction, actual = np.array([0.9, 0.4, 0.5]), np.array([1.0, 1.0, 0.0])
    assert losses("brier", prediction, actual) == pytest.approx([0.01, 0.36, 0.25])
    assert losses("error", prediction, actual).tolist() == [0, 1, 1]
    assert losses("absolute_error", np.array([3.0]), np.array([5.0])).tolist() == [2]


def test_labels_and_predictions_that_do_not_fit_the_loss_are_named():
    with pytest.raises(DataError, match="expected labels 0 and 1, got"):
        losses("brier", np.array([0.5]), np.array([7.0]))
    with pytest.raises(DataError, match=r"expected predictions between 0 and 1, got 0.5 to 3"):
        losses("error", np.array([0.5, 3.0]), np.array([1.0, 0.0]))


def test_the_promise_is_the_whole_test_split():
    tested = expected_loss(METRICS, "brier", "Model m version 1")
    assert tested == ExpectedLoss(0.15, 0.001, 30_000, 0.72)
    assert tested.bound == pytest.approx(0.153)


def test_error_follows_from_accuracy_with_the_widest_standard_error():
    tested = expected_loss(METRICS, "error", "m")
    assert tested.mean == pytest.approx(0.2)
    assert tested.stderr == pytest.approx(0.004)


def test_a_loss_that_was_never_tested_is_named_with_the_cure():
    with pytest.raises(
        DataError, match=r"Model m version 1: .* no metric absolute_error or mae .* accuracy, auc, brier"
    ):
        expected_loss(METRICS, "absolute_error", "Model m version 1")
    with pytest.raises(DataError, match="neither stderr nor n"):
        expected_loss([{"name": "brier", "value": 0.1}], "brier", "m")


def test_the_wager_never_fires_while_the_loss_is_as_tested():
    rng = np.random.default_rng(1)
    fired = [bet(flips(rng, 0.10, 20_000), 0.10, BettingState(), 1e6).fired_after for _ in range(50)]
    assert fired == [None] * 50


@pytest.mark.parametrize(("share", "median"), [(0.13, 9000), (0.20, 600)])
def test_the_wager_fires_soon_after_the_loss_has_risen(share, median):
    rng = np.random.default_rng(2)
    fired = [
        bet(flips(rng, share, 30_000), 0.106, BettingState(), 1e6).fired_after or 10**9 for _ in range(40)
    ]
    assert np.median(fired) < median


def test_a_late_change_is_found_after_a_long_good_time():
    rng = np.random.default_rng(3)
    observed = np.concatenate([flips(rng, 0.10, 50_000), flips(rng, 0.20, 3000)])
    assert 50_000 < bet(observed, 0.106, BettingState(), 1e6).fired_after < 51_500


def test_false_alarms_are_rarer_than_promised():
    rng = np.random.default_rng(4)
    first = [bet(flips(rng, 0.10, 4000), 0.10, BettingState(), 200).fired_after or 4000 for _ in range(100)]
    assert np.mean(first) > 200


def test_going_on_from_a_stored_state_equals_one_pass():
    rng = np.random.default_rng(5)
    observed = flips(rng, 0.12, 7000)
    whole = bet(observed, 0.1, BettingState(), 1e30)
    state = BettingState()
    for part in np.array_split(observed, 9):
        state = bet(part, 0.1, state, 1e30).state
    assert state.labels == whole.state.labels == 7000
    assert state.log_wealth == pytest.approx(whole.state.log_wealth)


@pytest.mark.parametrize(("loss", "bound"), [(np.nan, 0.1), (np.inf, 0.1), (0.5, np.nan)])
def test_no_wager_is_made_on_what_is_no_number(loss, bound):
    with pytest.raises(DataError, match="NaN or infinite"):
        bet(np.array([0.0, loss]), bound, BettingState(), 1e6)


def test_no_labels_change_nothing():
    state = BettingState((1.0,) * 6, 9)
    assert bet(np.zeros(0), 0.1, state, 1e6).state == state


def test_no_alarm_before_the_least_number_of_labels():
    assert bet(np.ones(200), 0.1, BettingState(), 1e6, min_labels=100).fired_after == 100
    assert bet(np.ones(200), 0.1, BettingState(labels=150), 1e6, min_labels=170).fired_after == 20


def test_auc_equals_counting_pairs_and_its_interval_covers():
    score, label = np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1])
    assert auc_with_interval(score, label)[0] == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(200):
        label = rng.random(800) < 0.3
        low, high = auc_with_interval(rng.normal(size=800) + label, label.astype(float))[1]
        covered += low <= 0.7602 <= high  # Phi(1 / sqrt(2))
    assert 180 <= covered <= 199


def test_one_class_has_no_auc_and_no_values_have_no_mean():
    assert auc_with_interval(np.array([0.1, 0.2]), np.array([1, 1])) is None
    assert mean_with_interval(np.zeros(0)) == (None, None)


def report(share, n=20_000, loss="error", seed=7):
    rng = np.random.default_rng(seed)
    return measure(
        np.full(n, 0.2),
        flips(rng, share, n),
        rows=n + 100,
        loss=loss,
        tested=ExpectedLoss(0.10, 0.002, 20_000, 0.7),
        state=BettingState(),
        false_alarm_rate=1e-6,
        min_labels=1000,
    )


def test_a_report_says_whether_the_model_is_worse_than_tested():
    good, bad = report(0.10), report(0.15)
    assert not good.degraded
    assert good.interval[0] < 0.10 < good.interval[1]
    assert bad.degraded
    assert 1000 <= bad.fired_after < 10_000
    assert bad.e_value >= bad.threshold == pytest.approx(1e6)
    assert (bad.rows, bad.labelled) == (20_100, 20_000)
    json.dumps(bad.to_json(), allow_nan=False)


def test_after_an_alarm_the_next_window_starts_anew():
    assert report(0.15).state == BettingState(labels=20_000)
    assert report(0.10).state != BettingState(labels=20_000)


def test_a_bad_day_in_a_good_month_is_no_degradation():
    rng = np.random.default_rng(9)
    actual = np.concatenate([flips(rng, 0.08, 9000), flips(rng, 0.5, 500), flips(rng, 0.08, 9000)])
    spell = measure(
        np.full(len(actual), 0.2),
        actual,
        rows=len(actual),
        loss="error",
        tested=ExpectedLoss(0.10, 0.002),
        state=BettingState(),
        false_alarm_rate=1e-6,
        min_labels=1000,
    )
    assert 9000 < spell.fired_after < 9500
    assert spell.mean < 0.106
    assert not spell.degraded


def test_a_loss_without_a_limit_is_watched_too():
    rng = np.random.default_rng(8)

    def watch(scale):
        return measure(
            np.zeros(5000),
            rng.normal(0, scale, 5000),
            rows=5000,
            loss="absolute_error",
            tested=ExpectedLoss(0.8, 0.005),
            state=BettingState(),
            false_alarm_rate=1e-6,
            min_labels=1000,
        )

    assert not watch(1.0).degraded
    assert watch(1.4).degraded
    assert watch(1.4).auc is None


def test_a_window_without_labels_is_reported_as_such():
    empty = measure(
        np.zeros(0),
        np.zeros(0),
        rows=10,
        loss="brier",
        tested=ExpectedLoss(0.1, 0.001),
        state=BettingState(labels=5),
        false_alarm_rate=1e-6,
        min_labels=1,
    )
    assert (empty.mean, empty.auc, empty.degraded, empty.state.labels) == (None, None, False, 5)
