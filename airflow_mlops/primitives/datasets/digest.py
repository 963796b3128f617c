"""A digest of what a table says, not of how some library laid it out in memory or on disk."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

__all__ = ["LogicalDigest", "logical_digest"]

_ONES = 1 << 20


def logical_digest(table: pa.Table) -> str:
    """SHA-256 over names, types, order and values of a table.

    Equal for every chunk layout, for dictionary-encoded and plain columns, for large and small
    strings, for times in seconds to microseconds, whatever lies under a null, and for all bit
    patterns of NaN. Different for another order of rows or columns.

    :param table: any Arrow table that fits into memory.
    :return: 64 hexadecimal digits.
    """
    digest = LogicalDigest()
    digest.update(table)
    return digest.hexdigest()


class LogicalDigest:
    """:func:`logical_digest` of tables one after the other, as if they were one."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, list[_Column]] = {}

    def update(self, table: pa.Table) -> None:
        """Take in the next rows; all tables have the same columns.

        :param table: an Arrow table.
        """
        for name in table.column_names:
            column = table.column(name)
            forms = self._columns.setdefault(name, _forms(column.type))
            forms[:] = [form for form in forms if form.takes(column)] or forms[-1:]
            for form in forms:
                form.update(column, self.rows)
        self.rows += table.num_rows

    def hexdigest(self) -> str:
        """The digest of all rows so far."""
        digest = hashlib.sha256(f"airflow-mlops/1\0{self.rows}".encode())
        for name, forms in self._columns.items():
            digest.update(f"\0{name}\0{forms[0].type_name}\0{forms[0].nulls}\0".encode())
            digest.update(forms[0].digest())
        return digest.hexdigest()


class _Column:
    """What is known of one column so far, in one form of its type.

    :param cast: whether nanoseconds are taken for microseconds.
    """

    def __init__(self, *, cast: bool = False) -> None:
        self.nulls = 0
        self.type_name = ""
        self._cast = cast
        self._validity, self._lengths, self._values = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()

    def takes(self, column: pa.ChunkedArray) -> bool:
        """Whether the values have this form."""
        return not self._cast or _whole_microseconds(column)

    def update(self, column: pa.ChunkedArray, before: int) -> None:
        """Take in the next values, ``before`` being the number of those before them."""
        import numpy as np

        column = _plain_type(column, nanoseconds=not self._cast)
        self.type_name = _type_name(column.type)
        if column.null_count and not self.nulls:
            # Of a column without nulls the validity is not hashed; now that there is one, catch up.
            for _ in range(before // _ONES):
                self._validity.update(b"\x01" * _ONES)
            self._validity.update(b"\x01" * (before % _ONES))
        self.nulls += column.null_count
        for array in column.chunks:
            if not len(array):
                continue
            if self.nulls:
                self._validity.update(
                    np.ascontiguousarray(array.is_valid().to_numpy(zero_copy_only=False)).data
                )
            for size in _lengths(array):
                self._lengths.update(size)
            for value in _values(array):
                self._values.update(value)

    def digest(self) -> bytes:
        """Validity, lengths and values."""
        return self._validity.digest() + self._lengths.digest() + self._values.digest()


def _forms(kind: pa.DataType) -> list[_Column]:
    import pyarrow as pa

    nanoseconds = pa.types.is_timestamp(kind) and kind.unit == "ns"
    return [_Column(cast=True), _Column()] if nanoseconds else [_Column()]


def _whole_microseconds(column: pa.ChunkedArray) -> bool:
    import pyarrow.compute as pc

    return not pc.any(pc.not_equal(pc.nanosecond(column), 0)).as_py()


def _lengths(array: pa.Array) -> Iterable[memoryview]:
    import numpy as np
    import pyarrow as pa

    if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        offsets = np.frombuffer(array.buffers()[1], dtype=np.int32)
        offsets = offsets[array.offset : array.offset + len(array) + 1]
        yield np.where(_valid(array), np.diff(offsets), 0).astype("<i8").data


def _values(array: pa.Array) -> Iterable[memoryview | bytes]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        # Bytes under a null are possible, so nulls are emptied before the data is taken as one block.
        array = pc.fill_null(array, "" if pa.types.is_string(kind) else b"")
        _, offsets, data = array.buffers()
        where = np.frombuffer(offsets, dtype=np.int32)[array.offset : array.offset + len(array) + 1]
        if data is not None:
            yield memoryview(data)[int(where[0]) : int(where[-1])]
    elif pa.types.is_boolean(kind):
        yield np.ascontiguousarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False)).data
    elif pa.types.is_floating(kind):
        numbers = np.where(_valid(array), _fixed(array), 0).astype(kind.to_pandas_dtype())
        numbers[np.isnan(numbers)] = np.nan
        yield numbers.data
    elif pa.types.is_primitive(kind) and kind.bit_width <= 64:
        yield np.where(_valid(array), _fixed(array), 0).data
    else:
        for value in array.to_pylist():
            yield json.dumps(value, default=str, sort_keys=True).encode() + b"\0"


def _fixed(array: pa.Array) -> Any:
    """The values of a fixed-width array as numpy integers or floats, without a copy."""
    import numpy as np
    import pyarrow as pa

    width = array.type.bit_width // 8
    kind = array.type.to_pandas_dtype() if pa.types.is_floating(array.type) else f"<i{width}"
    return np.frombuffer(array.buffers()[1], dtype=kind)[array.offset : array.offset + len(array)]


def _valid(array: pa.Array) -> Any:
    return array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else True


def _plain_type(column: pa.ChunkedArray, *, nanoseconds: bool) -> pa.ChunkedArray:
    """One type for all ways of storing the same values."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _narrow(column, pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return _narrow(column, pa.binary())
    if pa.types.is_timestamp(kind):
        if kind.unit == "ns" and nanoseconds:
            return column
        return column.cast(pa.timestamp("us", tz="UTC" if kind.tz else None))
    return column


def _narrow(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Cast to 32-bit offsets in slices small enough for them."""
    import pyarrow as pa

    rows = 1 << 16
    parts = [chunk.slice(at, rows).cast(kind) for chunk in column.chunks for at in range(0, len(chunk), rows)]
    return pa.chunked_array(parts, type=kind)


def _type_name(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        # Parquet calls the inner field "element", Arrow "item".
        return f"list<{_type_name(kind.value_type)}>"
    return str(kind)
