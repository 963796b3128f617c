"""Predictions joined with the labels that came later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.database import connect
from airflow_mlops.exceptions import DataError, SourceError, SpecError
from airflow_mlops.primitives.coding import binary_sql
from airflow_mlops.primitives.present import present_sql, same_sql
from airflow_mlops.primitives.sql import identifier, parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import duckdb
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class LabelledPredictions:
    """The predictions of a window that have a label, shuffled: in the order of a published hash of their keys.

    Losses of neighbours in time resemble each other, and a test that looks after every label would take one bad day
    for thousands of witnesses. Shuffled, the window answers as a whole; the same keys always give the same order.

    :param prediction: what was predicted.
    :param actual: what came true.
    :param rows: predictions of the window, labelled or not.
    :param newest_known: when the newest label of the whole source was known; ``None`` without labels.
    :param usual_delay: seconds within which 99 % of the labels are known after their example.
    :param replaced: older labels of a key and time that a newer one took the place of.
    """

    prediction: npt.NDArray[np.float64]
    actual: npt.NDArray[np.float64]
    rows: int
    newest_known: datetime | None
    usual_delay: float
    replaced: int = 0


def labels_are_complete(found: LabelledPredictions, window_end: datetime, min_labelled: float) -> bool:
    """Whether waiting longer would bring nothing of weight.

    Either enough rows have a label, or the source has moved on: it knows labels from later than the
    window's end plus the usual delay. So a label that never comes (a cancelled flight) blocks nothing.

    :param found: the join.
    :param window_end: time of the window's last example.
    :param min_labelled: share of rows that is enough.
    """
    if len(found.actual) >= min_labelled * found.rows:
        return True
    if found.newest_known is None:
        return False
    return (found.newest_known - window_end).total_seconds() > found.usual_delay


def join_labels(
    predictions: Path, examples: Mapping[str, Any], open_source: Callable[[duckdb.DuckDBPyConnection], object]
) -> LabelledPredictions:
    """Join predictions with the labels of their examples by key and time: a customer may be asked about every month.

    Of several labels for one key and time the one known last counts; the others are counted as replaced.

    :param predictions: Parquet file with the key columns, the example's time and ``prediction``.
    :param examples: the application's examples: ``keys``, ``timestamp``, ``targets``, optionally ``targets_known_at``.
    :param open_source: gives a connection the view ``examples``, as provisioning reads them.
    :raises SourceError: the examples cannot be read.
    :raises DataError: a label is no number.
    """
    import duckdb

    _target(examples)  # before any file is read
    with connect(threads=2) as connection:
        try:
            connection.execute(f"CREATE TEMP TABLE answers AS FROM {parquet([str(predictions)])}")
            open_source(connection)
            return _join(connection, examples)
        except duckdb.ConversionException as error:
            raise DataError(
                f"Labels in column {_target(examples)}: expected numbers or booleans, got something else ({error}). "
                f"Let the examples' SQL turn the target into a number, such as {binary_sql(_target(examples), ['no', 'yes'])}."
            ) from error
        except duckdb.Error as error:
            raise SourceError(
                f"The examples cannot be joined with predictions by {', '.join(examples['keys'])}: {error}. "
                "Check provisioning.examples: its source, keys, timestamp and targets."
            ) from error


def _join(connection: duckdb.DuckDBPyConnection, examples: Mapping[str, Any]) -> LabelledPredictions:
    names = [identifier(key) for key in examples["keys"]]
    keys = ", ".join(names)
    time = identifier(examples["timestamp"])
    known = identifier(examples.get("targets_known_at") or examples["timestamp"])
    target = identifier(_target(examples))
    connection.execute(
        f"""CREATE TEMP TABLE given AS
        SELECT {keys}, {target} AS label, epoch(CAST({known} AS TIMESTAMPTZ)) AS known,
            epoch(CAST({time} AS TIMESTAMPTZ)) AS happened
        FROM examples"""
    )
    type_ = str(connection.table("given").types[len(names)])
    # The value breaks a tie, so that every try takes the same.
    connection.execute(
        f"CREATE TEMP TABLE labels AS SELECT {keys}, happened, "
        "arg_max(struct_pack(label := label, known := known), struct_pack(a := coalesce(known, happened), b := label)) "
        f"AS newest, count(*) AS n FROM given WHERE {present_sql('label', type_)} GROUP BY {keys}, happened"
    )
    connection.execute(
        f"CREATE TEMP VIEW predicted AS SELECT *, epoch(CAST({time} AS TIMESTAMPTZ)) AS happened FROM answers"
    )
    rows = _one(connection, "SELECT count(*) FROM predicted")[0]
    newest, delay = _one(
        connection, "SELECT max(newest.known), quantile_cont(newest.known - happened, 0.99) FROM labels"
    )
    identity = ", ".join(f"CAST(p.{name} AS VARCHAR)" for name in names)
    joined = connection.execute(
        f"SELECT prediction, CAST(newest.label AS DOUBLE) AS label, n FROM predicted p JOIN labels l ON {_same(connection, names)} "
        f"ORDER BY sha256(concat_ws('|', {identity})), {', '.join(f'p.{name}' for name in names)}, p.happened"
    ).fetchnumpy()
    return LabelledPredictions(
        prediction=_array(joined["prediction"]),
        actual=_array(joined["label"]),
        rows=rows,
        newest_known=None if newest is None else datetime.fromtimestamp(newest, UTC),
        usual_delay=max(0.0, delay or 0.0),
        replaced=int(_array(joined["n"]).sum()) - len(joined["n"]),
    )


def _same(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> str:
    """A condition to join predictions with labels by keys and time."""
    types = [
        {identifier(name): str(type_) for name, type_ in zip(table.columns, table.types, strict=True)}
        for table in (connection.table("predicted"), connection.table("labels"))
    ]
    same = [
        same_sql(f"p.{name}", types[0].get(name, ""), f"l.{name}", types[1].get(name, "")) for name in names
    ]
    return " AND ".join([*same, "p.happened = l.happened"])


def _target(examples: Mapping[str, Any]) -> str:
    targets = examples.get("targets") or []
    if len(targets) != 1:
        raise SpecError(
            f"Actual performance needs exactly one column in provisioning.examples.targets, got {len(targets)}: "
            f"{', '.join(targets) or 'none'}."
        )
    return str(targets[0])


def _array(values: Any) -> npt.NDArray[np.float64]:
    import numpy as np

    return np.asarray(values, dtype=np.float64)


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    if row is None:
        raise SourceError(f"DuckDB gave no row for: {query}")
    return row
