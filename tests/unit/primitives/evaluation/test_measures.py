"""Metrics equal those of scikit-learn, and are as sure as they say."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.metrics import cluster as sk_cluster

from airflow_mlops.contract.protocol.results import metric_problems
from airflow_mlops.primitives.evaluation.measures import compare, measure, measures_of, with_measured
from airflow_mlops.primitives.evaluation.predicted import PredictedRows
from airflow_mlops.primitives.statistics import clusters
from airflow_mlops.primitives.statistics.intervals import Marks, resampled_sums


def generator(seed=7):
    return np.random.default_rng(seed)


def binary(n=2_000, noise=1.0, seed=7, rounded=2):
    """Predictions of a model that sees the truth through noise; rounded, so that many are equal."""
    random, truth = generator(1), (generator(2).random(n) < 0.3).astype(float)
    seen = truth + random.normal(size=n) * 0.5 + generator(seed).normal(size=n) * noise
    return PredictedRows("binary", np.round(1 / (1 + np.exp(-seen)), rounded), truth, threshold=0.6)


def numbers(n=2_000, noise=1.0, seed=7):
    truth = generator(2).gamma(3, 10, n)
    return PredictedRows("numbers", truth + generator(seed).normal(size=n) * noise, truth)


def classes(n=1_500, wrong=0.3, seed=7):
    truth = generator(2).integers(0, 4, n)
    random = generator(seed)
    found = np.where(random.random(n) < wrong, random.integers(0, 4, n), truth)
    return PredictedRows("classes", found.astype(float), truth.astype(float), names=("a", "b", "c", "d"))


def many_classes(n, k, seed=7):
    truth, random = generator(2).integers(0, k, n), generator(seed)
    found = np.where(random.random(n) < 0.3, random.integers(0, k, n), truth)
    return PredictedRows(
        "classes", found.astype(float), truth.astype(float), names=tuple(str(i) for i in range(k))
    )


def lists(n=6_000, noise=1.0, seed=7):
    relevance = generator(2).integers(0, 4, n).astype(float)
    score = relevance + generator(seed).normal(size=n) * noise
    return PredictedRows("ranking", score, relevance, group=np.repeat(np.arange(n // 12), 12))


def blobs(n=300, seed=7):
    points = np.vstack([generator(seed + i).normal(size=(n, 2)) + 4 * i for i in range(3)])
    cluster = np.repeat([0, 1, 2], n)
    moved = generator(3).random(3 * n) < 0.1
    return PredictedRows(
        "clusters",
        cluster.astype(float),
        points=clusters.standardised(points),
        sampled=np.arange(3 * n),
        second=np.where(moved, (cluster + 1) % 3, cluster),
        names=("0", "1", "2"),
    )


def chosen(rows):
    return rows.prediction >= rows.threshold


SAME = {
    "auc": lambda r: sk.roc_auc_score(r.actual, r.prediction),
    "roc_auc": lambda r: sk.roc_auc_score(r.actual, r.prediction),
    "average_precision": lambda r: sk.average_precision_score(r.actual, r.prediction),
    "accuracy": lambda r: sk.accuracy_score(r.actual, chosen(r)),
    "error": lambda r: 1 - sk.accuracy_score(r.actual, chosen(r)),
    "balanced_accuracy": lambda r: sk.balanced_accuracy_score(r.actual, chosen(r)),
    "precision": lambda r: sk.precision_score(r.actual, chosen(r)),
    "recall": lambda r: sk.recall_score(r.actual, chosen(r)),
    "f1": lambda r: sk.f1_score(r.actual, chosen(r)),
    "brier": lambda r: sk.brier_score_loss(r.actual, r.prediction),
    "log_loss": lambda r: sk.log_loss(r.actual, r.prediction),
    "selection_rate": lambda r: chosen(r).mean(),
}
SAME_NUMBERS = {
    "mae": sk.mean_absolute_error,
    "mse": sk.mean_squared_error,
    "rmse": sk.root_mean_squared_error,
    "mape": sk.mean_absolute_percentage_error,
    "r2": sk.r2_score,
}
SAME_CLASSES = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "f1_macro": lambda true, found: sk.f1_score(true, found, average="macro"),
}


class TestAsScikitLearn:
    @pytest.mark.parametrize("name", SAME)
    @pytest.mark.parametrize("n", [60, 7_000])
    def test_two_classes(self, name, n):
        rows = binary(n)
        assert measure(name, rows).value == pytest.approx(SAME[name](rows), rel=1e-9)

    @pytest.mark.parametrize("name", SAME_NUMBERS)
    def test_numbers(self, name):
        rows = numbers()
        assert measure(name, rows).value == pytest.approx(SAME_NUMBERS[name](rows.actual, rows.prediction))

    @pytest.mark.parametrize("name", SAME_CLASSES)
    def test_several_classes(self, name):
        rows = classes()
        assert measure(name, rows).value == pytest.approx(SAME_CLASSES[name](rows.actual, rows.prediction))

    @pytest.mark.parametrize("k", [1, 5, 12])
    def test_lists(self, k):
        rows = lists()
        shape = (-1, 12)
        # Graded by 2^relevance - 1 elsewhere; scikit-learn's own gain is the relevance, as here.
        expected = sk.ndcg_score(rows.actual.reshape(shape), rows.prediction.reshape(shape), k=k)
        assert measure(f"ndcg_at_{k}", rows).value == pytest.approx(expected)

    def test_first_hits(self):
        rows = PredictedRows(
            "ranking",
            np.array([3.0, 2.0, 1.0, 3.0, 2.0, 1.0, 2.0, 1.0]),
            np.array([0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
            group=np.array([5, 5, 5, 7, 7, 7, 9, 9]),
        )
        assert measure("mrr", rows).value == pytest.approx((1 / 2 + 1) / 2)

    def test_clusters(self):
        rows = blobs()
        labels = rows.prediction
        assert measure("silhouette", rows).value == pytest.approx(sk.silhouette_score(rows.points, labels))
        each = sk_cluster.silhouette_samples(rows.points, labels)
        assert clusters.silhouettes(rows.points, labels.astype(int)) == pytest.approx(each)
        assert measure("stability", rows).value == pytest.approx(sk.adjusted_rand_score(labels, rows.second))

    def test_a_cluster_of_one_lies_on_the_border(self):
        points, cluster = np.array([[0.0], [1.0], [9.0]]), np.array([0, 0, 1])
        assert clusters.silhouettes(points, cluster) == pytest.approx(
            sk_cluster.silhouette_samples(points, cluster)
        )


class TestHowSure:
    @pytest.mark.parametrize("name", ["auc", "average_precision", "f1", "brier", "balanced_accuracy"])
    def test_standard_errors_are_those_of_drawing_again(self, name):
        """Many datasets of one law: the spread of their figures is what one of them says of itself."""
        found = []
        for seed in range(60):
            random = generator(seed)
            truth = (random.random(400) < 0.3).astype(float)
            seen = truth + random.normal(size=400)
            found.append(measure(name, PredictedRows("binary", 1 / (1 + np.exp(-seen)), truth)))
        spread = np.std([one.value for one in found], ddof=1)
        assert np.mean([one.stderr for one in found]) == pytest.approx(spread, rel=0.3)

    def test_many_rows_in_blocks_are_as_sure_as_the_closed_form(self):
        """The delta method gives r2's error: of the squared residuals less what the spread of the truth explains."""
        rows = numbers(40_000)
        found, apart = measure("r2", rows), (rows.actual - rows.actual.mean()) ** 2
        influence = ((rows.prediction - rows.actual) ** 2 - (1 - found.value) * apart) / apart.mean()
        assert found.stderr == pytest.approx(influence.std() / math.sqrt(len(rows)), rel=0.1)

    def test_a_share_that_missed_nothing_is_not_certain(self):
        rows = PredictedRows("binary", np.ones(20), np.ones(20))
        found = measure("accuracy", rows)
        assert found.interval == (pytest.approx(0.8389, abs=1e-4), 1.0)
        assert found.bounds(0.95)[0] < 1

    def test_precision_among_few_labels_is_exact(self):
        label = np.full(100, np.nan)
        label[:4] = [1, 1, 0, 1]
        rows = PredictedRows("anomaly", -np.arange(100.0), label)
        found = measure("precision_at_10", rows)
        assert (found.value, found.n) == (0.75, 4)
        # Clopper and Pearson, of 3 in 4.
        assert found.interval == (pytest.approx(0.1941, abs=1e-4), pytest.approx(0.9937, abs=1e-4))
        assert measure("recall_at_2", rows).value == pytest.approx(2 / 3)
        assert measure("precision_at_10", PredictedRows("anomaly", label, np.full(100, np.nan))) is None

    def test_returns_have_students_interval(self):
        rows = PredictedRows("returns", np.array([1.0, 2.0, 3.0]))
        assert measure("mean_return", rows).interval == (
            pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-3),
            pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-3),
        )


