"""PostgreSQL's own types, as ADBC hands them over, as types that Parquet knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

__all__ = ["plain_batches"]


def plain_batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The reader's batches: ``numeric`` as decimals, ``uuid`` as text, ``json`` and enumerations as text.

    :raises SourceError: a column has a type that no file can hold.
    """
    import pyarrow as pa

    schema = reader.schema
    empty = True
    for batch in reader:
        empty = False
        yield _plain(schema, batch)
    if empty:
        yield _plain(schema, pa.RecordBatch.from_pylist([], schema=schema))


def _plain(schema: pa.Schema, batch: pa.RecordBatch) -> pa.RecordBatch:
    import pyarrow as pa

    arrays = [_column(field, array) for field, array in zip(schema, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=list(schema.names))


def _column(field: pa.Field, array: Any) -> pa.Array:
    import pyarrow as pa

    kind, name = field.type, (field.metadata or {}).get(b"ADBC:postgresql:typname", b"").decode()
    if isinstance(kind, pa.BaseExtensionType):
        name = name or getattr(kind, "type_name", "") or kind.extension_name
        array, kind = array.storage, kind.storage_type
    if name in ("uuid", "arrow.uuid") and not pa.types.is_string(kind):
        return pa.array([None if v is None else _uuid(v) for v in array.to_pylist()], pa.string())
    if name == "numeric" and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return _decimals(field.name, array)
    if pa.types.is_timestamp(kind):
        return array.cast(pa.timestamp("us", tz="UTC" if kind.tz else None))
    if pa.types.is_interval(kind) or pa.types.is_duration(kind) or pa.types.is_struct(kind):
        raise SourceError(
            f"extract: column {field.name!r} is {name or kind}, which no feature can be. Cure: cast it in the "
            "query, an interval for example by extract(epoch from …)"
        )
    return array


def _decimals(name: str, array: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    array = array.cast(pa.string())
    try:
        scale = _longest(pc.replace_substring_regex(array, r"^[^.]*\.?", ""))
        whole = _longest(pc.replace_substring_regex(array, r"^-|\..*$", ""))
        return array.cast(pa.decimal128(max(1, whole + scale), scale))
    except (pa.ArrowInvalid, ValueError) as error:
        raise SourceError(
            f"extract: column {name!r} is numeric with values that no decimal of 38 digits can be (NaN, "
            f"infinity, or longer ones): {error}. Cure: cast it in the query to double precision"
        ) from error


def _longest(texts: Iterable[Any]) -> int:
    import pyarrow.compute as pc

    return int(pc.max(pc.utf8_length(texts)).as_py() or 0)


def _uuid(value: bytes) -> str:
    from uuid import UUID

    return str(UUID(bytes=bytes(value)))
