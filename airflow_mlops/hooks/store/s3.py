"""The artifact store in a bucket of S3, or of any server that knows S3's conditional writes."""

from __future__ import annotations

import contextlib
import time
import uuid
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_mlops.exceptions import SourceError, StoreConflictError, StoreError
from airflow_mlops.hooks.s3.client import is_conflict, is_missing, s3_client, s3_errors, split_s3
from airflow_mlops.hooks.store.base import Store, checked_key, in_parallel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from typing import Self

    from airflow_mlops.hooks.s3.client import S3Location

__all__ = ["S3Store"]

_Result = TypeVar("_Result")

#: The largest file that S3 takes in one request. Larger ones go up in parts, because they must: not every server
#: that knows conditional writes is as strict when an upload in parts is completed.
SINGLE = 5 * 1024**3
#: Parts in which files come down, and the smallest in which they go up; S3 takes at most 10,000 of one file.
PART = 16 * 1024**2
_PARTS = 9_000
#: Tries of a conditional write that met another write of the same key in the same moment (409).
_MEETINGS = 6
#: Times that a body may break off on its way.
_BROKEN = 2
_WRITE = "airflow-mlops-write"


class S3Store(Store):
    """Objects below a prefix of one bucket. See ``docs/adr/0009-s3-protocol.md`` for why each step is as it is.

    Every write is conditional, and the server decides who wins. A write carries a token of its own: when an
    answer is lost on the way and the repeated request is refused, the token says whether it was refused
    because of itself.

    :param location: connection, bucket and prefix.
    """

    def __init__(self, location: S3Location) -> None:
        self.location = location
        self._copies: dict[Path, str] = {}

    @classmethod
    def at(cls, uri: str) -> Self:
        """The store at ``s3://[conn_id@]bucket/prefix``.

        :raises StoreError: it is no such address.
        """
        try:
            location = split_s3(uri)
        except SourceError as error:
            raise StoreError(f"store: {error}") from error
        if location.key:
            checked_key(location.key)
        return cls(location)

    @property
    def uri(self) -> str:
        """The address that :func:`~airflow_mlops.hooks.store.open.open_store` understands."""
        return self.location.url.replace("s3://", f"s3://{self.location.conn_id}@", 1)

    def address(self, key: str) -> str:
        """``s3://bucket/prefix/key``, without the connection."""
        return f"{self.location.url}/{checked_key(key)}"

    def local(self, key: str, scratch: Path) -> Path:
        """A copy of the object below ``scratch``, complete or absent; made once by each store that is opened."""
        from botocore.exceptions import BotoCoreError

        target = scratch / checked_key(key)
        with s3_errors(f"reading {self.address(key)}"):
            head = self._head(key)
            if head is None:
                raise StoreError(f"{self.address(key)} is gone: restore it from a backup")
            if self._copies.get(target) == head["ETag"] and target.is_file():
                return target
            staged = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._download(key, head, staged)
                staged.replace(target)
                self._copies[target] = head["ETag"]
            except OSError as error:
                if isinstance(error, BotoCoreError):  # its timeouts are operating-system errors, too
                    raise
                raise StoreError(f"cannot write {target}: {error.strerror or error}") from error
            finally:
                with contextlib.suppress(OSError):
                    staged.unlink(missing_ok=True)
        return target

    def delete(self, key: str) -> bool:
        """Remove an object; ``False`` when there is none."""
        with s3_errors(f"removing {self.address(key)}"):
            # S3 says the same whether there was something or not.
            found = self._head(key) is not None
            if found:
                self._client.delete_object(**self._named(key))
            return found

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        with s3_errors(f"looking for {self.address(key)}"):
            return self._head(key) is not None

    def read(self, key: str) -> bytes | None:
        """Content of the object; ``None`` when there is none."""
        return self.read_versioned(key)[0]

    def read_versioned(self, key: str) -> tuple[bytes | None, str | None]:
        """Content and etag of the object, the etag being the server's."""
        with s3_errors(f"reading {self.address(key)}"), self._absent_allowed():
            return self._get(key, {}, lambda answer: (answer["Body"].read(), str(answer["ETag"])))
        return None, None

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        """Write the object unless there is one of this name.

        :param data: the content, or the local file that holds it.
        :return: ``True`` when this call wrote it.
        """
        # A file may be large: ask before it is sent for nothing.
        if isinstance(data, Path) and self.exists(key):
            return False
        with s3_errors(f"writing {self.address(key)}"):
            return self._put(key, data, {"IfNoneMatch": "*"}) is not None

    def compare_and_set(self, key: str, data: bytes, expected: str | None) -> str:
        """Replace the object if it is still the one that was read.

        :param expected: etag by :meth:`read_versioned`; ``None`` when there must be no object yet.
        :return: the new etag.
        :raises StoreConflictError: somebody else wrote first.
        """
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        with s3_errors(f"writing {self.address(key)}"):
            etag = self._put(key, data, condition)
        if etag is None:
            raise StoreConflictError(
                f"{self.address(key)}: expected {expected or 'no object'}, found another; "
                "read it again and decide again"
            )
        return etag

    def list(self, prefix: str = "") -> list[str]:
        """Keys that begin with ``prefix``, sorted."""
        return sorted(self.modified(prefix))

    def modified(self, prefix: str = "") -> dict[str, datetime]:
        """When each object below ``prefix`` was written."""
        start = f"{self.location.key}/" if self.location.key else ""
        found: dict[str, datetime] = {}
        with s3_errors(f"listing {self.location.url}/{prefix}"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.location.bucket, Prefix=start + prefix):
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(start)
                    # Markers of folders and hidden files are other programs' matters.
                    with contextlib.suppress(StoreError):
                        found[checked_key(key)] = item["LastModified"]
        return found

    def sweep(self, before: datetime) -> int:
        """Give up uploads in parts that were begun before this time and never completed."""
        start = f"{self.location.key}/" if self.location.key else ""
        removed = 0
        with s3_errors(f"listing uploads to {self.location.url}"):
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.location.bucket, Prefix=start):
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"] < before:
                        self._abort(upload["Key"], upload["UploadId"])
                        removed += 1
        return removed

    # Requests ----------------------------------------------------------------------------------

    @cached_property
    def _client(self) -> Any:
        return s3_client(self.location.conn_id)

    def _named(self, key: str) -> dict[str, str]:
        start = f"{self.location.key}/" if self.location.key else ""
        return {"Bucket": self.location.bucket, "Key": start + checked_key(key)}

    @contextlib.contextmanager
    def _absent_allowed(self) -> Iterator[None]:
        from botocore.exceptions import ClientError

        try:
            yield
        except ClientError as error:
            if not is_missing(error):
                raise

    def _head(self, key: str) -> dict[str, Any] | None:
        with self._absent_allowed():
            return dict(self._client.head_object(**self._named(key)))
        return None

    def _download(self, key: str, head: dict[str, Any], staged: Path) -> None:
        size = int(head["ContentLength"])

        def fetch(start: int) -> None:
            end = min(start + PART, size)
            wanted = {"Range": f"bytes={start}-{end - 1}"} if size > PART else {}
            # The condition holds all parts to one version of the object.
            self._get(key, {**wanted, "IfMatch": head["ETag"]}, lambda answer: take(answer, start, end))

        def take(answer: dict[str, Any], start: int, end: int) -> None:
            with staged.open("r+b") as sink:
                sink.seek(start)
                for block in answer["Body"].iter_chunks(1 << 20):
                    sink.write(block)
                if sink.tell() != end:
                    raise StoreError(f"{self.address(key)} came short: {sink.tell()} of {end} bytes")

        staged.touch()
        in_parallel(fetch, range(0, size, PART))

    def _get(self, key: str, options: dict[str, str], take: Callable[[dict[str, Any]], _Result]) -> _Result:
        """Ask for the object again when its body breaks off: boto3 repeats only until an answer begins."""
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        for _ in range(_BROKEN):
            answer = self._client.get_object(**self._named(key), **options)
            with contextlib.suppress(IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                return take(answer)
        return take(self._client.get_object(**self._named(key), **options))

    def _put(self, key: str, data: bytes | Path, condition: dict[str, str]) -> str | None:
        """Write under a condition; ``None`` when it does not hold."""
        from botocore.exceptions import ClientError

        token = uuid.uuid4().hex
        options = {"Metadata": {_WRITE: token}}, condition
        for meeting in range(_MEETINGS):
            try:
                if isinstance(data, Path) and data.stat().st_size > SINGLE:
                    return self._put_parts(key, data, *options)
                return self._put_whole(key, data, *options)
            except ClientError as error:
                if not is_conflict(error):
                    raise
                head = self._head(key)
                if head is not None and head.get("Metadata", {}).get(_WRITE) == token:
                    return str(head["ETag"])
                if head is not None or "IfMatch" in condition:
                    return None
            time.sleep(0.05 * 2**meeting)
        raise StoreConflictError(f"{self.address(key)}: others keep writing it; try again")

    def _put_whole(
        self, key: str, data: bytes | Path, options: dict[str, Any], condition: dict[str, str]
    ) -> str:
        with contextlib.ExitStack() as opened:
            body = opened.enter_context(data.open("rb")) if isinstance(data, Path) else data
            answer = self._client.put_object(**self._named(key), Body=body, **options, **condition)
        return str(answer["ETag"])

    def _put_parts(self, key: str, file: Path, options: dict[str, Any], condition: dict[str, str]) -> str:
        named, size = self._named(key), file.stat().st_size
        step = max(PART, -(-size // _PARTS))
        upload = self._client.create_multipart_upload(**named, **options)["UploadId"]

        def send(number: int) -> dict[str, Any]:
            with file.open("rb") as source:
                source.seek((number - 1) * step)
                body = source.read(step)
            answer = self._client.upload_part(**named, UploadId=upload, PartNumber=number, Body=body)
            sums = {name: answer[name] for name in ("ChecksumCRC32", "ChecksumCRC64NVME") if name in answer}
            return {"PartNumber": number, "ETag": answer["ETag"], **sums}

        try:
            parts = in_parallel(send, range(1, -(-size // step) + 1))
            answer = self._client.complete_multipart_upload(
                **named, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException:
            self._abort(named["Key"], upload)
            raise
        return str(answer["ETag"])

    def _abort(self, full_key: str, upload: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        with contextlib.suppress(BotoCoreError, ClientError):
            self._client.abort_multipart_upload(Bucket=self.location.bucket, Key=full_key, UploadId=upload)
