"""Did the inputs move? Per column a calibrated test and a size, both of which must agree.

The test of a quantity compares exact counts over 64 reference-quantile bins: four normal-score
contrasts (location, scale, skew, tails) and a two-sample chi-square, combined by the Cauchy method.
Categories are compared by a two-sample chi-square. With many rows any test finds something, so a
column has drifted only when the difference is also large enough to matter.

Sources: E. L. Lehmann, 1975, *Nonparametrics: Statistical Methods Based on Ranks* (normal scores);
Y. Liu and J. Xie, 2020, *Cauchy Combination Test: A Powerful Test with Analytic p-Value Calculation
Under Arbitrary Dependency Structures*; K. Pearson, 1911, *On the Probability that Two Independent
Distributions of Frequency are Really Samples from the Same Population* (two-sample chi-square).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SourceError, SpecError
from airflow_mlops.primitives.statistics.bins import (
    CategoricalColumn,
    NumericColumn,
    UncomparedColumn,
    count_like,
)
from airflow_mlops.primitives.statistics.columns import iterate_columns, missing_from
from airflow_mlops.primitives.texts.records import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from airflow_mlops.primitives.monitoring.rules import DriftRule
    from airflow_mlops.primitives.statistics.bins import Column, Reference

    Floats = npt.NDArray[np.float64]

KS_GATE = 0.02
HELLINGER_GATE = 0.05
TOTAL_VARIATION_GATE = 0.02
MISSING_GATE = 0.02
_WEIGHTS = (0.35, 0.25, 0.1, 0.15, 0.15)  # location, scale, skew, tails, chi-square
_TOP = 50  # categories compared one by one; the rest is one cell
_ENOUGH = 5.0  # expected count that a chi-square cell needs


@dataclass(frozen=True)
class ColumnDrift:
    """The comparison of one column.

    :param column: its name.
    :param kind: ``numeric``, ``categorical`` or ``uncompared``.
    :param drifted: significant and large enough.
    :param p_value: of values and missing values together; ``None`` when nothing was compared.
    :param effects: sizes: ``ks`` and ``hellinger`` (numeric), ``total_variation`` and ``new_share``
        (categorical), ``missing`` and ``missing_before`` (shares).
    :param note: why nothing was compared.
    """

    column: str
    kind: str
    drifted: bool
    p_value: float | None
    effects: Mapping[str, float] = field(default_factory=dict)
    note: str | None = None

    @classmethod
    def from_json(cls, document: Any, where: str) -> ColumnDrift:
        """Read one of the ``columns`` of a report.

        :raises DataError: a field is missing or has another type.
        """
        read = Fields(document, where)
        return cls(
            column=read.text("column"),
            kind=read.text("kind"),
            drifted=read.flag("drifted"),
            p_value=read.number_or_none("p_value"),
            effects=read.mapping("effects", {}),
            note=read.text("note", "") or None,
        )


@dataclass(frozen=True)
class DriftReport:
    """One window against the reference.

    :param rows: rows of the window.
    :param reference_rows: rows of the reference.
    :param judged: whether the window had enough rows to judge.
    :param threshold: p-value below which a column is significant (rate / number of columns).
    :param error: what is wrong with columns that could not be compared; the others were.
    :param columns: every column that could be compared, the drifted ones first and of those the largest effect first.
    """

    rows: int
    reference_rows: int
    judged: bool
    threshold: float
    columns: Sequence[ColumnDrift]
    error: str = ""

    @property
    def drifted(self) -> list[str]:
        """Names of the drifted columns, the largest effect first."""
        return [column.column for column in self.columns if column.drifted]

    def to_json(self) -> dict[str, Any]:
        """JSON values for the store."""
        return {
            **asdict(self),
            "columns": [asdict(column) for column in self.columns],
            "drifted": self.drifted,
        }

    @classmethod
    def from_json(cls, document: Any, where: str) -> DriftReport:
        """Read what :meth:`to_json` wrote, in this or an earlier release.

        :param where: what the document is and where, for errors.
        :raises DataError: a field is missing or has another type.
        """
        read = Fields(document, where)
        columns = enumerate(read.items("columns"), 1)
        return cls(
            rows=read.whole("rows"),
            reference_rows=read.whole("reference_rows"),
            judged=read.flag("judged"),
            threshold=read.number("threshold"),
            columns=[
                ColumnDrift.from_json(column, f"{where}: column {number}") for number, column in columns
            ],
            error=read.text("error", ""),
        )


def compare_window(reference: Reference, paths: Sequence[Path | str], rule: DriftRule) -> DriftReport:
    """Compare a window's Parquet files with the reference.

    :param reference: the training data, counted.
    :param paths: the window's files.
    :param rule: what counts as drift.
    :raises SourceError: no column can be compared: all are missing or have changed their type.
    :raises SpecError: the rule names a column that is no input of the model.
    """
    names = list(rule.columns or reference.columns)
    if unknown := [name for name in names if name not in reference.columns]:
        raise SpecError(
            f"monitoring.drift.columns: {', '.join(unknown)} is no input of the model; "
            f"its inputs are {', '.join(reference.columns)}."
        )
    lacking, said = missing_from(paths, names)
    window: dict[str, Column] = {}
    problems = [said] if said else []
    rows = 0
    for name, values in iterate_columns(paths, [name for name in names if name not in lacking]):
        rows = len(values)
        try:
            window[name] = count_like(reference.columns[name], name, values)
        except SourceError as error:
            problems.append(str(error))
    if problems and not window:
        raise SourceError(" ".join(problems))
    compared = sum(not isinstance(column, UncomparedColumn) for column in window.values())
    threshold = rule.false_alarm_rate / max(1, compared)
    judged = rows >= rule.min_rows
    columns = [
        compare_column(name, reference.columns[name], now, threshold if judged else 0.0)
        for name, now in window.items()
    ]
    columns.sort(key=_order)
    return DriftReport(rows, reference.rows, judged, threshold, columns, " ".join(problems))


def _order(column: ColumnDrift) -> tuple[bool, float]:
    """Drifted columns first, the largest effect first; p-values of drifted columns are all next to zero."""
    if column.drifted:
        return False, -max(
            column.effects.get(name, 0.0) for name in ("ks", "hellinger", "total_variation", "missing")
        )
    return True, 2.0 if column.p_value is None else column.p_value


def compare_column(name: str, before: Column, now: Column, threshold: float) -> ColumnDrift:
    """Compare one column; half of the threshold goes to its values, half to its missing values."""
    if isinstance(before, NumericColumn) and isinstance(now, NumericColumn):
        kind, p_values = "numeric", numeric_p_value(before, now)
        effects = numeric_effects(before, now)
        large = effects["ks"] >= KS_GATE or effects["hellinger"] >= HELLINGER_GATE
    elif isinstance(before, CategoricalColumn) and isinstance(now, CategoricalColumn):
        kind, p_values = "categorical", categorical_p_value(before, now)
        effects = categorical_effects(before, now)
        large = effects["total_variation"] >= TOTAL_VARIATION_GATE
    else:
        note = before.reason if isinstance(before, UncomparedColumn) else "not compared"
        return ColumnDrift(name, "uncompared", drifted=False, p_value=None, note=note)
    p_missing = _missing_p_value(before, now)
    shares = {"missing": _missing_share(now), "missing_before": _missing_share(before)}
    change = abs(shares["missing"] - shares["missing_before"])
    drifted = (p_values < threshold / 2 and large) or (p_missing < threshold / 2 and change >= MISSING_GATE)
    p_value = min(1.0, 2 * min(p_values, p_missing))
    effects = {key: round(value, 6) for key, value in (effects | shares).items()}
    return ColumnDrift(name, kind, drifted, p_value, effects)


def numeric_p_value(before: NumericColumn, now: NumericColumn) -> float:
    """Cauchy combination of four normal-score contrasts and a two-sample chi-square."""
    import numpy as np
    from scipy import stats

    reference, window = np.asarray(before.counts, dtype=float), np.asarray(now.counts, dtype=float)
    if not reference.sum() or not window.sum() or len(reference) < 2:
        return 1.0
    scores = _contrast_scores(reference, window)
    n, m = reference.sum(), window.sum()
    z = (window @ scores / m - reference @ scores / n) / np.sqrt(1 / m + 1 / n)
    p_values = np.append(2 * stats.norm.sf(np.abs(z)), _chi_square(*_merge_neighbours(reference, window)))
    weights = np.append(np.asarray(_WEIGHTS[: len(z)]), _WEIGHTS[-1])
    return _cauchy_combination(p_values, weights / weights.sum())


def categorical_p_value(before: CategoricalColumn, now: CategoricalColumn) -> float:
    """Two-sample chi-square; the cells are chosen from both samples together, or new values bias it."""
    return _chi_square(*_cells(before, now))


def numeric_effects(before: NumericColumn, now: NumericColumn) -> dict[str, float]:
    """Kolmogorov-Smirnov and Hellinger distance over the bins, 0 to 1."""
    import numpy as np

    if not sum(before.counts) or not sum(now.counts):
        return {"ks": 0.0, "hellinger": 0.0}
    p = np.asarray(before.counts) / sum(before.counts)
    q = np.asarray(now.counts) / sum(now.counts)
    return {
        "ks": float(np.abs(np.cumsum(q - p)).max()),
        "hellinger": float(np.sqrt(max(0.0, 1.0 - np.sqrt(p * q).sum()))),
    }


def categorical_effects(before: CategoricalColumn, now: CategoricalColumn) -> dict[str, float]:
    """Total variation less what chance alone would show, and the share of values never seen before."""
    import numpy as np

    reference, window = _cells(before, now)
    n, m = reference.sum(), window.sum()
    if not n or not m:
        return {"total_variation": 0.0, "new_share": 0.0}
    pooled = (reference + window) / (n + m)
    chance = 0.5 * np.sqrt(2 / np.pi * pooled * (1 - pooled) * (1 / n + 1 / m)).sum()
    distance = 0.5 * np.abs(reference / n - window / m).sum()
    new = sum(count for label, count in now.counts.items() if label not in before.counts)
    return {"total_variation": float(max(0.0, distance - chance)), "new_share": float(new / m)}


def _contrast_scores(reference: Floats, window: Floats) -> Floats:
    """Normal scores of the bins' pooled mid-ranks: location, scale, skew, tails, made orthonormal."""
    import numpy as np
    from scipy.special import ndtri

    total = reference + window
    shares = (total + 0.5) / (total.sum() + 0.5 * len(total))
    z = ndtri(np.cumsum(shares) - shares / 2)
    shapes = (z, z**2, z**3 - 3 * z, np.clip(np.abs(z) - 2, 0, None))
    scores: list[Floats] = []
    for shape in shapes:
        left = shape - shares @ shape
        for score in scores:
            left = left - (shares @ (left * score)) * score
        size = np.sqrt(shares @ (left * left))
        if size < 1e-6:  # fewer bins than contrasts: nothing is left of this one
            break
        scores.append(left / size)
    return np.stack(scores, axis=1)


