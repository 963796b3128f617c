"""Predictions joined with the labels that came later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.database import connect, raised_outside
from airflow_mlops.exceptions import DataError, SourceError, SpecError
from airflow_mlops.primitives.sql.present import or_null_sql, present_sql
from airflow_mlops.primitives.sql.words import identifier, parquet
from airflow_mlops.primitives.statistics.coding import binary_sql

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
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
            if (outside := raised_outside(error)) is not None:
                raise outside from error
            raise SourceError(
                f"The examples cannot be joined with predictions by {', '.join(examples['keys'])}: {error}. "
                "Check provisioning.examples: its source, keys, timestamp and targets."
            ) from error


def _join(connection: duckdb.DuckDBPyConnection, examples: Mapping[str, Any]) -> LabelledPredictions:
    time = str(examples["timestamp"])
    known, target = str(examples.get("targets_known_at") or time), _target(examples)
    # Names of our own for all columns: a key may be called as any of them.
    keys = [f"k{number}" for number in range(len(examples["keys"]))]
    named = dict(zip(keys, examples["keys"], strict=True))
    types = {name: _types(connection, name) for name in ("examples", "answers")}
    given = _columns(types["examples"], {**named, "label": target})
    connection.execute(
        f"""CREATE TEMP TABLE given AS
        SELECT {given}, {_seconds(known)} AS known, {_seconds(time)} AS happened FROM examples"""
    )
    present = present_sql("label", _type(types["examples"], target))
    group = ", ".join((*keys, "happened"))
    # The value breaks a tie, so that every try takes the same.
    connection.execute(
        f"CREATE TEMP TABLE labels AS SELECT {group}, "
        "arg_max(struct_pack(label := label, known := known), struct_pack(a := coalesce(known, happened), b := label)) "
        f"AS newest, count(*) AS n FROM given WHERE {present} GROUP BY {group}"
    )
    answers = _columns(types["answers"], {**named, "prediction": "prediction"})
    connection.execute(
        f"CREATE TEMP VIEW predicted AS SELECT {answers}, {_seconds(time)} AS happened FROM answers"
    )
    rows = _one(connection, "SELECT count(*) FROM predicted")[0]
    newest, delay = _one(
        connection, "SELECT max(newest.known), quantile_cont(newest.known - happened, 0.99) FROM labels"
    )
    identity = ", ".join(f"CAST(p.{key} AS VARCHAR)" for key in keys)
    same = " AND ".join(f"p.{key} IS NOT DISTINCT FROM l.{key}" for key in keys)
    joined = connection.execute(
        "SELECT p.prediction, CAST(l.newest.label AS DOUBLE) AS label, l.n FROM predicted p JOIN labels l "
        f"ON {same} AND p.happened = l.happened "
        f"ORDER BY sha256(concat_ws('|', {identity})), {', '.join(f'p.{key}' for key in keys)}, p.happened"
    ).fetchnumpy()
    return LabelledPredictions(
        prediction=_array(joined["prediction"]),
        actual=_array(joined["label"]),
        rows=rows,
        newest_known=None if newest is None else datetime.fromtimestamp(newest, UTC),
        usual_delay=max(0.0, delay or 0.0),
        replaced=int(_array(joined["n"]).sum()) - len(joined["n"]),
    )


def _types(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    table = connection.table(relation)
    return {name.lower(): str(type_) for name, type_ in zip(table.columns, table.types, strict=True)}


def _type(types: Mapping[str, str], name: str) -> str:
    return types.get(name.lower(), "")


def _columns(types: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Columns by names of our own; NaN is no value."""
    return ", ".join(
        f"{or_null_sql(identifier(name), _type(types, name))} AS {own}" for own, name in names.items()
    )


def _seconds(time: str) -> str:
    return f"epoch(CAST({identifier(time)} AS TIMESTAMPTZ))"


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
