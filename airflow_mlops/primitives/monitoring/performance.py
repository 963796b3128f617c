"""Is the model worse than tested? Actual losses against the test set's upper bound, label by label.

The test is a wager against "the loss is no larger than tested": each label multiplies a bettor's
wealth by ``1 + λ (loss - bound)``, which under that hypothesis cannot grow on average. Restarted
whenever it falls below one, and averaged over several λ, it is an e-detector: it may be looked at
after every label for ever, and a threshold of ``1 / rate`` gives at least ``1 / rate`` labels on average
before a false alarm.

Real losses come in spells: on a stormy day every flight is late, and for that day the model *is* worse
than tested, but a new one would not help. So a window's labels are shown in a shuffled order (see ``labels``),
and an alarm needs the window as a whole to be above the bound as well.

Sources: I. Waudby-Smith and A. Ramdas, 2024, *Estimating means of bounded random variables by
betting*; J. Shin, A. Ramdas and A. Rinaldo, 2024, *E-detectors: a nonparametric framework for
sequential change detection*.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import DataError
from airflow_mlops.primitives.statistics.coding import binary_sql, is_binary
from airflow_mlops.primitives.texts.records import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_BETS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
_BOLDEST = 0.9  # of the stake: a bet that can lose everything never comes back
_CAP = 10.0  # an unbounded loss is cut at this many times the tested bound
_NAMES = {
    "brier": ("brier", "brier_score"),
    "error": ("error", "error_rate"),
    "absolute_error": ("absolute_error", "mae"),
}


@dataclass(frozen=True)
class ExpectedLoss:
    """What the model's evaluation on its test split promised.

    :param mean: mean loss on the test split.
    :param stderr: its standard error.
    :param rows: rows of the test split, when known.
    :param auc: area under the ROC curve there, when reported.
    """

    mean: float
    stderr: float
    rows: int | None = None
    auc: float | None = None

    @property
    def bound(self) -> float:
        """Mean plus three standard errors: a loss up to here is as tested."""
        return self.mean + 3 * self.stderr


@dataclass(frozen=True)
class BettingState:
    """Where the wager stands between windows.

    :param log_wealth: natural logarithm of the wealth of each bet.
    :param labels: labels seen by this model version so far.
    """

    log_wealth: tuple[float, ...] = (0.0,) * len(_BETS)
    labels: int = 0

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> BettingState:
        """Read a kept state; a bet whose wealth is no number begins anew."""
        wealth = (
            value if value is not None and math.isfinite(value) else 0.0 for value in kept["log_wealth"]
        )
        return cls(tuple(wealth), kept["labels"])


@dataclass(frozen=True)
class BettingResult:
    """What a batch of labels did to the wager.

    :param state: where it stands after the batch.
    :param highest: the largest e-value within the batch.
    :param fired_after: how many labels of this batch were needed to cross the threshold, or ``None``.
    """

    state: BettingState
    highest: float
    fired_after: int | None


@dataclass(frozen=True)
class PerformanceReport:
    """One window's actual performance.

    :param rows: predictions of the window.
    :param labelled: how many have a label.
    :param loss: name of the loss.
    :param mean: actual mean loss; ``interval``: its 95 % interval.
    :param tested: what the test split promised (``mean``, ``stderr``, ``rows``, ``auc``) and the ``bound``.
    :param auc: actual area under the ROC curve with ``auc_interval``; ``None`` for other than 0/1 labels.
    :param e_value: highest evidence against "as tested" in this window; ``threshold``: what an alarm needs.
    :param fired_after: labels of this window until the threshold was crossed.
    :param degraded: it was crossed, and the window's mean is above the bound too.
    :param state: the wager, for the next window of this model version.
    :param replaced: older labels of the same key and time that newer ones took the place of.
    """

    rows: int
    labelled: int
    loss: str
    mean: float | None
    interval: tuple[float, float] | None
    tested: Mapping[str, float | None]
    auc: float | None
    auc_interval: tuple[float, float] | None
    e_value: float
    threshold: float
    degraded: bool
    fired_after: int | None
    state: BettingState
    replaced: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON values for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any, where: str) -> PerformanceReport:
        """Read what :meth:`to_json` wrote, in this or an earlier release.

        :param where: what the document is and where, for errors.
        :raises DataError: a field is missing or has another type.
        """
        read = Fields(document, where)
        tested, state = read.inner("tested"), read.inner("state")
        return cls(
            rows=read.whole("rows"),
            labelled=read.whole("labelled"),
            loss=read.text("loss"),
            mean=read.number_or_none("mean"),
            interval=read.pair("interval"),
            tested={name: tested.number_or_none(name) for name in read.mapping("tested")},
            auc=read.number_or_none("auc"),
            auc_interval=read.pair("auc_interval"),
            e_value=read.number("e_value"),
            threshold=read.number("threshold"),
            degraded=read.flag("degraded"),
            fired_after=read.whole("fired_after", None),  # type: ignore[arg-type]
            state=BettingState.of({"log_wealth": state.items("log_wealth"), "labels": state.whole("labels")}),
            replaced=read.whole("replaced", 0),
        )


def losses(loss: str, prediction: Floats, actual: Floats) -> Floats:
    """Loss of each prediction.

    :param loss: ``brier``, ``error`` or ``absolute_error``.
    :param prediction: probability of the positive class, or a number.
    :param actual: 0 or 1, or a number.
    :raises DataError: labels other than 0 and 1, or predictions outside 0 to 1, for the first two.
    """
    import numpy as np

    if loss == "absolute_error":
        with np.errstate(over="ignore", invalid="ignore"):
            found: Floats = np.abs(prediction - actual)
        if odd := int((~np.isfinite(found)).sum()):
            raise DataError(
                f"Loss {loss}: {odd} of {len(found)} labels or predictions are too large or no finite number. Let the "
                "examples' SQL leave such rows out, or give them a number."
            )
        return found
    if not is_binary(known := set(actual.tolist())):
        raise DataError(
            f"Loss {loss}: expected labels 0 and 1, got {sorted(known)[:5]}. Let the examples' SQL make them, such as "
            f"{binary_sql('label', sorted(known)[:2])}, or use loss: absolute_error for numbers."
        )
    if len(prediction) and not (prediction.min() >= 0 and prediction.max() <= 1):
        raise DataError(
            f"Loss {loss}: expected predictions between 0 and 1, got {prediction.min():g} to "
            f"{prediction.max():g}. The model code's predict must write the probability of the positive class."
        )
    if loss == "brier":
        return np.square(prediction - actual)
    wrong: Floats = ((prediction >= 0.5) != (actual == 1)).astype(np.float64)
    return wrong


def expected_loss(metrics: Sequence[Mapping[str, Any]], loss: str, where: str) -> ExpectedLoss:
    """Find the promise in the metrics of a model's evaluation.

    :param metrics: entries of ``metrics.json``; slices and splits other than ``test`` are passed over.
    :param loss: ``brier``, ``error`` or ``absolute_error``.
    :param where: named in errors.
    :raises DataError: the loss was not reported, or neither its ``stderr`` nor its ``n``.
    """
    whole = {m["name"]: m for m in metrics if not m.get("slice") and m.get("split", "test") in {"test", None}}
    found = next((whole[name] for name in _NAMES[loss] if name in whole), None)
    if found is None and loss == "error" and "accuracy" in whole:
        found = {**whole["accuracy"], "value": 1 - float(whole["accuracy"]["value"])}
    if found is None:
        raise DataError(
            f"{where}: the model's evaluation reports no metric {' or '.join(_NAMES[loss])} on its test split; "
            f"it reports {', '.join(sorted(whole)) or 'none'}. Let the model code's evaluate write it to "
            "output/metrics.json with stderr and n, or choose another monitoring.performance.loss."
        )
    mean, rows = float(found["value"]), found.get("n")
    stderr = _stderr(found, mean, loss, where)
    if not (math.isfinite(mean) and math.isfinite(stderr)):
        raise DataError(
            f"{where}: metric {found['name']} of the model's evaluation is {mean} with stderr {stderr}, and a wager needs "
            "finite numbers. Let the model code's evaluate write both so to output/metrics.json."
        )
    auc = whole.get("auc", {}).get("value")
    return ExpectedLoss(mean, stderr, rows, None if auc is None else float(auc))


def bet(
    observed: Floats, bound: float, state: BettingState, threshold: float, min_labels: int = 0
) -> BettingResult:
    """Let the wager see a batch of losses, one after another.

    Splitting a series into batches changes nothing.

    :param observed: losses, 0 to 1.
    :param bound: the mean loss that counts as "as tested".
    :param state: where the wager stood.
    :param threshold: e-value of an alarm, ``1 / false alarm rate``.
    :param min_labels: labels of the whole series before the first alarm.
    :raises DataError: a loss is no number; it would silence the wager for ever.
    """
    import numpy as np

    if not np.isfinite(observed).all() or not math.isfinite(bound):
        raise DataError("A loss, or its bound, is NaN or infinite: no wager can be made on it.")

    if not len(observed):
        return BettingResult(state, _e_value(np.asarray(state.log_wealth)), None)
    stakes = np.minimum(_BETS, _BOLDEST / max(bound, 1e-9))
    steps = np.log1p(stakes[:, None] * (observed[None, :] - bound))
    sums = np.cumsum(steps, axis=1)
    before = np.concatenate([np.zeros((len(stakes), 1)), sums[:, :-1]], axis=1)
    lowest = np.minimum.accumulate(before, axis=1)
    start = np.maximum(np.asarray(state.log_wealth), 0.0)[:, None]
    log_wealth = sums + np.maximum(start, -lowest)  # the closed form of w = max(w, 0) + step
    log_e = np.logaddexp.reduce(log_wealth, axis=0) - math.log(len(stakes))
    seen = state.labels + np.arange(1, len(observed) + 1)
    over = np.flatnonzero((log_e >= math.log(threshold)) & (seen >= min_labels))
    return BettingResult(
        BettingState(tuple(log_wealth[:, -1].tolist()), state.labels + len(observed)),
        float(np.exp(min(log_e.max(), 700.0))),
        int(over[0]) + 1 if len(over) else None,
    )


def measure(
    prediction: Floats,
    actual: Floats,
    *,
    rows: int,
    loss: str,
    tested: ExpectedLoss,
    state: BettingState,
    false_alarm_rate: float,
    min_labels: int,
    replaced: int = 0,
) -> PerformanceReport:
    """Measure one window.

    After a window that was worse than tested the wager starts anew.

    :param prediction: predictions that have a label.
    :param actual: their labels.
    :param rows: predictions of the window, labelled or not.
    :param loss: name of the loss.
    :param tested: the promise.
    :param state: the wager after the model version's previous window.
    :param false_alarm_rate: per label.
    :param min_labels: labels of the model version before the first alarm.
    :param replaced: older labels that newer ones took the place of.
    """
    observed = losses(loss, prediction, actual)
    scale = 1.0 if loss != "absolute_error" else max(_CAP * tested.bound, 1e-12)
    threshold = 1 / false_alarm_rate
    bound = min(tested.bound / scale, 1.0)
    result = bet((observed / scale).clip(0.0, 1.0), bound, state, threshold, min_labels)
    mean, interval = mean_with_interval(observed)
    degraded = result.fired_after is not None and mean is not None and mean > tested.bound
    auc = auc_with_interval(prediction, actual) if loss != "absolute_error" else None
    return PerformanceReport(
        rows=rows,
        labelled=len(actual),
        loss=loss,
        mean=mean,
        interval=interval,
        tested={**asdict(tested), "bound": tested.bound},
        auc=auc[0] if auc else None,
        auc_interval=auc[1] if auc else None,
        e_value=result.highest,
        threshold=threshold,
        degraded=degraded,
        fired_after=result.fired_after,
        state=BettingState(labels=result.state.labels) if degraded else result.state,
        replaced=replaced,
    )


def mean_with_interval(values: Floats) -> tuple[float | None, tuple[float, float] | None]:
    """Mean with its 95 % interval by the normal approximation; ``None`` without values."""
    if not len(values):
        return None, None
    mean = float(values.mean())
    half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return mean, (mean - half, mean + half)


def auc_with_interval(score: Floats, label: Floats) -> tuple[float, tuple[float, float]] | None:
    """Area under the ROC curve with DeLong's 95 % interval, in one sort; ``None`` with one class only.

    Sources: E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, 1988, *Comparing the areas under two or
    more correlated receiver operating characteristic curves*; X. Sun and W. Xu, 2014, *Fast implementation
    of DeLong's algorithm*.
    """
    from scipy.stats import rankdata

    positive, negative = score[label == 1], score[label == 0]
    m, n = len(positive), len(negative)
    if m < 2 or n < 2:
        return None
    ranks = rankdata(score)
    of_positive = (ranks[label == 1] - rankdata(positive)) / n
    of_negative = 1 - (ranks[label == 0] - rankdata(negative)) / m
    auc = float(of_positive.mean())
    half = 1.96 * math.sqrt(of_positive.var(ddof=1) / m + of_negative.var(ddof=1) / n)
    return auc, (max(0.0, auc - half), min(1.0, auc + half))


def _stderr(metric: Mapping[str, Any], mean: float, loss: str, where: str) -> float:
    if metric.get("stderr") is not None:
        return float(metric["stderr"])
    if metric.get("n") and loss != "absolute_error":
        return math.sqrt(max(mean * (1 - mean), 0.0) / int(metric["n"]))  # no loss in [0, 1] varies more
    raise DataError(
        f"{where}: metric {metric['name']} of the model's evaluation has neither stderr nor n, so nobody can say "
        "how precise the test was. Let the model code's evaluate write both to output/metrics.json."
    )


def _e_value(log_wealth: Floats) -> float:
    import numpy as np

    return float(np.exp(min(np.logaddexp.reduce(log_wealth) - math.log(len(log_wealth)), 700.0)))
