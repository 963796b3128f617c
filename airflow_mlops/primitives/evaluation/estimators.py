"""Kinds of metrics: how each is estimated from rows, and how two models are compared on the same rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from airflow_mlops.primitives.sql.present import is_present
from airflow_mlops.primitives.statistics import clusters, ranking
from airflow_mlops.primitives.statistics.intervals import (
    Difference,
    Estimate,
    Marks,
    by_bootstrap,
    gain_by_bootstrap,
    of_few,
    of_mean,
    of_share,
    paired,
    resampled_sums,
    resampled_values,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from airflow_mlops.primitives.evaluation.predicted import PredictedRows

    Floats = npt.NDArray[np.float64]
    Drawn = npt.NDArray[np.int64]

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Measure:
    """One metric of one kind of predictions.

    :param direction: which way is better; ``None`` where neither is.
    :param estimate: its value.
    :param gain: how much better the first is than the second, in the metric's unit.
    """

    direction: Direction | None
    estimate: Callable[[PredictedRows], Estimate | None]
    gain: Callable[[PredictedRows, PredictedRows, int], Difference | None]


# Means and sums --------------------------------------------------------------------------------


def mean_measure(
    direction: Direction | None, of: Callable[[PredictedRows], Floats], *, share: bool = False
) -> Measure:
    """The mean of a loss or a hit of each row.

    :param share: whether each row gives 0 or 1.
    """

    def estimate(rows: PredictedRows) -> Estimate:
        values = of(rows)
        return of_share(float(values.sum()), len(values)) if share else of_mean(values)

    return Measure(direction, estimate, lambda new, old, sign: paired(sign * (of(new) - of(old))))


def root_of_mean(of: Callable[[PredictedRows], Floats]) -> Measure:
    """The square root of a mean loss; its error by the delta method."""

    def estimate(rows: PredictedRows) -> Estimate:
        mean = of_mean(of(rows))
        low, high = mean.interval or (mean.value, mean.value)
        root = math.sqrt(mean.value)
        error = mean.stderr / (2 * root) if mean.stderr is not None and root else mean.stderr
        return Estimate(root, mean.n, error, (math.sqrt(max(low, 0.0)), math.sqrt(high)), "delta method")

    def gain(new: PredictedRows, old: PredictedRows, sign: int) -> Difference:
        import numpy as np

        left, right = of(new), of(old)
        roots = math.sqrt(float(left.mean())), math.sqrt(float(right.mean()))
        parts = [
            np.zeros_like(v) if not r else v / (2 * r) for v, r in zip((left, right), roots, strict=True)
        ]
        spread = paired(sign * (parts[0] - parts[1]))
        return Difference(sign * (roots[0] - roots[1]), spread.stderr, "delta method, paired", spread.n)

    return Measure("minimize", estimate, gain)


def of_sums(
    direction: Direction, terms: Callable[[PredictedRows], Floats], value: Callable[[Floats], Floats]
) -> Measure:
    """A metric of sums over the rows, such as a ratio of counts: bootstrapped by its sums.

    :param terms: one row an example, one column a term.
    :param value: sums, one row a sample → metric of each sample.
    """

    def estimate(rows: PredictedRows) -> Estimate:
        stated = terms(rows)
        return by_bootstrap(
            float(value(stated.sum(axis=0)[None])[0]), value(resampled_sums(stated)), len(rows)
        )

    def gain(new: PredictedRows, old: PredictedRows, sign: int) -> Difference:
        import numpy as np

        both = np.hstack([terms(new), terms(old)])
        middle = both.shape[1] // 2
        drawn = resampled_sums(both)
        sums = both.sum(axis=0)[None]
        replicates = sign * (value(drawn[:, :middle]) - value(drawn[:, middle:]))
        return gain_by_bootstrap(
            sign * float((value(sums[:, :middle]) - value(sums[:, middle:]))[0]), replicates, len(new)
        )

    return Measure(direction, estimate, gain)


def of_marks(
    direction: Direction, terms: Callable[[PredictedRows], Marks], value: Callable[[Floats], Floats]
) -> Measure:
    """The same of counts by class, of which there may be a thousand.

    :param terms: the marks of each row.
    :param value: counts, one row a sample → metric of each sample.
    """

    def figure(counts: Floats) -> float:
        return float(value(counts[None])[0])

    def estimate(rows: PredictedRows) -> Estimate:
        stated = terms(rows)
        return by_bootstrap(figure(stated.sums()), value(stated.resampled()), len(rows))

    def gain(new: PredictedRows, old: PredictedRows, sign: int) -> Difference:
        # Drawn by the same seed: the same rows in each sample of both.
        left, right = terms(new), terms(old)
        replicates = sign * (value(left.resampled()) - value(right.resampled()))
        return gain_by_bootstrap(sign * (figure(left.sums()) - figure(right.sums())), replicates, len(new))

    return Measure(direction, estimate, gain)


def ratio(above: Floats, below: Floats) -> Floats:
    """As scikit-learn does, nothing of nothing is 0."""
    import numpy as np

    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def of_lists(of: Callable[[PredictedRows], Floats]) -> Measure:
    """A mean over lists: the same lists count for both models, since the relevance decides which do."""

    def estimate(rows: PredictedRows) -> Estimate | None:
        values = of(rows)
        return of_mean(values) if len(values) else None

    def gain(new: PredictedRows, old: PredictedRows, sign: int) -> Difference | None:
        values = of(new), of(old)
        return paired(sign * (values[0] - values[1])) if len(values[0]) else None

    return Measure("maximize", estimate, gain)


# Figures of an order ---------------------------------------------------------------------------


def _both_classes(rows: PredictedRows) -> tuple[Floats, Floats] | None:
    """Scores and labels of the rows that have a label, if there are both kinds."""
    if rows.actual is None:
        return None
    known = is_present(rows.actual)
    label = rows.actual[known]
    return (rows.prediction[known], label) if 0 < label.sum() < len(label) else None


def _auc(rows: PredictedRows) -> Estimate | None:
    from scipy.stats import norm

    given = _both_classes(rows)
    if given is None:
        return None
    below, above = ranking.auc_parts(*given)
    value, stderr = float(below.mean()), ranking.auc_stderr(below, above)
    if not math.isfinite(stderr):
        return Estimate(value, len(given[0]))
    half = float(norm.ppf(0.975)) * stderr
    return Estimate(value, len(given[0]), stderr, (max(0.0, value - half), min(1.0, value + half)), "DeLong")


def _auc_gain(new: PredictedRows, old: PredictedRows, sign: int) -> Difference | None:
    left, right = _both_classes(new), _both_classes(old)
    if left is None or right is None:
        return None
    one, other = ranking.auc_parts(*left), ranking.auc_parts(*right)
    stderr = ranking.auc_stderr(one[0] - other[0], one[1] - other[1])
    return Difference(sign * float(one[0].mean() - other[0].mean()), stderr, "DeLong, paired", len(left[0]))


def _drawn_precision(rows: tuple[Floats, Floats], chosen: Drawn) -> Callable[[Floats], float]:
    import numpy as np

    score, label = rows[0][chosen], rows[1][chosen]
    order = np.argsort(-score, kind="stable")
    score, label = score[order], label[order]
    return lambda weights: ranking.average_precision_sorted(score, label, weights[order])


def _average_precision(rows: PredictedRows) -> Estimate | None:
    given = _both_classes(rows)
    if given is None:
        return None
    replicates = resampled_values(len(given[0]), partial(_drawn_precision, given))
    value = ranking.average_precision(*given)
    return by_bootstrap(value, value + replicates - replicates.mean(), len(given[0]))


def _average_precision_gain(new: PredictedRows, old: PredictedRows, sign: int) -> Difference | None:
    left, right = _both_classes(new), _both_classes(old)
    if left is None or right is None:
        return None

    def both(chosen: Drawn) -> Callable[[Floats], float]:
        one, other = _drawn_precision(left, chosen), _drawn_precision(right, chosen)
        return lambda weights: sign * (one(weights) - other(weights))

    gain = sign * (ranking.average_precision(*left) - ranking.average_precision(*right))
    replicates = resampled_values(len(left[0]), both)
    return gain_by_bootstrap(gain, gain + replicates - replicates.mean(), len(left[0]))


def at_k(what: str, k: int) -> Measure:
    """Precision or recall among the ``k`` highest scores, over the rows whose label is known."""

    def counted(rows: PredictedRows) -> tuple[Floats, Floats, float]:
        import numpy as np

        label = rows.truth
        best = np.zeros(len(rows))
        best[ranking.best_of(rows.prediction, k)] = 1
        known = is_present(label)
        return best * known, np.where(known, label, 0.0), float(np.nansum(label))

    def estimate(rows: PredictedRows) -> Estimate | None:
        if rows.actual is None:
            return None
        best, label, positives = counted(rows)
        hits, n = int((best * label).sum()), int(best.sum() if what == "precision" else positives)
        return of_few(hits, n) if n else None

    def gain(new: PredictedRows, old: PredictedRows, sign: int) -> Difference | None:
        import numpy as np

        if new.actual is None:
            return None
        columns = []
        for rows in (new, old):
            best, label, _ = counted(rows)
            columns += [best * label, best if what == "precision" else label]
        terms = np.column_stack(columns)
        drawn, sums = resampled_sums(terms), terms.sum(axis=0)
        if not (sums[1] and sums[3]):
            return None
        replicates = sign * (ratio(drawn[:, 0], drawn[:, 1]) - ratio(drawn[:, 2], drawn[:, 3]))
        return gain_by_bootstrap(sign * float(sums[0] / sums[1] - sums[2] / sums[3]), replicates, len(new))

    return Measure("maximize", estimate, gain)


# Clusters --------------------------------------------------------------------------------------


def silhouettes_of(rows: PredictedRows) -> tuple[Floats, Drawn] | None:
    """Silhouette and cluster of the rows that stand for all; ``None`` with one cluster, or without numeric inputs."""
    import numpy as np

    if rows.points is None or rows.sampled is None:
        return None
    cluster = rows.prediction[rows.sampled].astype(np.int64)
    if len(np.unique(cluster)) < 2:
        return None
    return clusters.silhouettes(rows.points, cluster), cluster


def _silhouette(rows: PredictedRows) -> Estimate | None:
    found = silhouettes_of(rows)
    return of_mean(found[0]) if found else None


def _silhouette_gain(new: PredictedRows, old: PredictedRows, sign: int) -> Difference | None:
    left, right = silhouettes_of(new), silhouettes_of(old)
    return paired(sign * (left[0] - right[0])) if left and right else None


def _agreement(one: Drawn, other: Drawn) -> Estimate:
    """Adjusted Rand index with a bootstrap over the rows of a sample."""
    import numpy as np

    def value(chosen: Drawn) -> Callable[[Floats], float]:
        left, right = (
            np.unique(one[chosen], return_inverse=True)[1],
            np.unique(other[chosen], return_inverse=True)[1],
        )
        return lambda weights: clusters.adjusted_rand(
            np.repeat(left, weights.astype(np.int64)), np.repeat(right, weights.astype(np.int64))
        )

    exact = clusters.adjusted_rand(one, other)
    replicates = resampled_values(len(one), value)
    return by_bootstrap(exact, exact + replicates - replicates.mean(), len(one))


def _stability(rows: PredictedRows) -> Estimate | None:
    import numpy as np

    return None if rows.second is None else _agreement(rows.prediction.astype(np.int64), rows.second)


def _agreement_with_target(rows: PredictedRows) -> Estimate | None:
    import numpy as np

    if rows.actual is None:
        return None
    known = is_present(rows.actual)
    if not known.any():
        return None
    return _agreement(rows.prediction[known].astype(np.int64), rows.actual[known].astype(np.int64))


def _not_paired(new: PredictedRows, old: PredictedRows, sign: int) -> None:  # noqa: ARG001
    """Figures of one model's own, which two models do not share the rows of."""
    return


AUC = Measure("maximize", _auc, _auc_gain)
AVERAGE_PRECISION = Measure("maximize", _average_precision, _average_precision_gain)
SILHOUETTE = Measure("maximize", _silhouette, _silhouette_gain)
STABILITY = Measure("maximize", _stability, _not_paired)
AGREEMENT = Measure("maximize", _agreement_with_target, _not_paired)
