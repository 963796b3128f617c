"""Profiles in the format of stock whylogs. The only module that imports whylogs.

Three things are done here so that nobody else needs to know them:

* whylogs 1.6 uses ``numpy.unicode_``, which numpy 2 removed: the name is given back before the import.
* whylogs reports a hash of the host name unless ``WHYLOGS_NO_ANALYTICS`` is set: it is set.
* ``why.log`` looks at every value in Python (11 CPU-seconds for 1M rows of 10 columns); here whole Arrow columns
  are handed to the same metrics and sketches, and the file is a stock ``DatasetProfileView``.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import DataError
from airflow_mlops.primitives.statistics.columns import iterate_columns, kind_of, plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    import pyarrow as pa

_MAGIC = b"WHY1"


def profile_parquet(paths: Sequence[Path | str], columns: Sequence[str], timestamp: datetime) -> bytes:
    """Profile columns of Parquet files: counts, types, distribution, cardinality, frequent items.

    :param paths: Parquet files, read column by column.
    :param columns: the columns to profile.
    :param timestamp: what the data belongs to (end of the window); naive means UTC.
    :return: the bytes of a stock whylogs profile (``DatasetProfileView.deserialize`` reads them).
    :raises SourceError: a file lacks one of the columns.
    """
    core = _whylogs()
    views = {name: _profile_column(name, values) for name, values in iterate_columns(paths, columns)}
    moment = timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)
    view = core.DatasetProfileView(
        columns=views, dataset_timestamp=moment, creation_timestamp=datetime.now(UTC)
    )
    return bytes(view.serialize())


def read_profile(data: bytes) -> dict[str, Any]:
    """Read a profile that this package wrote.

    Never call it with bytes from elsewhere: damaged sketches can crash the process.

    :param data: what :func:`profile_parquet` returned.
    :return: ``{"timestamp": ISO time, "columns": {name: {"counts/n": ..., "distribution/mean": ...}}}``.
    :raises DataError: the bytes are no whylogs profile.
    """
    if not data.startswith(_MAGIC):
        raise DataError(f"Not a whylogs profile: expected the first bytes {_MAGIC!r}, got {data[:4]!r}.")
    view = _whylogs().DatasetProfileView.deserialize(data)
    return {
        "timestamp": view.dataset_timestamp.isoformat(),
        "columns": {
            name: {key: _jsonable(value) for key, value in column.to_summary_dict().items()}
            for name, column in view.get_columns().items()
        },
    }


@cache
def _whylogs() -> ModuleType:
    import numpy as np

    os.environ.setdefault("WHYLOGS_NO_ANALYTICS", "true")
    if not hasattr(np, "unicode_"):
        np.unicode_ = np.str_  # type: ignore[attr-defined]  # noqa: NPY201 - the point of it
    logging.getLogger("whylogs").setLevel(logging.ERROR)
    import whylogs.core

    return whylogs.core  # type: ignore[no-any-return]


def _profile_column(name: str, values: pa.ChunkedArray) -> Any:
    import numpy as np
    from whylogs.core.schema import ColumnSchema
    from whylogs.core.view.column_profile_view import ColumnProfileView

    values = plain(values)
    prepared, python_type = _prepare(values)
    metrics = ColumnSchema(dtype=python_type).get_metrics(name)
    with np.errstate(invalid="ignore"):  # the variance of a column with an infinite value
        for metric in metrics.values():
            metric.columnar_update(prepared)
    return ColumnProfileView(metrics=metrics, success_count=len(values))


def _prepare(values: pa.ChunkedArray) -> tuple[Any, type]:
    """Put a column into the shape that whylogs' metrics take, and say as which type it counts."""
    import numpy as np
    import pyarrow.compute as pc
    from whylogs.core.preprocessing import PreprocessedColumn

    prepared = PreprocessedColumn()
    prepared.len = len(values)
    prepared.null_count = values.null_count
    present = values.drop_null()
    kind = kind_of(values.type)
    if kind == "integer":
        prepared.numpy.ints = present.to_numpy().astype(np.int64)
        return prepared, int
    if kind == "float":
        floats = present.to_numpy().astype(np.float64)
        nan = np.isnan(floats)
        prepared.nan_count = int(nan.sum())
        prepared.null_count += prepared.nan_count  # as whylogs counts them
        prepared.inf_count = int(np.isinf(floats).sum())
        prepared.numpy.floats = floats[~nan]
        return prepared, float
    if kind == "boolean":
        prepared.bool_count = len(present)
        prepared.bool_count_where_true = pc.sum(present).as_py() or 0
        return prepared, bool
    if kind == "text":
        prepared.list.strings = present.to_pylist()
        return prepared, str
    prepared.list.objs = [None] * len(present)  # whylogs only counts them
    return prepared, object


def _jsonable(value: Any) -> Any:
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None  # what whylogs says of an empty sketch; JSON has no word for it
    return value
