"""Rows of a database cursor as Arrow, with one type for each column over all batches."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pyarrow as pa

__all__ = ["batch_of", "write_batches"]

_DIGITS = 38


def batch_of(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    """A batch of rows, column by column.

    Whole numbers with nulls stay whole numbers, and a time without zone stays one.

    :raises SourceError: a column holds values that have no type in common.
    """
    import pyarrow as pa

    columns = list(zip(*rows, strict=True)) if rows else [() for _ in names]
    arrays = [_array(name, values) for name, values in zip(names, columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=list(names))


def write_batches(batches: Iterable[pa.RecordBatch], folder: Path) -> list[Path]:
    """Write batches as Parquet files of one schema, with one batch in memory at a time.

    A later batch may widen the type of a column: from nulls to anything, from whole numbers to decimals
    or floats. Files that were written before it are cast at the end.

    :raises SourceError: a column changes its type into one that does not hold what it held.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    schema: pa.Schema | None = None
    writer: pq.ParquetWriter | None = None
    rows = 0
    try:
        for batch in batches:
            wider = batch.schema if schema is None else _unified(schema, batch.schema, rows)
            if writer is None or wider != schema:
                if writer is not None:
                    writer.close()
                files.append(folder / f"part-{len(files):05d}.parquet")
                schema, writer = wider, pq.ParquetWriter(files[-1], wider, compression="zstd")
            writer.write_table(_cast(pa.Table.from_batches([batch]), wider))
            rows += batch.num_rows
    finally:
        if writer is not None:
            writer.close()
    for file in files[:-1]:
        _rewrite(file, schema)
    return files


def _array(name: str, values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    kinds = Counter(type(value) for value in values if value is not None)
    try:
        if not kinds:
            return pa.nulls(len(values))
        if kinds.keys() <= {int, float, Decimal} and float in kinds:
            return pa.array([None if value is None else float(value) for value in values], pa.float64())
        if all(issubclass(kind, datetime) for kind in kinds):
            return _times(name, values)
        if kinds.keys() <= {memoryview, bytearray, bytes}:
            return pa.array([None if value is None else bytes(value) for value in values], pa.binary())
        if kinds.keys() == {dict} or (len(kinds) == 1 and UUID in kinds):
            return pa.array([None if value is None else _text(value) for value in values], pa.string())
        if len(kinds) > 1 and not kinds.keys() <= {int, Decimal}:
            raise SourceError(_mixed(name, kinds, values))
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise SourceError(
            f"extract: column {name!r} ({found}) has no column type: {error}. Cure: cast it in the query"
        ) from error


def _times(name: str, values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    naive = {value.tzinfo is None for value in values if value is not None}
    if len(naive) > 1:
        raise SourceError(
            f"extract: column {name!r} mixes times with and without a time zone. Cure: cast it in the query "
            "to one of both; a time without zone is taken as UTC"
        )
    return pa.array(values, pa.timestamp("us", tz=None if naive == {True} else "UTC"))


def _text(value: Any) -> str:
    return str(value) if isinstance(value, UUID) else json_text(value, sort_keys=True, default=str)


def _mixed(name: str, kinds: Counter[type], values: Sequence[Any]) -> str:
    words = ", ".join(f"{count} {kind.__name__}" for kind, count in kinds.most_common(4))
    rare = kinds.most_common()[-1][0]
    shown = next(value for value in values if type(value) is rare)
    if {datetime, date} >= kinds.keys():
        words += " (a date is no time)"
    return f"extract: column {name!r} mixes types: {words}, such as {str(shown)[:60]!r}. Cure: cast it in the query"


def _unified(left: pa.Schema, right: pa.Schema, rows: int) -> pa.Schema:
    import pyarrow as pa

    fields = []
    for one, two in zip(left, right, strict=True):
        kind = _wider(one.type, two.type)
        if kind is None:
            raise SourceError(
                f"extract: column {one.name!r} is {one.type} in the first {rows} rows and {two.type} behind "
                "them. Cure: cast it in the query"
            )
        fields.append(pa.field(one.name, kind))
    return pa.schema(fields)


def _wider(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both; ``None`` when there is none."""
    from pyarrow import list_
    from pyarrow.types import is_list, is_null

    if one == two or is_null(two):
        return one
    if is_null(one):
        return two
    if is_list(one) and is_list(two):
        inner = _wider(one.value_type, two.value_type)
        return None if inner is None else list_(inner)
    return _wider_number(one, two)


def _wider_number(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    import pyarrow as pa

    is_ = pa.types
    kinds = (one, two)
    if not all(is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind) for kind in kinds):
        return None
    if any(is_.is_floating(kind) for kind in kinds):
        return pa.float64()
    if all(is_.is_integer(kind) for kind in kinds):
        return pa.int64()
    decimals = [kind if is_.is_decimal(kind) else pa.decimal128(19, 0) for kind in kinds]
    scale = max(kind.scale for kind in decimals)
    whole = max(kind.precision - kind.scale for kind in decimals)
    return pa.decimal128(whole + scale, scale) if whole + scale <= _DIGITS else pa.float64()


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    if table.schema.equals(schema):
        return table
    columns = []
    for field, column in zip(schema, table.columns, strict=True):
        # Decimals beyond 38 digits become floats, and those are rounded by their nature.
        safe = not (pa.types.is_decimal(column.type) and pa.types.is_floating(field.type))
        try:
            columns.append(column.cast(field.type, safe=safe))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SourceError(
                f"extract: column {field.name!r} changes from {column.type} to {field.type}, which cannot hold "
                f"all of its values: {error}. Cure: cast it in the query"
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)


def _rewrite(file: Path, schema: pa.Schema | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as source:
        if schema is None or source.schema_arrow.equals(schema):
            return
        again = file.with_suffix(".again")
        with pq.ParquetWriter(again, schema, compression="zstd") as writer:
            for batch in source.iter_batches():
                writer.write_table(_cast(pa.Table.from_batches([batch]), schema))
    again.replace(file)
