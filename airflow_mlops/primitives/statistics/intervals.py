"""How sure a figure is: closed forms for shares and means, a seeded bootstrap for everything else.

Sources: E. B. Wilson, 1927, *Probable inference, the law of succession, and statistical inference*; C. J. Clopper and
E. S. Pearson, 1934, *The use of confidence or fiducial limits illustrated in the case of the binomial*; B. Efron and
R. J. Tibshirani, 1993, *An introduction to the bootstrap*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Codes = npt.NDArray[np.int64]
    Weighted = Callable[[Floats], float]

#: Confidence of every interval that is shown.
SHOWN = 0.95
REPLICATES = 1000
SEED = 20_260_105
#: Rows that a bootstrap draws from. Of more rows it takes sums of blocks, or a part and the square root law.
BLOCKS = 5_000
_SHARE, _FEW = "Wilson", "Clopper-Pearson"


@dataclass(frozen=True)
class Estimate:
    """A figure and how sure it is.

    :param n: rows behind it.
    :param stderr: standard error; ``None`` when it is not known.
    :param interval: where it lies with 95 % confidence.
    :param method: how the interval came about.
    """

    value: float
    n: int
    stderr: float | None = None
    interval: tuple[float, float] | None = None
    method: str = ""

    @property
    def half_width(self) -> float | None:
        """Half of its 95 % interval; ``None`` where its error is not known."""
        if self.interval is not None:
            return (self.interval[1] - self.interval[0]) / 2
        return None if self.stderr is None else quantile(0.975, self.n or 1_000) * self.stderr

    def bounds(self, confidence: float) -> tuple[float, float] | None:
        """What it surely reaches, and what it surely does not exceed, each with this confidence."""
        if self.method == _FEW:
            return _exact(round(self.value * self.n), self.n, confidence)
        if self.method == _SHARE:
            return _wilson(self.value, self.n, confidence)
        if self.stderr is None:
            return None
        half = quantile(confidence, self.n) * self.stderr
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Difference:
    """How much better one model is than another on the same rows; negative when it is worse.

    :param gain: in the metric's unit, positive when the first model is better.
    :param stderr: standard error of the gain.
    :param method: how the standard error or the replicates came about.
    :param n: rows behind it.
    :param replicates: sorted gains of a bootstrap; without them the gain is taken as normal, or as t distributed.
    """

    gain: float
    stderr: float
    method: str
    n: int
    replicates: Floats | None = None

    def at_least(self, confidence: float) -> float:
        """The gain that is reached with this confidence: a one-sided bound."""
        import numpy as np

        if self.replicates is not None:
            return float(np.quantile(self.replicates, 1 - confidence))
        return self.gain - quantile(confidence, self.n) * self.stderr


@dataclass(frozen=True)
class Marks:
    """Terms that are 1 in at most one column of a group and 0 elsewhere: kept by that column's number, -1 for none.

    :param groups: one entry a row.
    :param widths: columns of each group.
    """

    groups: tuple[Codes, ...]
    widths: tuple[int, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.groups[0])

    def sums(self) -> Floats:
        """Sums of all columns."""
        import numpy as np

        return np.hstack([part[0] for part in self._counted(np.zeros(len(self), np.int64), 1)])

    def resampled(self, replicates: int = REPLICATES) -> Floats:
        """What :func:`resampled_sums` gives of the columns, without ever holding a row of zeros."""
        import numpy as np

        generator = np.random.default_rng(SEED)
        order, starts = _blocks(generator, len(self))
        block = np.empty(len(self), np.int64)
        block[order] = np.searchsorted(starts, np.arange(len(self)), side="right") - 1
        drawn = np.stack([*_weights(generator, len(starts), replicates)])
        return np.hstack([drawn @ part for part in self._counted(block, len(starts))])

    def _counted(self, block: Codes, blocks: int) -> Iterator[Floats]:
        """Sums of each group's columns, one row a block."""
        import numpy as np

        for codes, width in zip(self.groups, self.widths, strict=True):
            cell = (block * width + codes)[codes >= 0]
            counts = np.bincount(cell, minlength=blocks * width)
            yield counts.reshape(blocks, width).astype(np.float64)


def quantile(confidence: float, n: int) -> float:
    """Of Student's t with ``n - 1`` degrees of freedom, one-sided."""
    from scipy.stats import t

    return float(t.ppf(confidence, max(n - 1, 1)))


def of_mean(values: Floats) -> Estimate:
    """Mean with Student's interval."""
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(mean, n)
    stderr = float(values.std(ddof=1)) / math.sqrt(n)
    half = quantile((1 + SHOWN) / 2, n) * stderr
    return Estimate(mean, n, stderr, (mean - half, mean + half), "Student's t")


