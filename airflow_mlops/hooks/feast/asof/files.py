"""The Parquet files behind feature views: which they are, what their footers say, and how DuckDB reads them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.sources.columns import parquet_errors
from airflow_mlops.primitives.sources.listing import data_files, find_files, is_parquet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from duckdb import DuckDBPyConnection

__all__ = ["Footer", "ViewFiles", "is_s3", "s3_errors"]

_AT_ONCE = 16
_SNAPSHOT, _DATA = "snapshot.json", "data"


@dataclass(frozen=True)
class Footer:
    """What a Parquet file says about itself.

    :param types: Arrow type of each column.
    :param rows: number of rows.
    :param bounds: earliest and latest moment of each column asked for, if the file's statistics tell.
    """

    types: Mapping[str, Any]
    rows: int
    bounds: Mapping[str, tuple[datetime, datetime]]


@dataclass
class ViewFiles:
    """Files of feature views, in folders and on S3.

    S3 is opened by the Airflow connection that an address names (``s3://conn_id@bucket/key``), or by
    ``aws_conn_id``, or by what the environment says (``AWS_ACCESS_KEY_ID`` and the like). All views of one
    join that lie on S3 are read in one way.

    :param aws_conn_id: Airflow connection of type ``aws``.
    :param folder: relative paths are below it.
    """

    aws_conn_id: str | None = None
    folder: Path | None = None
    _s3: Any = field(default=None, repr=False)
    _by: tuple[str | None, ...] = field(default=(), repr=False)
    _columns: dict[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    def find(self, path: str, endpoint: str | None = None) -> tuple[str, ...]:
        """Files of a path, a pattern or a folder of Parquet files, sorted by name.

        A folder ``data`` with a ``snapshot.json`` beside it holds what that lists, and nothing else.

        :param endpoint: address of the S3 server, for credentials from the environment.
        :raises SourceError: there is none, or what is listed is not there.
        """
        if is_s3(path):
            return self._find_s3(path, endpoint)
        place = self._local(path)
        if (snapshot := self.snapshot(path, endpoint)) is not None:
            return self._published(snapshot, str(place), str(place.parent / _SNAPSHOT))
        return find_files(str(place))

    def snapshot(self, path: str, endpoint: str | None = None) -> Mapping[str, Any] | None:
        """The ``snapshot.json`` beside a folder ``data``; ``None`` where there is none.

        :raises SourceError: it cannot be read.
        """
        if not is_s3(path):
            place = self._local(path)
            beside = place.parent / _SNAPSHOT
            found = place.name == _DATA and beside.is_file()
            return _document(beside.read_bytes(), str(beside)) if found else None
        at, url = self._at(path, endpoint)
        with s3_errors(f"reading the snapshot of {url}"):
            above, _, name = at.rpartition("/")
            if name == _DATA and self._s3.exists(f"{above}/{_SNAPSHOT}"):
                where = f"s3://{above}/{_SNAPSHOT}"
                return _document(self._s3.cat_file(f"{above}/{_SNAPSHOT}"), where)
        return None

    def columns(self, file: str) -> Mapping[str, str]:
        """Column → DuckDB type of the snapshot that lists a file: those that it lacks came later and are null.

        Empty for files that no snapshot lists.
        """
        return self._columns.get(file, {})

    def footers(self, files: Sequence[str], times: Iterable[str] = ()) -> list[Footer]:
        """Read the footers of files, several at once.

        :param times: columns whose bounds are wanted.
        :raises SourceError: a file is not there, or is no whole Parquet file.
        """
        wanted = tuple(times)
        if len(files) == 1:
            return [self._footer(files[0], wanted)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda file: self._footer(file, wanted), files))

    def register(self, connection: DuckDBPyConnection) -> None:
        """Enable a DuckDB connection to read the addresses that :meth:`find` found."""
        if self._s3 is not None and "s3" not in connection.list_filesystems():
            connection.register_filesystem(self._s3)

    def use_s3(self, conn_id: str | None = None, endpoint: str | None = None) -> Any:
        """Open S3, once.

        :param conn_id: Airflow connection of type ``aws``, instead of that of the store.
        :raises SourceError: it is open by another connection or at another server.
        """
        conn_id = conn_id or self.aws_conn_id
        by = (conn_id, None if conn_id else endpoint)
        if self._s3 is None:
            from fsspec.implementations.arrow import ArrowFSWrapper

            with s3_errors("opening S3"):
                self._s3 = ArrowFSWrapper(
                    _filesystem(*by), skip_instance_cache=True, use_listings_cache=False
                )
            self._by = by
        elif self._by != by:
            raise SourceError(
                f"feature views on S3 are read by {_name(*self._by)} and by {_name(*by)}: one join reads S3 in one "
                "way. Give all of them one connection, by aws_conn_id in feature_store.yaml"
            )
        return self._s3

    def _find_s3(self, path: str, endpoint: str | None) -> tuple[str, ...]:
        at, url = self._at(path, endpoint)
        if (snapshot := self.snapshot(path, endpoint)) is not None:
            return self._published(snapshot, url, f"s3://{at.rpartition('/')[0]}/{_SNAPSHOT}")
        files = self._s3
        with s3_errors(f"listing {url}"):
            if any(sign in at for sign in "*?["):
                found = data_files(map(str, files.glob(at)), at)
            elif files.isfile(at):
                found = [at]
            else:
                every = data_files(map(str, files.find(at)), at.rstrip("/"))
                found = [name for name in every if is_parquet(name, self._head)]
        if not found:
            raise SourceError(f"no object at {url}: publish the features, or correct the path of the source")
        return tuple(sorted(f"s3://{name}" for name in found))

    def _at(self, path: str, endpoint: str | None) -> tuple[str, str]:
        """Bucket and key of an address, and the address without its connection; S3 is open then."""
        from airflow_mlops.hooks.s3.client import split_s3

        place = split_s3(path, "")
        self.use_s3(place.conn_id or None, endpoint)
        return f"{place.bucket}/{place.key}", place.url

    def _head(self, name: str) -> bytes:
        with self._s3.open(name, "rb") as source:
            found: bytes = source.read(8)
        return found

    def _local(self, path: str) -> Path:
        place = Path(path.removeprefix("file://")).expanduser()
        return place if place.is_absolute() or self.folder is None else self.folder / place

    def _published(self, snapshot: Mapping[str, Any], data: str, where: str) -> tuple[str, ...]:
        """The files that a snapshot lists; what it says of their columns is kept."""
        names, columns = _listed(snapshot, where)
        files = tuple(sorted(f"{data}/{name}" for name in names))
        self._columns.update(dict.fromkeys(files, columns))
        return files

    def _footer(self, file: str, times: Sequence[str]) -> Footer:
        import pyarrow.parquet as pq

        if not is_s3(file):
            with parquet_errors(file):
                return _read(pq.ParquetFile(file), times)
        with s3_errors(f"reading {file}"):
            return _read(pq.ParquetFile(file.removeprefix("s3://"), filesystem=self._s3.fs), times)


def is_s3(place: str) -> bool:
    """Whether a path or pattern is an address on S3."""
    return place.startswith("s3://")


def s3_errors(doing: str) -> AbstractContextManager[None]:
    """Say what S3 refused, as errors of this package.

    :param doing: what is done, such as ``reading s3://bucket/key``.
    """
    from airflow_mlops.hooks.s3.client import s3_errors as translated

    return translated(doing, SourceError)


def _filesystem(conn_id: str | None, endpoint: str | None) -> Any:
    if conn_id:
        from airflow_mlops.hooks.s3.client import s3_filesystem

        return s3_filesystem(conn_id)
    from pyarrow.fs import S3FileSystem

    if not endpoint:
        return S3FileSystem()
    scheme, _, host = endpoint.rpartition("://")
    return S3FileSystem(endpoint_override=host.rstrip("/"), scheme=scheme or "https")


def _name(conn_id: str | None, endpoint: str | None) -> str:
    return f"connection {conn_id!r}" if conn_id else f"the environment's login at {endpoint or 'AWS'}"


def _document(data: bytes, where: str) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(data)
        found["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise _no_snapshot(where, error) from error
    return found


def _listed(snapshot: Mapping[str, Any], where: str) -> tuple[list[str], dict[str, str]]:
    """Names of the files of a snapshot, and the DuckDB type of each of its columns."""
    from airflow_mlops.primitives.features.schema import sql_type

    try:
        names = [str(entry["file"] if isinstance(entry, dict) else entry) for entry in snapshot["files"]]
        columns = {str(one["name"]): sql_type(one["type"]) for one in snapshot.get("columns", ())}
    except (KeyError, TypeError) as error:
        raise _no_snapshot(where, error) from error
    if not names:
        raise SourceError(f"{where} lists no file: nothing was published yet")
    return names, columns


def _no_snapshot(where: str, error: Exception) -> SourceError:
    return SourceError(
        f"{where} is no snapshot of published features ({type(error).__name__}: {error}); publish them again"
    )


def _read(file: Any, times: Sequence[str]) -> Footer:
    with file:
        metadata, schema = file.metadata, file.schema_arrow
        bounds = {name: found for name in times if (found := _bounds(metadata, name))}
    return Footer({str(part.name): part.type for part in schema}, int(metadata.num_rows), bounds)


def _bounds(metadata: Any, name: str) -> tuple[datetime, datetime] | None:
    """Earliest and latest moment of a column, unless some row group does not tell."""
    places = [n for n in range(metadata.num_columns) if metadata.schema.column(n).path == name]
    found: list[datetime] = []
    for number in range(metadata.num_row_groups if places else 0):
        statistics = metadata.row_group(number).column(places[0]).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        for moment in (statistics.min, statistics.max):
            if not isinstance(moment, datetime):
                return None
            found.append(moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))
    return (min(found), max(found)) if found else None
