"""Sources by Airflow's connections: files, objects on S3, Delta and Iceberg tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SourceError, SourceUnavailableError
from airflow_mlops.hooks.s3.client import s3_client, s3_errors, s3_filesystem, split_s3
from airflow_mlops.primitives.sources.base import LocalSources, relative_names
from airflow_mlops.primitives.sources.columns import parquet_errors, schema_of
from airflow_mlops.primitives.sources.listing import (
    data_files,
    is_parquet,
    named_parquet,
)
from airflow_mlops.primitives.texts.nearest import nearest_of

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from airflow_mlops.hooks.s3.client import S3Location

__all__ = ["AirflowSources", "is_s3"]

_AT_ONCE = 8
_TAIL, _PART = 64 * 1024, 1024**2
#: Times that an object is asked for whose body breaks off.
_TRIES = 3
_MAGIC = re.compile(r"[*?\[]")


@dataclass
class AirflowSources:
    """Files that this worker sees, and what ``aws`` connections open.

    A pattern may name its connection, ``s3://conn_id@bucket/key``. What it finds is named without it, and
    read, pinned and fetched by it all the same.

    :param aws_conn_id: Airflow connection of addresses that begin with ``s3://`` and name no other.
    """

    aws_conn_id: str = "aws_default"
    _local: LocalSources = field(default_factory=LocalSources, repr=False)
    _listed: dict[str, str] = field(default_factory=dict, repr=False)
    _found_by: dict[str, str] = field(default_factory=dict, repr=False)
    _clients: dict[str, Any] = field(default_factory=dict, repr=False)
    _opened: dict[str, Any] = field(default_factory=dict, repr=False)

    def find(self, pattern: str, folder: Path | None = None) -> tuple[str, ...]:
        """Files of a path, a pattern or a folder of Parquet files, sorted by name.

        In an address ``*`` stays within a folder, and ``**`` goes through all below.

        :raises SourceError: there is none, or its bucket cannot be listed, or two connections mean two objects
            by one address.
        """
        if not is_s3(pattern):
            return self._local.find(pattern, folder)
        place = split_s3(pattern, self.aws_conn_id)
        where = f"s3://{place.bucket}/{place.key}"
        with s3_errors(f"listing {where}", SourceError):
            found = self._list(place)
        if not found:
            raise SourceError(f"no object at {where}{self._near(place)}")
        self._keep(found, place.conn_id)
        return tuple(sorted(found))

    def schema(self, file: str) -> Mapping[str, str]:
        """Column → Arrow type of a Parquet file.

        :raises SourceError: it is no whole Parquet file, or cannot be read.
        """
        if not is_s3(file):
            return self._local.schema(file)
        import pyarrow.parquet as pq

        place = self._place(file)
        with s3_errors(f"reading {file}", SourceError), parquet_errors(file):
            try:
                files = self._files(place.conn_id).fs
                return schema_of(pq.read_schema(f"{place.bucket}/{place.key}", filesystem=files), file)
            except OSError as error:
                if "AWS Error" in str(error):  # the server's fault, not the file's
                    raise SourceUnavailableError(f"reading {file}: {error}; try again later") from error
                raise

    def columns(self, file: str) -> list[str]:
        """Columns of a Parquet file, in order."""
        return list(self.schema(file))

    def head(self, file: str) -> bytes:
        """The first bytes of a file; none of an object without any."""
        if not is_s3(file):
            return self._local.head(file)
        with s3_errors(f"reading {file}", SourceError):
            return self._first_bytes(self._place(file))

    def pin(self, files: Sequence[str]) -> list[dict[str, Any]]:
        """Size and digest of a file; size, etag, version and footer's digest of an object.

        :raises SourceUnavailableError: one changed since it was found: try again.
        """
        if not any(is_s3(file) for file in files):
            return self._local.pin(files)
        for file in filter(is_s3, files):
            self._client(self._place(file))  # connections are not looked up by several threads at once
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            pins = list(pool.map(self._pin, files))
        return [{"file": name, **pin} for name, pin in zip(relative_names(files), pins, strict=True)]

    def sha256(self, file: str) -> str:
        """Digest of the whole content of a file; an object is read for it, and nothing is kept."""
        if not is_s3(file):
            return self._local.sha256(file)
        place, digest = self._place(file), hashlib.sha256()
        with s3_errors(f"reading {file}", SourceError):
            answer = self._client(place).get_object(Bucket=place.bucket, Key=place.key)
            for part in answer["Body"].iter_chunks(_PART):
                digest.update(part)
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Compare all files with what they were when they were found; objects by their etag.

        :raises SourceUnavailableError: one changed: try again.
        """
        self._local.check_unchanged()
        if self._listed:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self._head, self._listed))

    def register(self, connection: DuckDBPyConnection) -> None:
        """Enable a DuckDB connection to read ``s3://`` addresses, found before or not.

        DuckDB's own extension would have to be fetched from the Internet.
        """
        from airflow_mlops.hooks.sources.s3_files import ObjectFiles

        if "s3" in connection.list_filesystems():
            connection.unregister_filesystem("s3")
        connection.register_filesystem(ObjectFiles(self._place, self._files))

    def open_table(
        self, connection: DuckDBPyConnection, name: str, table: Mapping[str, Any], folder: Path | None
    ) -> dict[str, Any]:
        """Make a Delta or Iceberg table a view of the connection; its pin."""
        from airflow_mlops.hooks.sources.tables import open_table

        return open_table(connection, name, table, folder, self.aws_conn_id)

    def download(self, file: str, pin: Mapping[str, Any], destination: Path) -> Path | None:
        """The content that an object had when it was pinned, if its bucket keeps versions.

        :return: ``None`` when that version is gone, or never had a name.
        """
        from botocore.exceptions import ClientError

        if not is_s3(file) or not pin.get("version_id"):
            return None
        place = self._place(file)
        destination.parent.mkdir(parents=True, exist_ok=True)
        with s3_errors(f"reading {file}", SourceError):
            wanted = {"Bucket": place.bucket, "Key": place.key, "VersionId": pin["version_id"]}
            try:
                _fetch(self._client(place), wanted, destination)
            except ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (400, 404, 405):
                    return None
                raise
        return destination

    def _client(self, place: S3Location) -> Any:
        if place.conn_id not in self._clients:
            self._clients[place.conn_id] = s3_client(place.conn_id, SourceError)
        return self._clients[place.conn_id]

    def _files(self, conn_id: str) -> Any:
        """File system of a connection, pyarrow's below fsspec's names."""
        from fsspec.implementations.arrow import ArrowFSWrapper

        if conn_id not in self._opened:
            files = s3_filesystem(conn_id)
            self._opened[conn_id] = ArrowFSWrapper(files, skip_instance_cache=True, use_listings_cache=False)
        return self._opened[conn_id]

    def _place(self, address: str) -> S3Location:
        """Bucket and key, and the connection that the address names, or that found it."""
        return split_s3(address, self._found_by.get(address, self.aws_conn_id))

    def _keep(self, found: Mapping[str, str], conn_id: str) -> None:
        """Remember what was listed, and by which connection."""
        for address, etag in found.items():
            before = self._found_by.get(address, conn_id)
            if before == conn_id:
                self._listed[address], self._found_by[address] = etag, conn_id
            elif self._listed[address] != etag:
                raise SourceError(
                    f"{address} is one object by connection {before!r} and another one by {conn_id!r}: nobody could "
                    "tell later which was read. Cure: copy one of them to a bucket of another name"
                )

    def _list(self, place: S3Location) -> dict[str, str]:
        """Address → etag of the objects of a key, a pattern or a folder."""
        bucket, key = place.bucket, place.key
        magic = _MAGIC.search(key)
        prefix = key[: magic.start()] if magic else key
        wanted = re.compile(_expression(key) if magic else f"{re.escape(key)}(/.*)?" if key else ".*")
        pages = self._client(place).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = {
            entry["Key"]: entry["ETag"].strip('"')
            for page in pages
            for entry in page.get("Contents", ())
            if wanted.fullmatch(entry["Key"]) and not entry["Key"].endswith("/")
        }
        if key in found and not any(sign in key for sign in "*?"):
            return {f"s3://{bucket}/{key}": found[key]}
        names = data_files(found, key.rstrip("/"))
        if not magic:
            names = [
                name
                for name in names
                if is_parquet(name, lambda name: self._first_bytes(replace(place, key=name)))
            ]
        return {f"s3://{bucket}/{name}": found[name] for name in names}

    def _first_bytes(self, place: S3Location) -> bytes:
        from botocore.exceptions import ClientError

        try:
            answer = self._client(place).get_object(Bucket=place.bucket, Key=place.key, Range="bytes=0-7")
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 416:
                return b""  # it has none
            raise
        data: bytes = answer["Body"].read()
        return data

    def _near(self, place: S3Location) -> str:
        """What is there instead, for a message."""
        bucket, key = place.bucket, place.key
        magic = _MAGIC.search(key)
        folder = (key[: magic.start()] if magic else key).rpartition("/")[0]
        prefix = f"{folder}/" if folder else ""
        with s3_errors(f"listing s3://{bucket}/{prefix}", SourceError):
            page = self._client(place).list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/")
        names = [entry["Key"] for entry in page.get("Contents", ())]
        names += [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
        wanted = key.removeprefix(prefix).partition("/")[0]
        shown = nearest_of((name.removeprefix(prefix) for name in names), wanted)
        return f"; s3://{bucket}/{prefix} has {shown}"

    def _pin(self, file: str) -> dict[str, Any]:
        if not is_s3(file):
            return {key: value for key, value in self._local.pin([file])[0].items() if key != "file"}
        place = self._place(file)
        head = self._head(file)
        etag, size = head["ETag"].strip('"'), int(head["ContentLength"])
        with s3_errors(f"reading {file}", SourceError):
            pin: dict[str, Any] = {"bytes": size, "etag": etag}
            if head.get("VersionId", "null") != "null":
                pin["version_id"] = head["VersionId"]
            if named_parquet(place.key) or self._first_bytes(place).startswith(b"PAR1"):
                pin["footer_sha256"] = self._footer(place, etag, size)
        return pin

    def _head(self, file: str) -> Mapping[str, Any]:
        """What the server says of an object, which must be the one that was listed."""
        place = self._place(file)
        with s3_errors(f"reading {file}", SourceError):
            head: Mapping[str, Any] = self._client(place).head_object(Bucket=place.bucket, Key=place.key)
        etag = head["ETag"].strip('"')
        if self._listed.get(file, etag) != etag:
            raise SourceUnavailableError(
                f"{file} changed while it was read: try again when its writer is done, and let it write under "
                "new names"
            )
        return head

    def _footer(self, place: S3Location, etag: str, size: int) -> str:
        """Digest of a Parquet file's footer."""

        def tail(length: int) -> bytes:
            given = {"Bucket": place.bucket, "Key": place.key, "IfMatch": f'"{etag}"'}
            answer = self._client(place).get_object(
                **given, Range=f"bytes={max(0, size - length)}-{size - 1}"
            )
            data: bytes = answer["Body"].read()
            return data

        data = tail(_TAIL)
        length = int.from_bytes(data[-8:-4], "little")
        if length + 8 > len(data):
            data = tail(length + 8)
        return hashlib.sha256(data[-8 - length : -8]).hexdigest()


def is_s3(place: str) -> bool:
    """Whether a path or pattern is an address on S3."""
    return place.startswith("s3://")


def _expression(pattern: str) -> str:
    """A file pattern as a regular expression, in which ``*`` does not cross a slash."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            parts.append("(?:[^/]+/)*")
            at += 3
        elif pattern.startswith("**", at):
            parts.append(".*")
            at += 2
        elif (found := re.compile(r"\[(!?)([^\]]+)\]").match(pattern, at)) is not None:
            parts.append(f"[{'^' if found[1] else ''}{re.escape(found[2]).replace(chr(92) + '-', '-')}]")
            at = found.end()
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(pattern[at]) or re.escape(pattern[at]))
            at += 1
    return "".join(parts)


def _fetch(client: Any, wanted: Mapping[str, str], destination: Path) -> None:
    """Write an object into a file, asking again where its body breaks off."""
    from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

    for left in reversed(range(_TRIES)):
        answer = client.get_object(**wanted)
        try:
            with destination.open("wb") as sink:
                for part in answer["Body"].iter_chunks(_PART):
                    sink.write(part)
        except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
            if not left:
                raise
        else:
            return