PAIRS = {
    "auc": binary,
    "average_precision": binary,
    "accuracy": binary,
    "f1": binary,
    "brier": binary,
    "log_loss": binary,
    "mae": numbers,
    "rmse": numbers,
    "r2": numbers,
    "f1_macro": classes,
    "ndcg_at_5": lists,
    "mrr": lists,
}


class TestComparison:
    @pytest.mark.parametrize("name", PAIRS)
    def test_a_model_is_no_better_than_itself_and_surely_so(self, name):
        rows = PAIRS[name]()
        difference = compare(name, rows, rows)
        assert difference.gain == 0
        assert difference.at_least(0.99) == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("name", PAIRS)
    def test_turned_round_the_gain_has_the_other_sign(self, name):
        make = PAIRS[name]
        good, bad = make(seed=3), make(**({"wrong": 0.6} if make is classes else {"noise": 3.0}), seed=4)
        there, back = compare(name, good, bad), compare(name, bad, good)
        assert there.gain == pytest.approx(-back.gain)
        assert there.gain > 0
        assert there.at_least(0.95) > 0, "so much noise is noticed"
        assert back.at_least(0.05) < 0
        assert there.stderr == pytest.approx(back.stderr, rel=1e-6)

    @pytest.mark.parametrize("name", ["brier", "auc", "f1"])
    def test_without_a_difference_the_bound_is_crossed_as_often_as_it_says(self, name):
        """Two models equally good: "better at 90 %" is said in about one case of ten."""
        said = 0
        for seed in range(150):
            random = generator(seed)
            truth = (random.random(300) < 0.4).astype(float)
            pair = [
                PredictedRows("binary", 1 / (1 + np.exp(-(truth + random.normal(size=300)))), truth)
                for _ in range(2)
            ]
            said += compare(name, *pair).at_least(0.9) > 0
        assert 5 <= said <= 27

    def test_pairing_is_worth_it(self):
        """Two models that err alike: their difference is much surer than either figure."""
        one, other = binary(noise=0.1, seed=3), binary(noise=0.1, seed=4)
        assert compare("auc", one, other).stderr < 0.5 * measure("auc", one).stderr

    def test_what_cannot_be_compared(self):
        rows = binary()
        assert compare("selection_rate", rows, rows) is None, "no direction is better"
        assert compare("gizmo", rows, rows) is None
        assert compare("auc", rows, binary(100)) is None
        assert compare("stability", blobs(), blobs()) is None
        one_class = PredictedRows("binary", np.ones(5), np.ones(5))
        assert measure("auc", one_class) is None
        assert compare("auc", one_class, one_class) is None


