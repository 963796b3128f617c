"""What a container predicted, held against the examples it was given."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import ContractError
from airflow_mlops.primitives.sql import identifier, literal, parquet

if TYPE_CHECKING:
    import duckdb


def write_predictions(
    predictions: Path,
    examples: Sequence[Path],
    target: Path,
    *,
    application: str,
    window: str,
    keys: Sequence[str],
    timestamp: str,
    model_version: str,
    predicted_at: datetime,
) -> int:
    """Write the predictions with request id, time and model version; one row an example, no more, no fewer.

    :param predictions: the container's file: key columns and a finite ``prediction``.
    :param examples: Parquet files of the examples.
    :param target: file to write, ordered by time and keys.
    :returns: number of rows.
    :raises ContractError: when rows are missing, too many, doubled or not finite.
    """
    import duckdb

    names = ", ".join(identifier(key) for key in keys)
    identity = ", ".join(f"CAST({identifier(key)} AS VARCHAR)" for key in keys)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'; SET threads=2; SET enable_progress_bar=false")
        connection.sql(f"FROM {parquet([str(path) for path in examples])}").create_view("examples")
        try:
            connection.sql(f"FROM {parquet([str(predictions)])}").create_view("predicted")
            rows = _check(connection, names)
        except duckdb.Error as error:
            raise ContractError(
                f"output/predictions.parquet must hold the columns {', '.join(keys)} and prediction: {error}"
            ) from error
        connection.execute(
            f"""COPY (
                SELECT {names}, substr(sha256(json_array(?, ?, json_array({identity}))::VARCHAR), 1, 32) AS request_id,
                e.{identifier(timestamp)}, p.prediction::DOUBLE AS prediction, ?::TIMESTAMPTZ AS predicted_at,
                ? AS model_version
                FROM examples e JOIN predicted p USING ({names}) ORDER BY e.{identifier(timestamp)}, {names}
            ) TO {literal(str(target))} (FORMAT parquet, COMPRESSION zstd)""",
            [application, window, predicted_at.isoformat(), model_version],
        )
        return rows


def _check(connection: duckdb.DuckDBPyConnection, names: str) -> int:
    """Number of examples, each of which has its one prediction."""
    counted = "SELECT (SELECT count(*) FROM examples), (SELECT count(*) FROM predicted)"
    given, predicted = connection.execute(counted).fetchall()[0]
    found = f"{given} examples, {predicted} predictions"
    # A small file can claim any number of rows: they are counted by its footer, and too many are never read.
    good = given == predicted
    if good:
        distinct, matching, broken = connection.execute(
            f"""SELECT (SELECT count(*) FROM (SELECT DISTINCT {names} FROM predicted)),
            (SELECT count(*) FROM predicted SEMI JOIN examples USING ({names})),
            (SELECT count(*) FROM predicted WHERE prediction IS NULL OR NOT isfinite(prediction::DOUBLE))"""
        ).fetchall()[0]
        found += f", {distinct} with different keys, {matching} of known keys, {broken} null or not finite"
        good = predicted == distinct == matching and not broken
    if not good:
        raise ContractError(
            f"output/predictions.parquet does not answer the examples one to one: {found}. Cure: write one finite "
            "prediction for each row of the split predict, with its keys."
        )
    return int(given)
