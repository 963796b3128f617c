"""What a gate decides by: figures measured here where that is possible, the model code's own elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.evaluation.measures import compare, direction_of, is_measured, measure
from airflow_mlops.primitives.evaluation.slices import slice_named
from airflow_mlops.primitives.statistics.intervals import Difference, Estimate
from airflow_mlops.primitives.texts.nearest import nearest_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from airflow_mlops.primitives.evaluation.cases import TestSummary
    from airflow_mlops.primitives.evaluation.predicted import PredictedRows

    Mask = npt.NDArray[np.bool_]
    Entries = Sequence[Mapping[str, Any]]

#: Directions of well-known metrics, for entries that do not say theirs.
MAXIMIZED = frozenset(
    {
        "accuracy",
        "auc",
        "average_precision",
        "balanced_accuracy",
        "f1",
        "precision",
        "r2",
        "recall",
        "roc_auc",
    }
)
MINIMIZED = frozenset({"brier", "error", "log_loss", "loss", "mae", "mape", "mse", "rmse"})


@dataclass(frozen=True)
class Figure:
    """A metric's value, or why there is none.

    :param entry: what the model code wrote of it.
    :param estimate: with the error, where it is known.
    :param measured: whether it was measured here.
    """

    estimate: Estimate | None
    entry: Mapping[str, Any] | None = None
    measured: bool = False
    problem: str = ""

    @property
    def text(self) -> str:
        """The value as people read it: ± half of its 95 % interval, as the intervals beside it."""
        if self.estimate is None:
            return "none"
        half = self.estimate.half_width
        return f"{self.estimate.value:.4f}" + (f" ± {half:.4f}" if half is not None else "")


@dataclass(frozen=True)
class Evidence:
    """All that is known of a candidate, and of the champion on the same test split.

    :param metrics: the candidate's, as in ``metrics.json``.
    :param champion: the champion's; ``None`` when there is no champion, or it could not be evaluated.
    :param rows: the candidate's predictions beside the truth; ``None`` where nothing can be measured.
    :param champion_rows: the champion's, of the same rows in the same order.
    :param columns: columns of the test split, for slices, in that order.
    :param champion_failure: why the champion could not be evaluated.
    :param tests: the candidate's test cases.
    :param model_bytes: size of the candidate's model.
    """

    metrics: Entries = ()
    champion: Entries | None = None
    rows: PredictedRows | None = None
    champion_rows: PredictedRows | None = None
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    champion_failure: str = ""
    tests: TestSummary | None = None
    model_bytes: int | None = None

    def figure(self, metric: str, split: str, cut: str | None, rows: Mask | None = None) -> Figure:
        """A metric of the candidate.

        :param cut: name of a slice.
        :param rows: its rows, where they are known.
        """
        return self._figure(metric, split, cut, rows, self.rows, self.metrics, "the candidate")

    def champion_figure(self, metric: str, split: str, cut: str | None, rows: Mask | None = None) -> Figure:
        """A metric of the champion."""
        entries = self.champion or ()
        return self._figure(metric, split, cut, rows, self.champion_rows, entries, "the champion")

    def difference(
        self, metric: str, split: str, cut: str | None, rows: Mask | None = None
    ) -> Difference | None:
        """How much better the candidate is on the same rows; ``None`` where that cannot be measured."""
        if self.rows is None or self.champion_rows is None or split != "test":
            return None
        part = self._part(cut, rows)
        if cut and part is None:
            return None
        new, old = self.rows, self.champion_rows
        return compare(
            metric, new if part is None else new.part(part), old if part is None else old.part(part)
        )

    def direction(self, metric: str, *figures: Figure) -> int | None:
        """1 where more is better, -1 where less is, ``None`` where nobody knows."""
        if self.rows is not None and (known := direction_of(metric, self.rows.kind)):
            return 1 if known == "maximize" else -1
        entries = [figure.entry for figure in figures]
        said = {entry.get("direction") for entry in entries if entry and entry.get("direction")}
        if said == {"maximize"} or (not said and metric in MAXIMIZED):
            return 1
        if said == {"minimize"} or (not said and metric in MINIMIZED):
            return -1
        return None

    def _part(self, cut: str | None, rows: Mask | None) -> Mask | None:
        return rows if rows is not None or not cut else slice_named(cut, dict(self.columns))

    def _figure(
        self,
        metric: str,
        split: str,
        cut: str | None,
        rows: Mask | None,
        predicted: PredictedRows | None,
        entries: Entries,
        whose: str,
    ) -> Figure:
        entry = find(metric, split, cut, entries)
        if predicted is not None and split == "test" and is_measured(metric, predicted.kind):
            part = self._part(cut, rows)
            if not cut or part is not None:
                return _measured(
                    metric, predicted if part is None else predicted.part(part), entry, cut, whose
                )
        value = number(entry)
        if value is None:
            return Figure(None, entry, problem=_absent(name_of(metric, split, cut), entry, entries, whose))
        n, stderr = (entry or {}).get("n"), (entry or {}).get("stderr")
        return Figure(Estimate(value, int(n or 0), None if stderr is None else float(stderr)), entry)


def find(metric: str, split: str, cut: str | None, metrics: Entries) -> Mapping[str, Any] | None:
    """The entry that is meant: of its split, or of none; the last step."""
    found = [
        entry
        for entry in metrics
        if entry.get("name") == metric and entry.get("slice") == cut and entry.get("split", split) == split
    ]
    # An entry that names the split is meant before one that names none.
    return max(found, key=lambda entry: ("split" in entry, entry.get("step") or 0), default=None)


def number(entry: Mapping[str, Any] | None) -> float | None:
    """The value of an entry, if it is one."""
    value = None if entry is None else entry.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def name_of(metric: str, split: str, cut: str | None) -> str:
    """A metric as people read it: ``test.auc[origin=JFK]``."""
    return f"{split}.{metric}" + (f"[{cut}]" if cut else "")


def _measured(
    metric: str, rows: PredictedRows, entry: Mapping[str, Any] | None, cut: str | None, whose: str
) -> Figure:
    estimate = measure(metric, rows)
    if estimate is None:
        where = f" of {cut}" if cut else ""
        problem = f"{whose}'s {metric}{where} is not defined for the {len(rows)} rows of the test split"
        return Figure(None, entry, measured=True, problem=problem)
    return Figure(estimate, entry, measured=True)


def _absent(name: str, entry: Mapping[str, Any] | None, metrics: Entries, whose: str) -> str:
    if entry is not None:
        return f"{whose}'s value is {entry.get('value')!r}, which is no finite number"
    known = sorted({name_of(str(m.get("name")), m.get("split", "test"), m.get("slice")) for m in metrics})
    return f"{whose} has no metric {name}; it has: {nearest_of(known, name)}"
