"""The metrics that are measured here, from predictions and truth, with how sure they are.

``measure`` gives one figure, ``compare`` the difference of two models on the same rows. Means of a loss have closed
forms, and so has the area under the ROC curve; everything else is bootstrapped, pairwise and with a fixed seed. A name
that is not known here is left to the model code's own figure.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.evaluation.estimators import (
    AGREEMENT,
    AUC,
    AVERAGE_PRECISION,
    SILHOUETTE,
    STABILITY,
    Direction,
    Measure,
    at_k,
    mean_measure,
    of_lists,
    of_marks,
    of_sums,
    ratio,
    root_of_mean,
)
from airflow_mlops.primitives.statistics import ranking
from airflow_mlops.primitives.statistics.intervals import Marks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from airflow_mlops.primitives.evaluation.predicted import Kind, PredictedRows
    from airflow_mlops.primitives.statistics.intervals import Difference, Estimate

    Floats = npt.NDArray[np.float64]

_AT = re.compile(r"(precision|recall|ndcg)_at_([1-9][0-9]{0,8})")
_TINY = 1e-15  # a probability of 0 has no logarithm; scikit-learn's bound for doubles lies near


def measures_of(kind: Kind) -> tuple[str, ...]:
    """Names of the metrics that are reported for such predictions, the most telling first."""
    return tuple(name for name in _REPORTED[kind] if name in _MEASURES[kind] or _AT.fullmatch(name))


def direction_of(name: str, kind: Kind) -> Direction | None:
    """Which way is better; ``None`` for a name that is not known here, or where neither is."""
    found = _find(name, kind)
    return found.direction if found else None


def is_measured(name: str, kind: Kind) -> bool:
    """Whether a metric of this name is measured from such predictions."""
    return _find(name, kind) is not None


def measure(name: str, rows: PredictedRows) -> Estimate | None:
    """The metric of some rows; ``None`` where it is not defined, as an area with one class only."""
    found = _find(name, rows.kind)
    estimate = found.estimate(rows) if found and len(rows) else None
    return estimate if estimate and math.isfinite(estimate.value) else None


def compare(name: str, new: PredictedRows, old: PredictedRows) -> Difference | None:
    """How much better ``new`` is than ``old``, which are predictions of the same rows in the same order."""
    found = _find(name, new.kind)
    if (
        found is None
        or found.direction is None
        or new.kind != old.kind
        or len(new) != len(old)
        or not len(new)
    ):
        return None
    difference = found.gain(new, old, 1 if found.direction == "maximize" else -1)
    return difference if difference and math.isfinite(difference.gain) else None


def with_measured(
    reported: Sequence[Mapping[str, Any]], rows: PredictedRows | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A model code's metrics with those of the test split replaced that can be measured, and the replaced ones.

    :param reported: entries of ``metrics.json``.
    :param rows: predictions and truth; ``None`` where nothing can be measured.
    """
    entries = [dict(entry) for entry in reported]
    if rows is None:
        return entries, []

    def replaced(entry: Mapping[str, Any]) -> bool:
        of_test = entry.get("split", "test") == "test" and not entry.get("slice") and "step" not in entry
        return of_test and is_measured(str(entry.get("name")), rows.kind)

    named = [str(entry["name"]) for entry in entries if replaced(entry)]
    made = [
        _entry(name, found, direction_of(name, rows.kind))
        for name in dict.fromkeys([*measures_of(rows.kind), *named])
        if (found := measure(name, rows))
    ]
    there = {entry["name"] for entry in made}
    gone = [entry for entry in entries if replaced(entry) and entry["name"] in there]
    return [*made, *(entry for entry in entries if entry not in gone)], gone


def _entry(name: str, found: Estimate, direction: Direction | None) -> dict[str, Any]:
    entry = {"name": name, "value": found.value, "split": "test", "n": found.n}
    known = {"direction": direction, "stderr": found.stderr}
    return entry | {key: value for key, value in known.items() if value is not None and value != math.inf}


def _find(name: str, kind: Kind) -> Measure | None:
    known = _MEASURES[kind]
    plain = _ALIASES.get(name, name)
    if plain in known:
        return known[plain]
    best = _AT.fullmatch(name)
    made = _BEST.get((kind, best[1])) if best else None
    return made(int(best[2])) if made and best else None


# Losses and hits of each row -------------------------------------------------------------------


def _hits(rows: PredictedRows) -> Floats:
    import numpy as np

    binary = rows.kind == "binary"
    right = _chosen(rows) == rows.truth if binary else rows.prediction == rows.truth
    return np.asarray(right, dtype=np.float64)


def _misses(rows: PredictedRows) -> Floats:
    return 1 - _hits(rows)


def _chosen(rows: PredictedRows) -> Floats:
    return (rows.prediction >= rows.threshold).astype(rows.prediction.dtype)


def _brier(rows: PredictedRows) -> Floats:
    squared: Floats = (rows.prediction - rows.truth) ** 2
    return squared


def _log_loss(rows: PredictedRows) -> Floats:
    import numpy as np

    right = np.where(rows.truth == 1, rows.prediction, 1 - rows.prediction)
    losses: Floats = -np.log(np.clip(right, _TINY, 1.0))
    return losses


def _absolute(rows: PredictedRows) -> Floats:
    import numpy as np

    return np.abs(rows.prediction - rows.truth)


def _relative(rows: PredictedRows) -> Floats:
    import numpy as np

    return _absolute(rows) / np.maximum(np.abs(rows.truth), np.finfo(np.float64).eps)


# Terms whose sums make a metric -----------------------------------------------------------------


