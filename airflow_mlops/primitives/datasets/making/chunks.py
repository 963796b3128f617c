"""The files of a dataset version: the joined and divided rows, cut in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any, Self

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.primitives.datasets.digest import LogicalDigest
from airflow_mlops.primitives.datasets.examples import ROW
from airflow_mlops.primitives.datasets.manifest import Chunk
from airflow_mlops.primitives.datasets.splits.rule import SPLITS
from airflow_mlops.primitives.sql.words import identifier

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.datasets.manifest import Role
    from airflow_mlops.primitives.datasets.splits.assign import Assignment

__all__ = ["FOLD", "SPLIT", "Rows", "check_join", "divided", "write_chunks"]

SPLIT = "__split"
"""Name of the column that says the split of a row; null for a row that is left out."""

FOLD = "__fold"
"""Name of the column that says the fold of a row."""

PIECE = "__piece"
"""Name of the column that says the file of a row: see :func:`divided`."""

ROW_GROUP = 1 << 17
BATCH = 1 << 17
HELD_BYTES = 256 * 1024**2
_LANES = 2
_WAITING = 8
_FOLDS = 1 << 8


@dataclass(frozen=True)
class Rows:
    """Examples and their features, as SQL that stands behind FROM.

    :param examples: rows numbered by time and keys in the column ``__row``.
    :param features: their features with the same numbers, if they are not among the examples' columns.
    """

    examples: str
    features: str | None = None

    @property
    def source(self) -> str:
        """Both side by side, as ``e`` and ``f``."""
        features = f" JOIN {self.features} f ON e.{ROW} = f.{ROW}" if self.features else ""
        return f"{self.examples} e{features}"


def check_join(connection: DuckDBPyConnection, features: str, rows: int) -> None:
    """Make sure that a join gave every example once.

    :param features: what stands behind FROM.
    :param rows: number of examples.
    :raises FeatureStoreError: the join lost or repeated examples.
    """
    found = connection.execute(f"SELECT count(*), count(DISTINCT {ROW}) FROM {features}").fetchone()
    if found != (rows, rows):
        count, distinct = found or (0, 0)
        raise FeatureStoreError(
            f"the feature store's join made {count} row(s) for {distinct} example(s) out of {rows}; "
            "expected every example once. Use the offline store "
            "airflow_mlops.AsofOfflineStore in feature_store.yaml"
        )


def divided(rows: Rows, columns: Mapping[str, Role], timestamp: str, assignment: Assignment) -> str:
    """Query of all rows with their number, split, fold and file.

    The file of a row is the one of its split, fold and calendar month (UTC), so that versions share the
    months that did not change. Rows that are left out have none.

    :param columns: role of each column of the result, in order.
    """
    far = rows.features is not None
    names = [
        f"{'f' if far and role == 'feature' else 'e'}.{identifier(name)}" for name, role in columns.items()
    ]
    time = f"e.{identifier(timestamp)}::TIMESTAMPTZ"
    month = f"(year({time}) * 12 + month({time}))"
    piece = f"({month} * {len(SPLITS)} + {assignment.split}) * {_FOLDS} + coalesce({assignment.fold}, -1) + 1"
    return (
        f"SELECT e.{ROW}, {', '.join(names)}, {assignment.named} AS {SPLIT}, ({assignment.fold})::INTEGER AS {FOLD}, "
        f"(({piece}) * {_FOLDS} + {assignment.segment})::BIGINT AS {PIECE} FROM {rows.source} {assignment.join}"
    )


def write_chunks(
    batches: Iterator[pa.RecordBatch],
    assignment: Assignment,
    timestamp: str,
    folder: Path,
    is_stored: Callable[[str], bool],
) -> tuple[tuple[Chunk, ...], Mapping[str, Path]]:
    """Cut rows into Parquet files named by what they say, in one pass.

    The same rows give the same bytes, as long as the version of pyarrow is the same. A file is held back
    until its digest says that it is new, as long as all of them fit into 256 MiB.

    :param batches: rows of :func:`divided` in order of their number.
    :param timestamp: the column of the example's time.
    :param folder: where to write.
    :param is_stored: whether the chunk with this digest need not be written.
    :return: all chunks in the order of splits, or of time where splits follow each other; and the file of each one
        that was written, by digest.
    """
    with _Lanes() as lanes:
        pieces: dict[int, _Piece] = {}
        ended: list[tuple[_Piece, Future[tuple[Chunk, Path | None]]]] = []
        for batch in batches:
            codes = batch.column(PIECE)
            for code, part in _parts(batch, codes):
                if code not in pieces:
                    pieces[code] = _Piece(code, len(ended) + len(pieces), timestamp, folder, is_stored, lanes)
                pieces[code].take(part)
            over = [pieces.pop(code) for code in _over(pieces, codes)]
            ended += [(piece, piece.end()) for piece in over]
        ended += [(piece, piece.end()) for piece in pieces.values()]
        done = [(piece, *future.result()) for piece, future in ended]
    names = {assignment.name: 0} if assignment.name else {name: n for n, name in enumerate(SPLITS)}
    named = {n: name for name, n in names.items()}
    done.sort(key=lambda one: one[0].number if assignment.in_order else one[0].order)
    chunks = tuple(
        Chunk(chunk.digest, str(named[piece.split]), chunk.rows, chunk.start, chunk.end, piece.fold)
        for piece, chunk, _ in done
    )
    return chunks, {chunk.digest: path for _, chunk, path in done if path is not None}


class _Lanes:
    """Threads that work on pieces; what is put on one lane is done in order."""

    def __init__(self) -> None:
        self._pools = [ThreadPoolExecutor(1) for _ in range(_LANES)]
        self._room = BoundedSemaphore(_WAITING)
        self._lock = Lock()
        self.held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def put(self, lane: int, work: Callable[..., Any], *given: Any) -> Future[Any]:
        """Do something on a lane, as soon as there is room in front of it."""
        self._room.acquire()
        future = self._pools[lane % _LANES].submit(work, *given)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def hold(self, size: int) -> bool:
        """Whether that many bytes more may be held."""
        with self._lock:
            fits = self.held + size <= HELD_BYTES
            self.held += size if fits else 0
        return fits

    def let_go(self, size: int) -> None:
        """Hold that many bytes less."""
        with self._lock:
            self.held -= size


class _Piece:
    """The rows of one file. Its parts arrive in order; digest and writing are done on one lane."""

    def __init__(
        self,
        code: int,
        number: int,
        timestamp: str,
        folder: Path,
        is_stored: Callable[[str], bool],
        lanes: _Lanes,
    ) -> None:
        rest, self.segment = divmod(code, _FOLDS)
        rest, fold = divmod(rest, _FOLDS)
        self.month, self.split = divmod(rest, len(SPLITS))
        self.fold = fold - 1 if fold else None
        self.number, self._timestamp = number, timestamp
        self._path, self._is_stored, self._lanes = folder / f"chunk-{number}.parquet", is_stored, lanes
        self._parts: list[pa.RecordBatch] = []
        self._waiting = 0
        self._digest = LogicalDigest()
        self._bounds: list[Any] = []
        self._held: list[pa.Table] = []
        self._bytes = 0
        self._writer: Any = None
        self._works: list[Future[None]] = []

    @property
    def order(self) -> tuple[Any, ...]:
        """Its place where splits do not follow each other in time."""
        return self.split, self.fold is None, self.fold or 0, self.month, self.segment

    def take(self, part: pa.RecordBatch) -> None:
        """Take the next rows."""
        at = 0
        while at < part.num_rows:
            some = part.slice(at, ROW_GROUP - self._waiting)
            self._parts.append(some)
            at, self._waiting = at + some.num_rows, self._waiting + some.num_rows
            if self._waiting == ROW_GROUP:
                self._pass_on()

    def end(self) -> Future[tuple[Chunk, Path | None]]:
        """No more rows will come: the chunk, and its file if it is new."""
        if self._parts:
            self._pass_on()
        return self._lanes.put(self.number, self._finish)

    def _pass_on(self) -> None:
        parts, self._parts, self._waiting = self._parts, [], 0
        for done in [work for work in self._works if work.done()]:
            done.result()
            self._works.remove(done)
        self._works.append(self._lanes.put(self.number, self._work, parts))

    def _work(self, parts: list[pa.RecordBatch]) -> None:
        import pyarrow as pa

        table = pa.Table.from_batches(parts).replace_schema_metadata(None).combine_chunks()
        times = table.column(self._timestamp)
        self._bounds = [*self._bounds[:1], times[0].as_py(), times[-1].as_py()]
        self._digest.update(table)
        size = table.nbytes
        if self._writer is None and self._lanes.hold(size):
            self._held.append(table)
            self._bytes += size
            return
        self._write([*self._held, table])
        self._forget()

    def _finish(self) -> tuple[Chunk, Path | None]:
        for work in self._works:
            work.result()
        name = self._digest.hexdigest()
        first, last = (self._bounds[at].isoformat() for at in (0, -1))
        chunk = Chunk(name, "", self._digest.rows, first, last)
        stored = self._is_stored(name)
        if not stored:
            self._write(self._held)
        self._forget()
        if self._writer is not None:
            self._writer.close()
        if stored:
            self._path.unlink(missing_ok=True)
            return chunk, None
        return chunk, self._path.rename(self._path.with_name(f"{name}.parquet"))

    def _forget(self) -> None:
        self._lanes.let_go(self._bytes)
        self._held, self._bytes = [], 0

    def _write(self, tables: list[pa.Table]) -> None:
        for table in tables:
            self._writer = self._writer or _open(self._path, table.schema)
            self._writer.write_table(table, row_group_size=ROW_GROUP)


def _parts(batch: pa.RecordBatch, codes: pa.Array) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each piece, without the columns that only say which one it is."""
    import pyarrow.compute as pc

    rows = batch.drop_columns([ROW, SPLIT, FOLD, PIECE])
    different = pc.unique(codes).to_pylist()
    for code in different:
        if code is not None:
            yield code, rows if len(different) == 1 else rows.filter(pc.equal(codes, code))


def _over(pieces: Mapping[int, _Piece], codes: pa.Array) -> list[int]:
    """Pieces of months before the one of the last rows: rows come in order of time."""
    import pyarrow.compute as pc

    newest = pc.max(codes).as_py()
    if newest is None:
        return []
    month = newest // (_FOLDS * _FOLDS * len(SPLITS))
    return [code for code, piece in pieces.items() if piece.month < month]


def _open(path: Path, schema: pa.Schema) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Fractions seldom repeat: a dictionary of them costs time and room. Everything that could change the bytes is
    # said here, not left to a default.
    coded = [field.name for field in schema if not pa.types.is_floating(field.type)]
    return pq.ParquetWriter(
        path,
        schema,
        version="2.6",
        compression="zstd",
        compression_level=3,
        data_page_version="1.0",
        use_dictionary=coded,
        write_statistics=True,
        store_schema=True,
    )