def of_share(hits: float, n: int) -> Estimate:
    """Share with Wilson's interval, which stays within 0 and 1 and is no point when nothing was missed."""
    share = hits / n
    interval = _wilson(share, n, (1 + SHOWN) / 2)
    return Estimate(share, n, math.sqrt(share * (1 - share) / n), interval, _SHARE)


def of_few(hits: int, n: int) -> Estimate:
    """Share with the exact interval of Clopper and Pearson, for a handful of labels."""
    share = hits / n
    interval = _exact(hits, n, (1 + SHOWN) / 2)
    return Estimate(share, n, math.sqrt(share * (1 - share) / n), interval, _FEW)


def paired(gains: Floats) -> Difference:
    """Difference of two means over the same rows, from the gain in each.

    For hits and misses the variance is that of McNemar's test. Source: Q. McNemar, 1947, *Note on the sampling error of
    the difference between correlated proportions or percentages*.
    """
    n = len(gains)
    stderr = float(gains.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return Difference(float(gains.mean()), stderr, "paired differences", n)


def resampled_sums(rows: Floats, replicates: int = REPLICATES) -> Floats:
    """Sums of the columns of ``rows`` in each bootstrap sample.

    Many rows are drawn as sums of random blocks of equal size, which has the same variance.

    :param rows: one row an example, one column a term.
    """
    import numpy as np

    generator = np.random.default_rng(SEED)
    if len(rows) > BLOCKS:
        order, starts = _blocks(generator, len(rows))
        rows = np.add.reduceat(rows[order], starts, axis=0)
    return np.stack([weights @ rows for weights in _weights(generator, len(rows), replicates)])


def resampled_values(n: int, value: Callable[[npt.NDArray[np.int64]], Weighted]) -> Floats:
    """Values of a statistic of ranks in each bootstrap sample, at the scale of all rows.

    :param n: rows there are.
    :param value: makes, for the numbers of some rows, the function from how often each of them was drawn to the value.
    """
    import numpy as np

    generator = np.random.default_rng(SEED)
    chosen = np.sort(generator.choice(n, BLOCKS, replace=False)) if n > BLOCKS else np.arange(n)
    statistic = value(chosen)
    found = np.array([statistic(weights) for weights in _weights(generator, len(chosen), REPLICATES)])
    middle = statistic(np.ones(len(chosen)))
    scale = math.sqrt(len(chosen) / n)
    return middle + (found - middle) * scale


def by_bootstrap(value: float, replicates: Floats, n: int) -> Estimate:
    """An estimate with the interval of its replicates, moved to stand around the value."""
    import numpy as np

    good = replicates[np.isfinite(replicates)]
    if len(good) < REPLICATES // 2:
        return Estimate(value, n)
    low, high = np.quantile(good, [(1 - SHOWN) / 2, (1 + SHOWN) / 2])
    return Estimate(value, n, float(good.std(ddof=1)), (float(low), float(high)), "bootstrap")


def gain_by_bootstrap(gain: float, replicates: Floats, n: int) -> Difference:
    """A difference with the bound of its replicates."""
    import numpy as np

    good = np.sort(replicates[np.isfinite(replicates)])
    if len(good) < len(replicates) // 2:
        return Difference(gain, math.inf, "paired bootstrap, without effect", n)
    return Difference(gain, float(good.std(ddof=1)), "paired bootstrap", n, good)


def _wilson(share: float, n: int, confidence: float) -> tuple[float, float]:
    from scipy.stats import norm

    z = float(norm.ppf(confidence))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _exact(hits: int, n: int, confidence: float) -> tuple[float, float]:
    from scipy.stats import beta

    low = 0.0 if hits == 0 else float(beta.ppf(1 - confidence, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(confidence, hits + 1, n - hits))
    return low, high


def _blocks(generator: np.random.Generator, n: int) -> tuple[Codes, Codes]:
    """An order of the rows, and where in it the blocks begin that are drawn; few rows are blocks of one."""
    import numpy as np

    if n <= BLOCKS:
        return np.arange(n), np.arange(n)
    starts = np.linspace(0, n, BLOCKS, endpoint=False).astype(np.int64)
    return generator.permutation(n), starts


def _weights(generator: np.random.Generator, n: int, replicates: int) -> Iterator[Floats]:
    import numpy as np

    for _ in range(replicates):
        yield np.bincount(generator.integers(0, n, n), minlength=n).astype(np.float64)
