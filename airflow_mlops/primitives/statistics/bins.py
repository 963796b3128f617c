"""What a model's training data looked like: exact bins per column, kept as JSON beside the model's dataset.

Sketches answer "what is the median?" well and "did the distribution move?" badly: p-values computed
from them are wrong at scale. So a numeric column keeps the exact counts between 63 quantiles of the
reference, dense in the tails, and any other column the count of each value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import DataError, SourceError
from airflow_mlops.primitives.sql.present import is_present_arrow
from airflow_mlops.primitives.sql.spelling import Spellings, spelled
from airflow_mlops.primitives.statistics.columns import iterate_columns, kind_of, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

FORMAT = 1
FEW_LEVELS = 10  # a number with fewer values than this is a code, not a quantity
MANY_LEVELS = 10_000  # text with more values than this is an identifier
# A value so close above an edge is the edge: of decimals that were computed, and of those that were floats of 32 bits.
_COMPUTED, _SINGLE = 2.0**-44, 2.0**-23
_LOW = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08)
_HIGH = (0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.9975, 0.999, 0.9995)


@dataclass(frozen=True)
class NumericColumn:
    """Counts of a quantity; bin ``i`` holds ``edges[i-1] < x <= edges[i]``, the outer bins are open.

    A value is as large as an edge if only the width of its float tells them apart.

    :param edges: ascending, finite.
    :param counts: one more than edges.
    :param missing: NULL and NaN.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int

    def count(self, values: pa.ChunkedArray) -> NumericColumn:
        """Counts of other values over the same bins."""
        numbers = _numbers(values)
        return NumericColumn(self.edges, _bin(numbers, self.edges), len(values) - len(numbers))


@dataclass(frozen=True)
class CategoricalColumn:
    """Counts of each value of a column that is no quantity.

    :param counts: value → how often; values are text (``"true"``, ``"7"``, ``"EWR"``).
    :param missing: NULL and NaN.
    :param kind: what the values were, as ``columns.kind_of`` says it; empty if that is not known.
    """

    counts: Mapping[str, int]
    missing: int
    kind: str = field(default="", compare=False)

    def count(self, values: pa.ChunkedArray) -> CategoricalColumn:
        """Counts of other values: by the name that the value has here, if another type spells it differently."""
        found, kind = _labels(values), kind_of(values.type)
        labels: Mapping[str, int] = found
        if not (kind == "text" and self.kind in ("text", "")):
            known = Spellings(self.counts, booleans="boolean" in (self.kind, kind))
            labels = _summed((known.find(label), count) for label, count in found.items())
        return CategoricalColumn(labels, len(values) - sum(labels.values()), kind)


@dataclass(frozen=True)
class UncomparedColumn:
    """A column of which no comparison makes sense, and why."""

    reason: str


Column = NumericColumn | CategoricalColumn | UncomparedColumn


