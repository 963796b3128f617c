"""Parts of a split by the values of a column."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import DataError
from airflow_mlops.primitives.sql.spelling import Spellings, spelled

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]

#: A number of more values than this is cut into quarters.
MOST_NUMBERS = 20
#: Most slices of a column.
MOST_SLICES = 200
NAME_LIMIT = 120


@dataclass(frozen=True)
class Slice:
    """One part.

    :param name: as ``origin=JFK``.
    :param rows: which rows are in it.
    """

    name: str
    rows: Mask

    @property
    def size(self) -> int:
        """Number of its rows."""
        return int(self.rows.sum())


def slices_of(column: str, values: npt.NDArray[Any]) -> list[Slice]:
    """The parts of a split by one column, largest first; a number of many values by quarters.

    :raises DataError: the column has too many values for slices to mean anything.
    """
    import numpy as np

    missing = _missing(values)
    known = np.ma.getdata(values)[~missing]
    found: list[Slice] = []
    if known.dtype.kind in "iuf" and len(np.unique(known)) > MOST_NUMBERS:
        found = _quarters(column, np.ma.getdata(values).astype(np.float64), missing)
    elif len(known):
        texts = np.where(missing, "", _texts(np.ma.getdata(values)))
        names = np.unique(texts[~missing])
        if len(names) > MOST_SLICES:
            raise DataError(
                f"Column {column} has {len(names)} different values in the test split; at most {MOST_SLICES} make "
                "slices. Cure: group them in the examples' SQL, and name that column."
            )
        found = [Slice(f"{column}={name}"[:NAME_LIMIT], (texts == name) & ~missing) for name in names]
    if missing.any():
        found.append(Slice(f"{column} is null"[:NAME_LIMIT], missing))
    return sorted(found, key=lambda one: (-one.size, one.name))


def slice_named(name: str, columns: dict[str, npt.NDArray[Any]]) -> Mask | None:
    """Rows of the slice ``column=value``; ``None`` when the split has no such column."""
    import numpy as np

    column, _, value = (part.strip() for part in name.partition("="))
    if column not in columns:
        return None
    values = np.ma.getdata(columns[column])
    missing = _missing(columns[column])
    texts = _texts(values)
    if values.dtype.kind not in "OUS":
        known = np.unique(texts[~missing]).tolist()
        value = Spellings(known, booleans=values.dtype.kind == "b").find(value)
    found: Mask = (texts == value) & ~missing
    return found


def _quarters(column: str, values: npt.NDArray[np.float64], missing: Mask) -> list[Slice]:
    import numpy as np

    cuts = np.unique(np.quantile(values[~missing], [0, 0.25, 0.5, 0.75, 1]))
    found = []
    for place, (low, high) in enumerate(pairwise(cuts)):
        last = place == len(cuts) - 2
        inside = (values >= low) & ((values <= high) if last else (values < high)) & ~missing
        found.append(Slice(f"{column} from {low:.4g} to {high:.4g}"[:NAME_LIMIT], inside))
    return found


def _missing(values: npt.NDArray[Any]) -> Mask:
    import numpy as np

    mask: Mask = np.ma.getmaskarray(np.ma.asarray(values))
    data = np.ma.getdata(values)
    if data.dtype.kind == "f":
        mask = mask | ~np.isfinite(data)
    elif data.dtype.kind == "O":
        mask = mask | np.array([one is None for one in data], dtype=bool)
    return mask


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As the data show them: ``true`` and ``1``, not ``True`` and ``1.0``."""
    import numpy as np

    if values.dtype.kind == "b":
        return np.where(values, "true", "false")
    if values.dtype.kind not in "fO":
        found: npt.NDArray[Any] = values.astype(str)
        return found
    # Each different value once: a column has few of them where slices make sense.
    different, place = np.unique(values.astype(str), return_inverse=True)
    kind = float if values.dtype.kind == "f" else str
    return np.asarray([spelled(kind(text)) for text in different], dtype=str)[place.reshape(values.shape)]
