"""A corner of a bucket through which jobs exchange files with the outside, by addresses signed for a while."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import StoreError
from airflow_mlops.hooks.s3.client import s3_errors, s3_presigner
from airflow_mlops.hooks.store.base import in_parallel
from airflow_mlops.hooks.store.s3 import S3Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["StagingStore"]

CHUNK = 1024**2
#: The longest that S3 lets an address be valid: seven days.
LONGEST = 7 * 24 * 3600
#: Keys that one request removes.
_AT_ONCE = 1000


class StagingStore(S3Store):
    """An S3 store whose objects may be replaced and removed at will, and handed to somebody without a login."""

    def below(self, folder: str) -> StagingStore:
        """The same in a folder of it, by the same client: it asks Airflow nothing."""
        inner = StagingStore.at(f"{self.uri}/{folder}")
        inner.__dict__["_client"] = self._client
        return inner

    def put(self, key: str, data: bytes | Path) -> None:
        """Write the object, whatever is there."""
        with s3_errors(f"writing {self.address(key)}"):
            self._put(key, data, {})

    def signed(self, method: str, key: str, seconds: float) -> str:
        """An address by which anybody may read or write this one object for a while.

        It ends with the login that signed it: a role's temporary one ends after hours, whatever is asked for here.

        :param method: ``get_object`` or ``put_object``.
        """
        valid = max(1, min(int(seconds), LONGEST))
        with s3_errors(f"signing an address of {self.address(key)}"):
            return str(
                self._presigner.generate_presigned_url(method, Params=self._named(key), ExpiresIn=valid)
            )

    def chunks(self, key: str, size: int) -> Iterator[bytes]:
        """Content of an object, piece by piece.

        :param size: bytes that it should have.
        :raises StoreError: it is absent, or has another size.
        """
        with s3_errors(f"reading {self.address(key)}"):
            answer = self._client.get_object(**self._named(key))
            if answer["ContentLength"] != size:
                raise StoreError(
                    f"{self.address(key)} has {answer['ContentLength']} bytes where {size} were sent: somebody wrote "
                    "it again"
                )
            yield from answer["Body"].iter_chunks(CHUNK)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of each object whose key begins with ``prefix``."""
        start = f"{self.location.key}/" if self.location.key else ""
        with s3_errors(f"listing {self.location.url}/{prefix}"):
            pages = self._client.get_paginator("list_objects_v2")
            return {
                item["Key"].removeprefix(start): int(item["Size"])
                for page in pages.paginate(Bucket=self.location.bucket, Prefix=start + prefix)
                for item in page.get("Contents", ())
            }

    def remove_all(self, prefix: str) -> None:
        """Remove every object below a prefix that ends with a slash."""
        found = [{"Key": self._named(key)["Key"]} for key in self.list(prefix)]

        def remove(start: int) -> None:
            objects = {"Objects": found[start : start + _AT_ONCE], "Quiet": True}
            with s3_errors(f"removing {self.location.url}/{prefix}"):
                answer: dict[str, Any] = self._client.delete_objects(
                    Bucket=self.location.bucket, Delete=objects
                )
            if answer.get("Errors"):
                raise StoreError(f"removing {self.location.url}/{prefix}: {answer['Errors'][0]}")

        in_parallel(remove, range(0, len(found), _AT_ONCE))

    @cached_property
    def _presigner(self) -> Any:
        return s3_presigner(self.location.conn_id)
