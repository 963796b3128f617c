"""The files of a feature table: rows that lie in order, cut by the calendar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.primitives.datasets.digest import logical_digest
from airflow_mlops.primitives.features.publication import Rows, iso
from airflow_mlops.primitives.features.schema import arrow_type
from airflow_mlops.primitives.features.snapshot import Part, TableRule
from airflow_mlops.primitives.sql.words import identifier, literal, parquet

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

__all__ = ["write_parts"]

#: Rows of one file at most: that many are in memory at a time.
FILE_ROWS = 1 << 21
_BATCH = 1 << 16


def write_parts(
    connection: DuckDBPyConnection, rule: TableRule, rows: Rows, folder: Path
) -> Iterator[tuple[Part, Path]]:
    """Cut rows that lie in order into one Parquet file a partition, named by what they say.

    The same rows give the same names, and the same bytes as long as the version of pyarrow is the same.

    :return: each file, when it is written.
    """
    import pyarrow as pa

    time = identifier(rule.timestamp)
    pieces = connection.execute(
        f"SELECT strftime({time}, {literal(rule.label)}), count(*) FROM {parquet((str(rows.file),))} "
        "GROUP BY 1 ORDER BY min(" + time + ")"
    ).fetchall()
    sizes = [
        (label, min(FILE_ROWS, count - at)) for label, count in pieces for at in range(0, count, FILE_ROWS)
    ]
    for (label, _), table in zip(sizes, _cut(rows, [size for _, size in sizes]), strict=True):
        # As numbers: pyarrow takes pandas to make a time of one.
        times = table.column(rule.timestamp).cast(pa.int64())
        first, last = (iso(times[at].as_py()) for at in (0, -1))
        name = f"{rule.folder_column}={label}/{logical_digest(table)}.parquet"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(table, path)
        yield Part(name, table.num_rows, first, last, len(rows.columns)), path


def _cut(rows: Rows, sizes: Sequence[int]) -> Iterator[pa.Table]:
    """The rows in tables of the given sizes, with no more in memory than one of them and one batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(name, arrow_type(word)) for name, word in rows.columns.items()])
    with pq.ParquetFile(rows.file) as file:
        batches = file.iter_batches(_BATCH, columns=list(rows.columns))
        rest: pa.RecordBatch | None = None
        for size in sizes:
            parts: list[pa.RecordBatch] = []
            missing = size
            while missing:
                batch = rest if rest is not None and rest.num_rows else next(batches)
                parts.append(batch.slice(0, missing))
                rest = batch.slice(parts[-1].num_rows)
                missing -= parts[-1].num_rows
            yield pa.Table.from_batches(parts).select(list(rows.columns)).cast(schema)


def _write(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    # Everything that could change the bytes is said here, not left to a default.
    pq.write_table(
        table.combine_chunks(),
        path,
        version="2.6",
        compression="zstd",
        compression_level=3,
        row_group_size=1 << 17,
        data_page_version="1.0",
        use_dictionary=True,
        write_statistics=True,
        store_schema=True,
    )
