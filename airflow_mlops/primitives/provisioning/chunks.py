"""The files of a dataset version: the joined rows, checked and cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.primitives.provisioning.digest import logical_digest
from airflow_mlops.primitives.provisioning.examples import ROW
from airflow_mlops.primitives.provisioning.version import Chunk
from airflow_mlops.primitives.sql import identifier, literal, parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.provisioning.split import Piece
    from airflow_mlops.primitives.provisioning.version import Role

__all__ = ["merge_features", "read_types", "write_chunks"]

_BATCH = 1 << 16


def merge_features(
    connection: DuckDBPyConnection,
    examples: Path,
    joined: Path | None,
    columns: Mapping[str, Role],
    rows: int,
    destination: Path,
) -> None:
    """Put examples and features side by side in order of the row number, and count them.

    :param examples: numbered examples.
    :param joined: their features, with the same numbers, in any order.
    :param columns: role of each column of the result, in order.
    :param rows: number of examples.
    :raises FeatureStoreError: the join lost or repeated examples.
    """
    source = f"{parquet((str(examples),))} e"
    if joined is not None:
        features = parquet((str(joined),))
        found = connection.execute(f"SELECT count(*), count(DISTINCT {ROW}) FROM {features}").fetchone()
        if found != (rows, rows):
            count, distinct = found or (0, 0)
            raise FeatureStoreError(
                f"the feature store's join made {count} row(s) for {distinct} example(s) out of {rows}; "
                "expected every example once. Use the offline store "
                "airflow_mlops.hooks.feast_asof.AsofOfflineStore in feature_store.yaml"
            )
        source += f" JOIN {features} f ON e.{ROW} = f.{ROW}"
    names = [f"{'f' if role == 'feature' else 'e'}.{identifier(name)}" for name, role in columns.items()]
    connection.execute(
        f"COPY (SELECT e.{ROW}, {', '.join(names)} FROM {source} ORDER BY e.{ROW}) "
        f"TO {literal(str(destination))} (FORMAT parquet, COMPRESSION zstd)"
    )


def read_types(dataset: Path) -> dict[str, str]:
    """Arrow type of each column of a Parquet file, as text."""
    import pyarrow.parquet as pq

    return {field.name: str(field.type) for field in pq.read_schema(dataset)}


def write_chunks(
    dataset: Path,
    pieces: Sequence[Piece],
    timestamp: str,
    folder: Path,
    is_stored: Callable[[str], bool],
) -> tuple[tuple[Chunk, ...], Mapping[str, Path]]:
    """Cut rows that lie in order into Parquet files named by what they say.

    The same rows give the same bytes, as long as the version of pyarrow is the same.

    :param dataset: the rows in order.
    :param pieces: which rows make a chunk, ascending; rows of no piece are left out.
    :param timestamp: the column of the example's time.
    :param folder: where to write.
    :param is_stored: whether the chunk with this digest need not be written.
    :return: all chunks, and the file of each one that was written, by digest.
    """
    chunks: list[Chunk] = []
    files: dict[str, Path] = {}
    for piece, table in zip(pieces, _cut(dataset, pieces), strict=True):
        digest = logical_digest(table)
        times = table.column(timestamp)
        first, last = (times[at].as_py().isoformat() for at in (0, -1))
        chunks.append(Chunk(digest, piece.split, table.num_rows, first, last))
        if not is_stored(digest):
            files[digest] = folder / f"{digest}.parquet"
            _write(table, files[digest])
    return tuple(chunks), files


def _cut(dataset: Path, pieces: Sequence[Piece]) -> Iterator[pa.Table]:
    """The rows of each piece, with no more in memory than one piece and one batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(dataset) as file:
        names = [name for name in file.schema_arrow.names if name != ROW]
        batches = file.iter_batches(_BATCH, columns=names)
        batch, at = next(batches), 0
        for piece in pieces:
            parts: list[pa.RecordBatch] = []
            while at + batch.num_rows <= piece.first:
                batch, at = next(batches), at + batch.num_rows
            begin = piece.first
            while begin < piece.stop:
                part = batch.slice(begin - at, min(piece.stop, at + batch.num_rows) - begin)
                parts.append(part)
                begin += part.num_rows
                if begin < piece.stop:
                    batch, at = next(batches), at + batch.num_rows
            yield pa.Table.from_batches(parts).replace_schema_metadata(None)


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