class TestMerging:
    def test_measured_figures_stand_in_place_of_reported_ones(self):
        rows = binary()
        reported = [
            {"name": "auc", "value": 0.99, "split": "test"},
            {"name": "roc_auc", "value": 0.98},
            {"name": "auc", "value": 0.5, "split": "test", "slice": "origin=JFK"},
            {"name": "auc", "value": 0.6, "split": "validation"},
            {"name": "gizmo", "value": 1.0, "split": "test"},
        ]
        metrics, replaced = with_measured(reported, rows)
        assert replaced == reported[:2]
        assert [entry for entry in metrics if entry in reported] == reported[2:]
        by_name = {entry["name"]: entry for entry in metrics if entry.get("n")}
        assert by_name["auc"]["value"] == by_name["roc_auc"]["value"] == pytest.approx(SAME["auc"](rows))
        assert by_name["brier"]["stderr"] > 0, "monitoring holds the model to it"
        assert [metric_problems(entry) for entry in metrics] == [[]] * len(metrics)

    def test_without_predictions_nothing_changes(self):
        reported = [{"name": "auc", "value": 0.99}]
        assert with_measured(reported, None) == (reported, [])

    @pytest.mark.parametrize("make", [binary, numbers, classes, lists, blobs])
    def test_every_reported_measure_is_one(self, make):
        rows = make()
        assert [name for name in measures_of(rows.kind) if measure(name, rows) is None] in (
            [],
            ["adjusted_rand"],
        )


class TestManyClasses:
    @pytest.mark.parametrize("n", [300, 5_000, 7_000])
    def test_counts_are_resampled_as_columns_of_zeros_and_ones_are(self, n):
        marks = Marks((generator(1).integers(-1, 4, n), generator(2).integers(-1, 3, n)), (4, 3))
        columns = np.hstack(
            [
                group[:, None] == np.arange(width)
                for group, width in zip(marks.groups, marks.widths, strict=True)
            ]
        ).astype(float)
        assert (marks.sums() == columns.sum(axis=0)).all()
        assert (marks.resampled(20) == resampled_sums(columns, 20)).all()

    def test_many_classes_take_no_row_of_as_many_numbers(self):
        new, old = many_classes(100_000, 500), many_classes(100_000, 500, seed=8)
        tracemalloc.start()
        try:
            gain = compare("f1_macro", new, old).gain
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 300e6  # rows of zeros and ones would be 1.2 GB a model
        f1 = [sk.f1_score(rows.actual, rows.prediction, average="macro") for rows in (new, old)]
        assert gain == pytest.approx(f1[0] - f1[1])

    def test_two_models_that_know_other_classes_are_compared(self):
        """Each file's classes are numbered for themselves."""
        few = classes()
        more = replace(
            few, prediction=np.where(np.arange(len(few)) < 9, 4.0, few.prediction), names=(*few.names, "e")
        )
        found = compare("f1_macro", few, more)
        expected = measure("f1_macro", few).value - measure("f1_macro", more).value
        assert found.gain == pytest.approx(expected)
        assert math.isfinite(found.stderr)
