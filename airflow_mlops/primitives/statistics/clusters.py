"""Whether clusters are apart, and whether they would be found again.

Sources: P. J. Rousseeuw, 1987, *Silhouettes: a graphical aid to the interpretation and validation of cluster analysis*;
L. Hubert and P. Arabie, 1985, *Comparing partitions*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Codes = npt.NDArray[np.int64]

#: Rows whose silhouettes are measured, among themselves.
SAMPLE = 2_000


def sample(n: int, seed: int) -> Codes:
    """Numbers of the rows that stand for all."""
    import numpy as np

    if n <= SAMPLE:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, SAMPLE, replace=False))


def standardised(columns: Floats) -> Floats:
    """Columns with mean 0 and standard deviation 1; what is missing lies in the middle."""
    import numpy as np

    if not len(columns):
        return columns
    known = np.where(np.isfinite(columns), columns, np.nan)
    count = np.maximum(np.isfinite(known).sum(axis=0), 1)
    mean = np.nansum(known, axis=0) / count
    spread = np.sqrt(np.nansum((known - mean) ** 2, axis=0) / count)
    found: Floats = np.nan_to_num((known - mean) / np.where(spread > 0, spread, 1.0))
    return found


def silhouettes(points: Floats, cluster: Codes) -> Floats:
    """Silhouette of each point: 1 deep within its cluster, 0 on a border, -1 in the wrong one.

    :param points: one row a point.
    :param cluster: number of the cluster of each point, from 0.
    """
    import numpy as np

    squares = (points**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0.0))
    np.fill_diagonal(distances, 0.0)
    members = np.eye(int(cluster.max()) + 1)[cluster]
    sizes = members.sum(axis=0)
    sums = distances @ members
    rows = np.arange(len(points))
    own_size = sizes[cluster]
    inside = sums[rows, cluster] / np.maximum(own_size - 1, 1)
    means = np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf)
    means[rows, cluster] = np.inf
    outside = means.min(axis=1)
    widest = np.maximum(inside, outside)
    found = np.where(widest > 0, (outside - inside) / np.where(widest > 0, widest, 1.0), 0.0)
    alone = (own_size == 1) | ~np.isfinite(outside)
    return np.where(alone, 0.0, found)


def adjusted_rand(left: Codes, right: Codes) -> float:
    """Agreement of two divisions of the same rows: 1 the same up to names, about 0 by chance."""
    import numpy as np

    table = np.zeros((int(left.max()) + 1, int(right.max()) + 1))
    np.add.at(table, (left, right), 1)

    def pairs(counts: Floats) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, one, other = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    expected = one * other / max(len(left) * (len(left) - 1) / 2, 1)
    most = (one + other) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)
