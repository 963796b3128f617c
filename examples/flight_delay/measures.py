"""How good probabilities are, with standard errors by closed forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pandas as pd

    from airflow_mlops.contract import Job

SLICED_BY = "origin"
# Of each class; below it a slice's figures say nothing.
SMALLEST_CLASS = 30


def log_measures(job: Job, actual: np.ndarray, probability: np.ndarray, part: str | None = None) -> None:
    """Log all figures of the split ``test``, or of a part of it.

    ``brier`` and ``error`` are means of a loss between 0 and 1: what monitoring compares the actual
    performance against.

    :param actual: 0 or 1, both present.
    :param probability: of 1.
    :param part: as ``origin=JFK``; only the figures that a part is judged by.
    """
    import numpy as np
    from sklearn.metrics import average_precision_score

    def log(name, value, direction=None, stderr=None):
        job.log_metric(
            name, value, split="test", slice=part, direction=direction, stderr=stderr, n=len(actual)
        )

    def log_loss_of(name, losses):
        log(name, losses.mean(), "minimize", losses.std() / np.sqrt(len(losses)))

    area, area_error = auc(actual, probability)
    log("auc", area, "maximize", area_error)
    log_loss_of("brier", (probability - actual) ** 2)
    log_loss_of("error", ((probability >= 0.5) != actual).astype("float64"))
    log("positive_rate", actual.mean())
    if part is None:
        clipped = np.clip(np.where(actual == 1, probability, 1 - probability), 1e-15, 1)
        log_loss_of("log_loss", -np.log(clipped))
        log("average_precision", average_precision_score(actual, probability), "maximize")


def auc(actual: np.ndarray, probability: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, and its standard error.

    DeLong, DeLong and Clarke-Pearson (1988), "Comparing the areas under two or more correlated
    receiver operating characteristic curves", by midranks (Sun and Xu, 2014).
    """
    import numpy as np
    from scipy.stats import rankdata

    late, in_time = probability[actual == 1], probability[actual == 0]
    n, m = len(late), len(in_time)
    ranks = rankdata(np.concatenate([late, in_time]))
    above = (ranks[:n] - rankdata(late)) / m
    below = 1 - (ranks[n:] - rankdata(in_time)) / n
    variance = above.var(ddof=1) / n + below.var(ddof=1) / m if min(n, m) > 1 else 0.25
    return float(above.mean()), float(np.sqrt(variance))


def slices(frame: pd.DataFrame, target: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and rows of each part that is large enough to be judged by itself."""
    if SLICED_BY not in frame:
        return
    for value in sorted(frame[SLICED_BY].dropna().unique()):
        where = (frame[SLICED_BY] == value).to_numpy()
        late = int(frame.loc[where, target].sum())
        if min(late, int(where.sum()) - late) >= SMALLEST_CLASS:
            yield f"{SLICED_BY}={value}", where
