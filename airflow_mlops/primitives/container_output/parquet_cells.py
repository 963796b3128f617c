"""How much a Parquet file of a container holds in its cells: a dictionary makes a long text a billion of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops.database import connect
from airflow_mlops.exceptions import ContractError
from airflow_mlops.primitives.sql.words import identifier, parquet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["check_cells", "judge_cells"]

#: Bytes of one cell, and of a column altogether.
CELL_LIMIT, COLUMN_LIMIT = 16 * 1024**2, 32 * 1024**3
#: Seconds, and bytes of address space, for all files.
SECONDS, MEMORY = 300.0, 6 * 1024**3


def judge_cells(files: Sequence[Path], name: str) -> int:
    """As :func:`check_cells`, in a child with limits; the number of rows."""
    from airflow_mlops.primitives.container_output.judging import judge

    asked = [str(file) for file in files]
    return int(
        judge(f"{__name__}:check_cells", asked, name, what=name, seconds=SECONDS, memory=MEMORY)["rows"]
    )


def check_cells(
    files: Sequence[str], name: str, cell: int = CELL_LIMIT, column: int = COLUMN_LIMIT
) -> dict[str, int]:
    """Refuse texts, bytes and lists that are longer than anybody means, one by one or together.

    For :func:`airflow_mlops.primitives.container_output.judging.judge`.

    :param name: of the file, for messages.
    :return: number of ``rows``.
    :raises ContractError: it is no Parquet file, or has such a column.
    """
    import duckdb

    with connect(threads=1, memory="1GB", files=files) as connection:
        try:
            relation = connection.sql(f"FROM {parquet(list(files))}")
            relation.create_view("judged")
            measured = {}
            for column_name, kind in zip(relation.columns, map(str, relation.types), strict=True):
                if length := _length(identifier(column_name), kind):
                    measured[column_name] = length
            found = connection.execute(
                f"SELECT count(*), {', '.join(f'max({one}), sum({one})' for one in measured.values()) or 'NULL'} FROM judged"
            ).fetchall()[0]
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise ContractError(
                f"{name} cannot be read as Parquet: {str(error)[:500]}. Cure: write it as one whole Parquet file."
            ) from error
    for number, known in enumerate(measured):
        longest, total = int(found[1 + 2 * number] or 0), int(found[2 + 2 * number] or 0)
        if longest > cell or total > column:
            raise ContractError(
                f"{name}: column {known} has a value of {longest} bytes, {total} in all; at most {cell} and {column} are "
                "read. Cure: write shorter values."
            )
    return {"rows": int(found[0])}


def _length(name: str, kind: str) -> str:
    if kind in ("VARCHAR", "JSON"):
        return f"strlen({name})"
    if kind == "BLOB":
        return f"octet_length({name})"
    if kind.endswith("[]"):
        return f"8 * len({name})"
    return f"strlen({name}::VARCHAR)" if kind.startswith(("STRUCT", "MAP")) else ""
