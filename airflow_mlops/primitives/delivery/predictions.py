"""What a container predicted, held against the examples it was given."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from airflow_mlops.database import connect
from airflow_mlops.primitives.container_output.answers import match_answers
from airflow_mlops.primitives.container_output.parquet_cells import judge_cells
from airflow_mlops.primitives.sql.words import identifier, literal, parquet


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

    :param predictions: the container's file: key columns, a finite ``prediction``, and the time where keys alone name
        several examples.
    :param examples: Parquet files of the examples.
    :param target: file to write, ordered by time and keys.
    :returns: number of rows.
    :raises ContractError: when rows are missing, too many, doubled or not finite.
    """
    names = ", ".join(f"e.{identifier(key)}" for key in keys)
    time = f"e.{identifier(timestamp)}"
    identity = ", ".join(f"CAST(e.{identifier(key)} AS VARCHAR)" for key in keys)
    judge_cells([predictions], "output/predictions.parquet")
    with connect(threads=2) as connection:
        connection.sql(f"FROM {parquet([str(path) for path in examples])}").create_view("examples")
        found = match_answers(
            connection, predictions, keys=keys, timestamp=timestamp, split="predict", finite=True
        )
        # With the time in it: the same customer may be asked about twice in a window.
        request = f"json_array(?, ?, json_array({identity}), epoch_us({time}::TIMESTAMPTZ))"
        connection.execute(
            f"""COPY (
                SELECT {names}, substr(sha256({request}::VARCHAR), 1, 32) AS request_id,
                {time}, p.prediction::DOUBLE AS prediction, ?::TIMESTAMPTZ AS predicted_at,
                ? AS model_version
                FROM {found.joined} ORDER BY {time}, {names}
            ) TO {literal(str(target))} (FORMAT parquet, COMPRESSION zstd)""",
            [application, window, predicted_at.isoformat(), model_version],
        )
        return found.rows