def _merge_neighbours(reference: Floats, window: Floats) -> tuple[Floats, Floats]:
    """Merge neighbouring bins until each expects enough rows of either sample."""
    import numpy as np

    total = reference + window
    smaller = total * min(reference.sum(), window.sum()) / total.sum()
    group = np.zeros(len(total), dtype=np.int64)
    filled, current = 0.0, 0
    for index, expected in enumerate(smaller):
        group[index] = current
        filled += expected
        if filled >= _ENOUGH:
            filled, current = 0.0, current + 1
    if current:
        group[group == current] = current - 1
    return np.bincount(group, reference).astype(np.float64), np.bincount(group, window).astype(np.float64)


def _cells(before: CategoricalColumn, now: CategoricalColumn) -> tuple[Floats, Floats]:
    import numpy as np

    labels = sorted(set(before.counts) | set(now.counts))
    reference = np.array([before.counts.get(label, 0) for label in labels], dtype=float)
    window = np.array([now.counts.get(label, 0) for label in labels], dtype=float)
    total = reference + window
    if not total.sum():
        return reference, window
    order = np.argsort(-total, kind="stable")
    alone = total[order] * min(reference.sum(), window.sum()) / total.sum() >= _ENOUGH
    alone[_TOP:] = False
    first, rest = order[alone], order[~alone]
    if not len(rest):
        return reference[first], window[first]
    return np.append(reference[first], reference[rest].sum()), np.append(window[first], window[rest].sum())


