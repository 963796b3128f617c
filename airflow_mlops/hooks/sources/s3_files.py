"""S3 as DuckDB reads it: every address by the Airflow connection that it names, or that found it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

from airflow_mlops.exceptions import SourceError, SourceUnavailableError
from airflow_mlops.hooks.s3.client import s3_errors
from airflow_mlops.hooks.s3.deadline import BoundedFile, bounded

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from airflow_mlops.hooks.s3.client import S3Location

__all__ = ["ObjectFiles"]

_ESCAPED = re.compile(r"\[([*?\[])\]")


class ObjectFiles(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """What DuckDB asks of a file system, for ``s3://[conn_id@]bucket/key``.

    Nothing is opened before it is asked for, so that registering it costs nothing where no address is read.

    :param locate: bucket, key and connection of an address.
    :param files: the file system of a connection.
    """

    protocol = "s3"
    cachable = False

    def __init__(self, locate: Callable[[str], S3Location], files: Callable[[str], Any]) -> None:
        super().__init__(use_listings_cache=False)
        self._locate, self._files = locate, files

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open an object."""
        files, place = self._at(path)
        doing = f"reading s3://{place}"
        with s3_errors(doing, SourceError):
            opened = bounded(doing, SourceUnavailableError, lambda: files.open(place, mode, **options))
        return _File(opened, doing)

    def glob(self, path: str, **options: Any) -> list[str]:
        """Addresses of a pattern, with the connection that the pattern names.

        A file that was found comes as a pattern, too, in which the signs of its name are escaped.
        """
        files, _ = self._at(_ESCAPED.sub(r"\1", path))
        bucket, slash, key = path.removeprefix("s3://").partition("/")
        conn_id, at, bucket = bucket.rpartition("@")
        pattern = f"{bucket}{slash}{key}"
        found = bounded(
            f"listing s3://{pattern}", SourceUnavailableError, lambda: files.glob(pattern, **options)
        )
        return [f"{conn_id}{at}{name}" for name in found]

    def exists(self, path: str, **options: Any) -> bool:
        """Whether there is an object."""
        files, place = self._at(path)
        return bounded(
            f"looking for s3://{place}", SourceUnavailableError, lambda: bool(files.exists(place, **options))
        )

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Name, size and type."""
        files, place = self._at(path)
        found: dict[str, Any] = bounded(
            f"looking at s3://{place}", SourceUnavailableError, lambda: files.info(place, **options)
        )
        return found

    def modified(self, path: str) -> datetime:
        """When it was written."""
        moment: datetime = self.info(path)["mtime"]
        return moment

    def _at(self, path: str) -> tuple[Any, str]:
        place = self._locate(f"s3://{path.removeprefix('s3://')}")
        return self._files(place.conn_id), f"{place.bucket}/{place.key}"


class _File(BoundedFile):
    """An object whose errors are ours: DuckDB hands on their names and words, and so it is known what may pass."""

    def __init__(self, file: Any, doing: str) -> None:
        super().__init__(file, doing, SourceUnavailableError)

    def read(self, size: int = -1) -> bytes:
        """Bytes from where it is."""
        with s3_errors(self._doing, SourceError):
            return super().read(size)