def _counts(rows: PredictedRows) -> Floats:
    """True and false positives, false and true negatives."""
    import numpy as np

    chosen, true = rows.prediction >= rows.threshold, rows.truth == 1
    return np.column_stack([chosen & true, chosen & ~true, ~chosen & true, ~chosen & ~true]).astype(
        np.float64
    )


def _precision(sums: Floats) -> Floats:
    return ratio(sums[:, 0], sums[:, 0] + sums[:, 1])


def _recall(sums: Floats) -> Floats:
    return ratio(sums[:, 0], sums[:, 0] + sums[:, 2])


def _f1(sums: Floats) -> Floats:
    return ratio(2 * sums[:, 0], 2 * sums[:, 0] + sums[:, 1] + sums[:, 2])


def _balanced(sums: Floats) -> Floats:
    return (_recall(sums) + ratio(sums[:, 3], sums[:, 3] + sums[:, 1])) / 2


def _class_counts(rows: PredictedRows) -> Marks:
    """Of each class: right, true, predicted."""
    import numpy as np

    predicted, true = rows.prediction.astype(np.int64), rows.truth.astype(np.int64)
    return Marks((np.where(predicted == true, true, -1), true, predicted), (len(rows.names),) * 3)


def _mean_over_classes(sums: Floats, *, f1: bool) -> Floats:
    import numpy as np

    right, true, predicted = np.split(sums, 3, axis=1)
    there = (true + predicted > 0) if f1 else (true > 0)
    each = ratio(2 * right, true + predicted) if f1 else ratio(right, true)
    return ratio((each * there).sum(axis=1), there.sum(axis=1).astype(np.float64))


def _squares(rows: PredictedRows) -> Floats:
    import numpy as np

    # Around the mean, or the sums of squares of large numbers lose all their digits.
    true = rows.truth - rows.truth.mean()
    return np.column_stack([_brier(rows), true, true**2, np.ones(len(rows))])


def _r2(sums: Floats) -> Floats:
    spread = sums[:, 2] - sums[:, 1] ** 2 / sums[:, 3]
    return 1 - ratio(sums[:, 0], spread)


# Lists -----------------------------------------------------------------------------------------


def _ndcg(k: int) -> Measure:
    return of_lists(lambda rows: ranking.ndcg_of_groups(rows.prediction, rows.truth, _lists(rows), k))


def _reciprocal(rows: PredictedRows) -> Floats:
    return ranking.reciprocal_ranks(rows.prediction, rows.truth, _lists(rows))


def _lists(rows: PredictedRows) -> npt.NDArray[np.int64]:
    import numpy as np

    group = np.zeros(len(rows), np.int64) if rows.group is None else rows.group
    return np.unique(group, return_inverse=True)[1]


# Which there are -------------------------------------------------------------------------------


_MEASURES: Mapping[Kind, Mapping[str, Measure]] = {
    "binary": {
        "auc": AUC,
        "average_precision": AVERAGE_PRECISION,
        "accuracy": mean_measure("maximize", _hits, share=True),
        "error": mean_measure("minimize", _misses, share=True),
        "balanced_accuracy": of_sums("maximize", _counts, _balanced),
        "precision": of_sums("maximize", _counts, _precision),
        "recall": of_sums("maximize", _counts, _recall),
        "f1": of_sums("maximize", _counts, _f1),
        "brier": mean_measure("minimize", _brier),
        "log_loss": mean_measure("minimize", _log_loss),
        "selection_rate": mean_measure(None, _chosen, share=True),
    },
    "classes": {
        "accuracy": mean_measure("maximize", _hits, share=True),
        "error": mean_measure("minimize", _misses, share=True),
        "balanced_accuracy": of_marks("maximize", _class_counts, partial(_mean_over_classes, f1=False)),
        "f1_macro": of_marks("maximize", _class_counts, partial(_mean_over_classes, f1=True)),
    },
    "numbers": {
        "mae": mean_measure("minimize", _absolute),
        "mse": mean_measure("minimize", _brier),
        "rmse": root_of_mean(_brier),
        "mape": mean_measure("minimize", _relative),
        "r2": of_sums("maximize", _squares, _r2),
    },
    "ranking": {"mrr": of_lists(_reciprocal)},
    "anomaly": {"auc": AUC, "average_precision": AVERAGE_PRECISION},
    "clusters": {
        "silhouette": SILHOUETTE,
        "stability": STABILITY,
        "adjusted_rand": AGREEMENT,
    },
    "returns": {"mean_return": mean_measure("maximize", lambda rows: rows.prediction)},
}
_ALIASES = {
    "roc_auc": "auc",
    "brier_score": "brier",
    "error_rate": "error",
    "absolute_error": "mae",
    "return": "mean_return",
}
_BEST: Mapping[tuple[Kind, str], Callable[[int], Measure]] = {
    ("anomaly", "precision"): partial(at_k, "precision"),
    ("anomaly", "recall"): partial(at_k, "recall"),
    ("binary", "precision"): partial(at_k, "precision"),
    ("binary", "recall"): partial(at_k, "recall"),
    ("ranking", "ndcg"): _ndcg,
}
_REPORTED: Mapping[Kind, tuple[str, ...]] = {
    "binary": tuple(_MEASURES["binary"]),
    "classes": tuple(_MEASURES["classes"]),
    "numbers": tuple(_MEASURES["numbers"]),
    "ranking": ("ndcg_at_10", "mrr"),
    "anomaly": ("precision_at_10", "precision_at_50", "precision_at_100", "auc", "average_precision"),
    "clusters": tuple(_MEASURES["clusters"]),
    "returns": ("mean_return",),
}