@dataclass(frozen=True)
class Reference:
    """The columns of a training dataset, counted.

    :param dataset_id: the dataset version.
    :param rows: rows counted.
    :param columns: by name, in the order of the model's inputs.
    """

    dataset_id: str
    rows: int
    columns: Mapping[str, Column] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values; :meth:`from_json` reads them back."""
        return {
            "format": FORMAT,
            "dataset_id": self.dataset_id,
            "rows": self.rows,
            "columns": {name: _column_to_json(column) for name, column in self.columns.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reference:
        """Read what :meth:`to_json` wrote.

        :raises DataError: written by another version of this package.
        """
        if data.get("format") != FORMAT:
            raise DataError(
                f"Monitoring reference of dataset {data.get('dataset_id')}: expected format {FORMAT}, "
                f"got {data.get('format')!r}. Delete the file below monitoring/references/: it is built anew."
            )
        columns = {name: _column_from_json(column) for name, column in data["columns"].items()}
        return cls(data["dataset_id"], data["rows"], columns)


def build_reference(dataset_id: str, paths: Sequence[Path | str], columns: Sequence[str]) -> Reference:
    """Count the columns of a dataset split.

    :param dataset_id: the dataset version, kept for the record.
    :param paths: its Parquet files.
    :param columns: the model's inputs.
    :raises SourceError: a file lacks one of the columns.
    """
    counted: dict[str, Column] = {}
    rows = 0
    for name, values in iterate_columns(paths, columns):
        rows = len(values)
        counted[name] = count_column(values)
    return Reference(dataset_id, rows, counted)


def count_column(values: pa.ChunkedArray) -> Column:
    """Count one column the way its values ask for: as a quantity, as categories, or not at all."""
    values = plain(values)
    kind = kind_of(values.type)
    if kind in {"time", "other"}:
        return UncomparedColumn(f"values of type {values.type} are not compared")
    if kind in {"integer", "float"}:
        numbers = _numbers(values)
        if not _has_few_levels(numbers):
            edges = _quantile_edges(numbers)
            return NumericColumn(edges, _bin(numbers, edges), len(values) - len(numbers))
    labels = _labels(values)
    if len(labels) > MANY_LEVELS:
        return UncomparedColumn(f"more than {MANY_LEVELS} different values: an identifier, not a category")
    return CategoricalColumn(labels, len(values) - sum(labels.values()), kind)


def count_like(reference: Column, name: str, values: pa.ChunkedArray) -> Column:
    """Count a window's column over the bins of its reference.

    :raises SourceError: the reference holds numbers and the window holds text.
    """
    values = plain(values)
    if isinstance(reference, UncomparedColumn):
        return reference
    all_missing = values.null_count == len(values)
    is_number = kind_of(values.type) in {"integer", "float"}
    if isinstance(reference, NumericColumn) and not is_number and not all_missing:
        raise SourceError(
            f"Column {name}: expected numbers as in the training data, got {values.type}. "
            "The source has changed its type: change it back, or train a model on the new one."
        )
    return reference.count(values)


def _numbers(values: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    import numpy as np

    there = values.filter(is_present_arrow(values))
    if not len(there):
        return np.empty(0)
    numbers: npt.NDArray[np.float64] = there.to_numpy().astype(np.float64)
    return numbers


def _has_few_levels(numbers: npt.NDArray[np.float64]) -> bool:
    import numpy as np

    if len(np.unique(numbers[:1000])) >= FEW_LEVELS:  # spares the full sort in the usual case
        return False
    return len(np.unique(numbers)) < FEW_LEVELS


def _quantile_edges(numbers: npt.NDArray[np.float64]) -> tuple[float, ...]:
    import numpy as np

    ordered = np.sort(numbers)
    quantiles = np.r_[_LOW, np.linspace(0.1, 0.9, 39), _HIGH]
    at = np.clip((quantiles * len(ordered)).astype(np.int64), 0, len(ordered) - 1)
    edges = np.unique(ordered[at])
    return tuple(edges[np.isfinite(edges)].tolist())


def _bin(numbers: npt.NDArray[np.float64], edges: tuple[float, ...]) -> tuple[int, ...]:
    import numpy as np

    bounds = np.asarray(edges, dtype=np.float64)
    slack = _SINGLE if _are_single(bounds) or _are_single(numbers) else _COMPUTED
    index = np.searchsorted(bounds + np.abs(bounds) * slack, numbers, side="left")
    return tuple(np.bincount(index, minlength=len(edges) + 1).tolist())


def _are_single(numbers: npt.NDArray[np.float64]) -> bool:
    """Whether floats of 32 bits say all of them, and whole numbers do not."""
    import numpy as np

    finite = numbers[np.isfinite(numbers) & (np.abs(numbers) < np.finfo(np.float32).max)]
    return bool((finite == finite.astype(np.float32)).all() and (finite != np.round(finite)).any())


def _labels(values: pa.ChunkedArray) -> dict[str, int]:
    import pyarrow.compute as pc

    counted = pc.value_counts(values.filter(is_present_arrow(values)))
    return _summed((spelled(item["values"]), item["counts"]) for item in counted.to_pylist())


def _summed(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for label, count in counts:
        found[label] = found.get(label, 0) + count
    return dict(sorted(found.items()))


def _column_to_json(column: Column) -> dict[str, Any]:
    if isinstance(column, NumericColumn):
        return {
            "kind": "numeric",
            "edges": list(column.edges),
            "counts": list(column.counts),
            "missing": column.missing,
        }
    if isinstance(column, CategoricalColumn):
        return {
            "kind": "categorical",
            "counts": dict(column.counts),
            "missing": column.missing,
            "of": column.kind,
        }
    return {"kind": "uncompared", "reason": column.reason}


def _column_from_json(data: Mapping[str, Any]) -> Column:
    if data["kind"] == "numeric":
        return NumericColumn(tuple(data["edges"]), tuple(data["counts"]), data["missing"])
    if data["kind"] == "categorical":
        return CategoricalColumn(dict(data["counts"]), data["missing"], data.get("of", ""))
    return UncomparedColumn(data["reason"])
