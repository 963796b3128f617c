"""Figures of an order: areas under curves, the best of a list, and how sure they are.

Sources: E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, 1988, *Comparing the areas under two or more correlated
receiver operating characteristic curves*; X. Sun and W. Xu, 2014, *Fast implementation of DeLong's algorithm*;
K. Järvelin and J. Kekäläinen, 2002, *Cumulated gain-based evaluation of IR techniques*.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def auc_parts(score: Floats, label: Floats) -> tuple[Floats, Floats]:
    """Share of the negatives below each positive, and of the positives above each negative; ties count half.

    Both have the area under the ROC curve as mean, and their variances are those of DeLong.
    """
    from scipy.stats import rankdata

    positive, negative = score[label == 1], score[label == 0]
    ranks = rankdata(score)
    below = (ranks[label == 1] - rankdata(positive)) / len(negative)
    above = 1 - (ranks[label == 0] - rankdata(negative)) / len(positive)
    return below, above


def auc_stderr(below: Floats, above: Floats) -> float:
    """Standard error of an area, or of a difference of two areas, from its parts."""
    if min(len(below), len(above)) < 2:
        return math.inf
    return math.sqrt(float(below.var(ddof=1)) / len(below) + float(above.var(ddof=1)) / len(above))


def average_precision(score: Floats, label: Floats, weights: Floats | None = None) -> float:
    """Mean precision over the positives, equal scores taken together, as scikit-learn defines it."""
    import numpy as np

    order = np.argsort(-score, kind="stable")
    return average_precision_sorted(score[order], label[order], None if weights is None else weights[order])


def average_precision_sorted(score: Floats, label: Floats, weights: Floats | None = None) -> float:
    """The same of rows that are in the order of falling scores."""
    import numpy as np

    count = np.ones(len(score)) if weights is None else weights
    last = np.flatnonzero(np.append(np.diff(score) != 0, True))
    hits, seen = np.cumsum(count * label)[last], np.cumsum(count)[last]
    if not hits[-1]:
        return math.nan
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    return float((np.diff(hits, prepend=0.0) * precision).sum() / hits[-1])


def best_of(score: Floats, k: int) -> npt.NDArray[np.int64]:
    """Numbers of the ``k`` rows of highest score; among equals the first ones."""
    import numpy as np

    return np.argsort(-score, kind="stable")[:k]


def ndcg_of_groups(score: Floats, relevance: Floats, group: npt.NDArray[np.int64], k: int) -> Floats:
    """Normalised discounted cumulative gain of the first ``k`` of each group that has anything relevant.

    :param group: number of the list that each row stands in.
    """
    import numpy as np

    found, best = _discounted(score, relevance, group, k), _discounted(relevance, relevance, group, k)
    some = best > 0
    return np.divide(found[some], best[some])


def reciprocal_ranks(score: Floats, relevance: Floats, group: npt.NDArray[np.int64]) -> Floats:
    """One over the place of the first relevant row, of each group that has one."""
    import numpy as np

    order = np.lexsort((np.arange(len(score)), -score, group))
    place = _places(group[order])
    hits = relevance[order] > 0
    first = np.full(int(group.max()) + 1 if len(group) else 0, np.inf)
    np.minimum.at(first, group[order][hits], place[hits])
    found: Floats = 1 / (first[np.isfinite(first)] + 1)
    return found


def _discounted(by: Floats, relevance: Floats, group: npt.NDArray[np.int64], k: int) -> Floats:
    import numpy as np

    order = np.lexsort((np.arange(len(by)), -by, group))
    place = _places(group[order])
    value = np.where(place < k, relevance[order] / np.log2(place + 2), 0.0)
    return np.bincount(group[order], weights=value).astype(np.float64)


def _places(group: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Place of each row within its group; the rows stand group by group."""
    import numpy as np

    starts = np.flatnonzero(np.append(True, np.diff(group) != 0)) if len(group) else np.array([], np.int64)
    lengths = np.diff(np.append(starts, len(group)))
    return np.arange(len(group)) - np.repeat(starts, lengths)
