"""A single input that gives the target away: most often a trace of what happened afterwards.

Each input alone predicts the target of a row by the mean of the other rows with the same value, numbers being put into
bins. How much smaller its squared error is than that of the mean of all other rows is the share that the input tells:
1 when it determines the target, about 0 when it has nothing to do with it, and no more for an input with a value of its
own for every row, because a row never predicts itself.

Sources: D. M. Allen, 1974, *The Relationship Between Variable Selection and Data Augmentation and a Method for
Prediction* (PRESS, predicted R²); G. W. Brier, 1950, *Verification of Forecasts Expressed in Terms of Probability*
(the same for classes: the squared errors of all classes are added up).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.assumptions.kind import Kind
from airflow_mlops.primitives.assumptions.rules import Finding
from airflow_mlops.primitives.assumptions.split_leakage import inputs
from airflow_mlops.primitives.sql.present import is_present, is_present_arrow
from airflow_mlops.primitives.sql.words import identifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt
    from duckdb import DuckDBPyConnection

    Codes = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

__all__ = ["Target", "TargetLeakage", "told_share"]

SAMPLE = 200_000
"""Rows that are looked at, at most: the share is then known to about ±0.002."""
BINS = 64
PER_BIN = 10
"""Rows that a bin should have, at least: a row that is alone in its bin has no others to be predicted by."""
CLASSES = 50
"""A target of whole numbers or text with more values than this is a quantity, or no class."""


class TargetLeakage(Kind):
    """No single input tells more than a share of the target."""

    def lacking(self) -> str | None:
        """A target and an input."""
        if not [name for name in self.table.context.targets if name in self.table.columns]:
            return "there is no target here"
        return (
            None
            if self.rule.columns or inputs(self.table.columns, self.table.context)
            else "there is no input of the model"
        )

    def observe(self, connection: DuckDBPyConnection) -> Sequence[Any]:
        """The share that each input tells, the largest first."""
        target = next(name for name in self.table.context.targets if name in self.table.columns)
        names = [
            name
            for name in self.rule.columns or inputs(self.table.columns, self.table.context)
            if name != target
        ]
        shown = ", ".join(
            f"{_plain(name, self.table.columns[name])} AS c{n}" for n, name in enumerate([*names, target])
        )
        drawn = f" WHERE {self._drawn()}" if self.rows > SAMPLE else ""
        sample = connection.execute(f"SELECT {shown} FROM {self.table.relation}{drawn}").to_arrow_table()
        answer = Target.of(sample.column(len(names)))
        told = {name: told_share(sample.column(n), answer) for n, name in enumerate(names)}
        return sorted(((share, name) for name, share in told.items()), key=lambda one: (-one[0], one[1]))

    def _drawn(self) -> str:
        """Rows that lie scattered over the table, and are the same for the same table."""
        share = SAMPLE / self.rows
        if not self.table.columns.get(self.table.order, "").startswith(("int", "uint")):
            return f"hash({identifier(self.table.order)}) % 65536 < {share * 65536}"
        return f"({identifier(self.table.order)} * 40503) % 65536 < {share * 65536}"

    def judge(self) -> Finding:
        """Not one may tell more."""
        above = [f"{name} tells {share:.4g}" for share, name in self.seen if share > self.rule.value]
        most = f"{self.seen[0][1]} tells most, {self.seen[0][0]:.4g}" if self.seen else "no input"
        return Finding(self.rule, not above, ", ".join(above) or most)


def told_share(feature: Any, target: Target) -> float:
    """Share of the target that a single input tells, from 0 to 1.

    :param feature: Arrow column of numbers or anything else, as long as the target.
    """
    feature = feature.filter(target.known)
    if not target.errors:
        return 0.0
    groups = _groups(feature, target.classes)
    after = sum(_errors(groups, values) for values in target.values)
    return round(max(0.0, 1 - after / target.errors), 9)


@dataclass(frozen=True)
class Target:
    """What is to be told.

    :param known: Arrow mask of the rows that have a target; all else is about those.
    :param classes: number of the class of each row; of each different value where it is a quantity.
    :param values: the numbers to predict: the quantity, or for each class whether a row is of it.
    :param errors: what a prediction errs that knows no input.
    """

    known: Any
    classes: Codes
    values: tuple[Floats, ...]
    errors: float

    @classmethod
    def of(cls, column: Any) -> Target:
        """A target from its Arrow column of numbers or text."""
        import numpy as np
        import pyarrow.types as pt

        known = is_present_arrow(column)
        column = column.filter(known)
        classes = np.asarray(column.combine_chunks().dictionary_encode().indices, dtype=np.int64)
        counts = np.bincount(classes)
        number = pt.is_floating(column.type) or pt.is_integer(column.type)
        values: tuple[Floats, ...]
        if number and len(counts) > (2 if pt.is_floating(column.type) else CLASSES):
            values = (np.asarray(column, dtype=np.float64),)
        else:
            # Of two classes one says all; of very many, the most frequent ones.
            frequent = np.argsort(-counts, kind="stable")[: CLASSES if len(counts) > 2 else 1]
            values = tuple((classes == one).astype(np.float64) for one in frequent)
        nothing = np.zeros(len(classes), dtype=np.int64)
        return cls(
            known, classes, values, sum(_errors(nothing, one) for one in values) if len(classes) > 1 else 0.0
        )


def _plain(name: str, type_: str) -> str:
    """A column as numbers, or as text."""
    column = identifier(name)
    if type_.startswith(("timestamp", "date32")):
        return f"epoch_us({column}::TIMESTAMP)"
    if type_.startswith("decimal"):
        return f"{column}::DOUBLE"
    numeric = type_.startswith(("int", "uint", "double", "float", "halffloat"))
    return column if numeric else f"{column}::VARCHAR"


def _groups(feature: Any, classes: Codes) -> Codes:
    """Rows that the input cannot tell apart: by value, or by bin."""
    import numpy as np
    import pyarrow.types as pt

    if not (pt.is_integer(feature.type) or pt.is_floating(feature.type)):
        codes = feature.combine_chunks().dictionary_encode(null_encoding="encode").indices
        return np.asarray(codes, dtype=np.int64)
    values = np.asarray(feature.cast("float64", safe=False), dtype=np.float64)
    found = np.zeros(len(values), dtype=np.int64)
    present = is_present(values)
    if present.any():
        found[present] = 1 + _bins(values[present], classes[present])
    return found


def _bins(values: Floats, classes: Codes) -> Codes:
    """Bins of equal numbers of rows, cut again where a class begins or ends: a rare class hides in one bin else."""
    import numpy as np

    different, codes = np.unique(values, return_inverse=True)
    if len(different) <= BINS:
        return codes.astype(np.int64)
    place = np.zeros(len(different), dtype=np.int64)
    split = int(classes.max()) < 2
    for rows in [classes == one for one in range(2)] if split else [slice(None)]:
        counts = np.bincount(codes[rows], minlength=len(different))
        total = int(counts.sum())
        bins = min(BINS, max(1, total // PER_BIN))
        place = place * (BINS + 1) - (-(np.cumsum(counts) - counts) * bins // max(1, total))
    found: Codes = np.unique(place, return_inverse=True)[1].astype(np.int64)[codes]
    return found


def _errors(groups: Codes, values: Floats) -> float:
    """Sum of squared errors when each row is predicted by the mean of the others of its group."""
    import numpy as np

    values = values - values.mean()
    size = np.bincount(groups)
    mean = np.bincount(groups, values) / np.maximum(size, 1)
    within = values - mean[groups]
    rows = size[groups]
    alone = rows < 2
    scaled = within * rows / np.maximum(rows - 1, 1)
    # A row that is alone has no others: the mean of all is its prediction.
    errors = np.where(alone, values * len(values) / max(1, len(values) - 1), scaled)
    return float(np.square(errors).sum())