def _chi_square(reference: Floats, window: Floats) -> float:
    """p-value of Pearson's two-sample chi-square over cells."""
    import numpy as np
    from scipy import stats

    total = reference + window
    reference, window, total = reference[total > 0], window[total > 0], total[total > 0]
    n, m = reference.sum(), window.sum()
    if len(total) < 2 or not n or not m:
        return 1.0
    expected = total * m / (n + m)
    statistic = np.sum((window - expected) ** 2 / (expected * n / (n + m)))
    return float(stats.chi2.sf(statistic, len(total) - 1))


def _cauchy_combination(p_values: Floats, weights: Floats) -> float:
    import numpy as np
    from scipy import stats

    p = np.clip(p_values, 1e-300, 1 - 1e-12)
    tangents = np.where(p < 1e-15, 1 / (p * np.pi), np.tan((0.5 - p) * np.pi))
    return float(stats.cauchy.sf(weights @ tangents))


def _missing_p_value(
    before: NumericColumn | CategoricalColumn, now: NumericColumn | CategoricalColumn
) -> float:
    import numpy as np

    return _chi_square(
        np.array([_present(before), before.missing], dtype=float),
        np.array([_present(now), now.missing], dtype=float),
    )


def _missing_share(column: NumericColumn | CategoricalColumn) -> float:
    rows = _present(column) + column.missing
    return column.missing / rows if rows else 0.0


def _present(column: NumericColumn | CategoricalColumn) -> int:
    return sum(column.counts if isinstance(column, NumericColumn) else column.counts.values())
