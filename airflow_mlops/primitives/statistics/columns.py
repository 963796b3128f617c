"""Columns of Parquet files, read by name and told apart by what can be said about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from airflow_mlops.exceptions import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

ColumnKind = Literal["integer", "float", "boolean", "text", "time", "other"]


def iterate_columns(
    paths: Sequence[Path | str], names: Sequence[str]
) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Read one column after the other, so that memory holds one at a time.

    :param paths: Parquet files of one split, all with the named columns.
    :param names: columns to read.
    :raises SourceError: no file, or a file without one of the columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not paths:
        raise SourceError(
            "No Parquet file to read columns from: expected at least one, got none. "
            "The dataset version has an empty split; provision it again."
        )
    files: list[pq.ParquetFile] = []
    try:
        files += [pq.ParquetFile(path) for path in paths]
        _check_columns(paths, [file.schema_arrow.names for file in files], names)
        for name in names:
            tables = [file.read(columns=[name]) for file in files]
            yield name, pa.concat_tables(tables, promote_options="permissive").column(name)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(paths, error) from error
    finally:
        for file in files:
            file.close()


def missing_from(paths: Sequence[Path | str], names: Sequence[str]) -> tuple[list[str], str]:
    """Names that one of the files lacks, and what to say of it.

    :raises SourceError: a file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        present = [pq.read_schema(path).names for path in paths]
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(paths, error) from error
    lacking = [name for name in names if any(name not in there for there in present)]
    try:
        _check_columns(paths, present, names)
    except SourceError as error:
        return lacking, str(error)
    return lacking, ""


def kind_of(type_: pa.DataType) -> ColumnKind:
    """What can be said about values of an Arrow type; dictionaries count as their values."""
    import pyarrow.types as pt

    if pt.is_dictionary(type_):
        return kind_of(type_.value_type)
    tests: list[tuple[ColumnKind, bool]] = [
        ("boolean", pt.is_boolean(type_)),
        ("integer", pt.is_integer(type_)),
        ("float", pt.is_floating(type_) or pt.is_decimal(type_)),
        ("text", pt.is_string(type_) or pt.is_large_string(type_) or pt.is_null(type_)),
        ("time", pt.is_temporal(type_)),
    ]
    return next((kind for kind, holds in tests if holds), "other")


def plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same values, dictionaries resolved and decimals as float64."""
    import pyarrow as pa
    import pyarrow.types as pt

    if pt.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pt.is_null(values.type):
        values = values.cast(pa.string())
    if pt.is_decimal(values.type):
        # By their text: Arrow's own cast makes 0.30000000000000004 of 0.3.
        values = values.cast(pa.string()).cast(pa.float64())
    return values


def _unreadable(paths: Sequence[Path | str], error: Exception) -> SourceError:
    names = ", ".join(Path(path).name for path in paths)
    return SourceError(f"{names}: expected readable Parquet files, got: {error}. Restore them from a backup.")


def _check_columns(paths: Sequence[Path | str], present: list[list[str]], wanted: Sequence[str]) -> None:
    for path, names in zip(paths, present, strict=True):
        missing = [name for name in wanted if name not in names]
        if missing:
            raise SourceError(
                f"{Path(path).name} lacks {_count(missing)}: {', '.join(missing)}. "
                f"It has: {', '.join(names)}. The model was trained with what is missing: "
                "bring it back into the source, or train a model without it."
            )


def _count(names: list[str]) -> str:
    return "1 column" if len(names) == 1 else f"{len(names)} columns"
