"""A container's predictions held against the rows that it was given: one answer a row, no more, no fewer.

Rows are matched by keys and time, and where a key has no value on either side, that is a match: a pipeline that keeps
such examples gets answers for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import ContractError
from airflow_mlops.primitives.sql.present import or_null_sql, present_sql, same_sql
from airflow_mlops.primitives.sql.words import identifier, parquet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import duckdb

__all__ = ["Answers", "match_answers"]


@dataclass(frozen=True)
class Answers:
    """Predictions that answer the rows one to one.

    :param joined: what stands behind FROM: ``examples`` as ``e``, ``predicted`` as ``p``.
    :param rows: how many there are.
    :param types: DuckDB type of each column of the predictions.
    """

    joined: str
    rows: int
    types: Mapping[str, str]


def match_answers(
    connection: duckdb.DuckDBPyConnection,
    predictions: Path,
    *,
    keys: Sequence[str],
    timestamp: str | None,
    split: str,
    finite: bool = False,
) -> Answers:
    """Match predictions with the rows of the view ``examples``; they become the view ``predicted``.

    :param predictions: the container's file: keys, ``prediction``, and the time where keys alone name several rows.
    :param keys: columns that name a row, with ``timestamp``.
    :param split: name of the split, for messages.
    :param finite: whether a prediction must be a finite number.
    :raises ContractError: the file does not answer the rows one to one.
    """
    import duckdb

    try:
        connection.sql(f"FROM {parquet([str(predictions)])}").create_view("predicted")
        types, known = _types(connection, "predicted"), _types(connection, "examples")
        there = {name.lower() for name in types}
        by = [*keys, *([timestamp] if timestamp and timestamp.lower() in there else [])]
        same = _same(by, timestamp, known, types)
        names = _distinct(by, types), _distinct(by, known)
        rows = _check(connection, same, names, _type(types, "prediction"), split, timestamp, finite=finite)
    except duckdb.Error as error:
        raise ContractError(
            f"output/predictions.parquet must hold the columns {', '.join(keys)} and prediction: {error}. "
            f"Cure: write them for each row of the split {split}."
        ) from error
    return Answers(f"examples e JOIN predicted p ON {same}", rows, types)


def _types(connection: duckdb.DuckDBPyConnection, view: str) -> dict[str, str]:
    table = connection.table(view)
    return dict(zip(table.columns, map(str, table.types), strict=True))


def _same(
    by: Sequence[str], timestamp: str | None, known: Mapping[str, str], types: Mapping[str, str]
) -> str:
    conditions = []
    for name in by:
        one, other = f"e.{identifier(name)}", f"p.{identifier(name)}"
        if name == timestamp:
            conditions.append(f"{one}::TIMESTAMPTZ IS NOT DISTINCT FROM {other}::TIMESTAMPTZ")
        else:
            conditions.append(same_sql(one, _type(known, name), other, _type(types, name)))
    return " AND ".join(conditions)


def _type(types: Mapping[str, str], name: str) -> str:
    return next((type_ for known, type_ in types.items() if known.lower() == name.lower()), "")


def _distinct(by: Sequence[str], types: Mapping[str, str]) -> str:
    return ", ".join(or_null_sql(identifier(name), _type(types, name)) for name in by)


def _check(
    connection: duckdb.DuckDBPyConnection,
    same: str,
    names: tuple[str, str],
    type_: str,
    split: str,
    timestamp: str | None,
    *,
    finite: bool,
) -> int:
    """Number of rows, each of which has its one prediction.

    A small file can claim any number of rows: they are counted by its footer, and too many are never read.
    """
    counted = "SELECT (SELECT count(*) FROM examples), (SELECT count(*) FROM predicted)"
    given, predicted = connection.execute(counted).fetchall()[0]
    found, cure = f"{given} rows, {predicted} predictions", "write one prediction for each row, with its keys"
    good = given == predicted
    if good:
        usable = "isfinite(prediction::DOUBLE)" if finite else present_sql("prediction", type_)
        distinct, matching, known, missing = connection.execute(
            f"""SELECT (SELECT count(*) FROM (SELECT DISTINCT {names[0]} FROM predicted)),
            (SELECT count(*) FROM predicted p SEMI JOIN examples e ON {same}),
            (SELECT count(*) FROM (SELECT DISTINCT {names[1]} FROM examples)),
            (SELECT count(*) FROM predicted WHERE ({usable}) IS NOT TRUE)"""
        ).fetchall()[0]
        if known < given and timestamp:
            cure = f"write the column {timestamp} beside the keys, which name several rows each"
        found += f", {distinct} with different keys, {matching} of known keys, {missing} "
        found += "null or not finite" if finite else "null or NaN"
        good = predicted == distinct == matching and not missing
    if not good:
        raise ContractError(
            f"output/predictions.parquet does not answer the split {split} one to one: {found}. Cure: {cure}."
        )
    return int(given)
