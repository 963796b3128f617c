"""Whether a value is there: not NULL and not NaN, which is how writers that know no NULL say it.

One word for it in SQL, NumPy and Arrow, so that all parts count the same rows: labels to learn from, to judge by and
to watch, keys to join by, and values that a rule is about. Infinity is a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["is_float", "is_present", "is_present_arrow", "or_null_sql", "present_sql", "same_sql"]

_FLOATS = frozenset({"double", "float", "halffloat", "real"})


def is_float(type_: str) -> bool:
    """Whether a column of this type, by DuckDB's or Arrow's name, may hold NaN."""
    return type_.lower() in _FLOATS


def present_sql(column: str, type_: str) -> str:
    """A condition of DuckDB that is true where the value is there, and never NULL.

    :param column: the quoted name, or an expression.
    :param type_: its type, by DuckDB's or Arrow's name.
    """
    return f"({column} IS NOT NULL AND NOT isnan({column}))" if is_float(type_) else f"({column} IS NOT NULL)"


def or_null_sql(column: str, type_: str) -> str:
    """The value where it is there, else NULL."""
    return f"CASE WHEN NOT isnan({column}) THEN {column} END" if is_float(type_) else column


def same_sql(one: str, one_type: str, other: str, other_type: str) -> str:
    """A condition to join by: both values are there and equal, or neither is there."""
    return f"{or_null_sql(one, one_type)} IS NOT DISTINCT FROM {or_null_sql(other, other_type)}"


def is_present(values: Any) -> npt.NDArray[np.bool_]:
    """Where values of NumPy are there; a masked one is not, nor is None in an array of objects."""
    import numpy as np

    data = np.ma.getdata(values)
    if data.dtype.kind == "f":
        there = ~np.isnan(data)
    elif data.dtype.kind == "O":
        there = np.array([one is not None and one == one for one in data.flat], bool).reshape(data.shape)  # noqa: PLR0124
    else:
        there = np.ones(data.shape, bool)
    return there & ~np.ma.getmaskarray(np.ma.asarray(values))


def is_present_arrow(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where values of Arrow are there."""
    import pyarrow.compute as pc

    return pc.invert(pc.is_null(values, nan_is_null=True))
