"""The artifact store: immutable objects, and small references that move."""

from __future__ import annotations

import contextlib
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from airflow_mlops.exceptions import StoreError
from airflow_mlops.primitives.texts.documents import json_text

__all__ = ["Store", "checked_key", "in_parallel", "json_bytes"]

#: Objects on their way at the same time.
TRANSFERS = 8

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


class Store(ABC):
    """Objects by key. A reader sees an object whole or not at all, and what is written once stays.

    Keys are names joined by ``/``, none of them empty or beginning with a dot.
    """

    @property
    @abstractmethod
    def uri(self) -> str:
        """The address that :func:`~airflow_mlops.hooks.store.open.open_store` understands."""

    @abstractmethod
    def address(self, key: str) -> str:
        """Where an object is or would be, for people and messages.

        :raises StoreError: for a key that could leave the store, or meet its own files.
        """

    @abstractmethod
    def local(self, key: str, scratch: Path) -> Path:
        """A file with the object's content: its own, or a copy below ``scratch``. It must not be changed.

        :raises StoreError: there is no such object.
        """

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether the object is there."""

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """Content of the object; ``None`` when there is none."""

    @abstractmethod
    def read_versioned(self, key: str) -> tuple[bytes | None, str | None]:
        """Content and etag of the object."""

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        """Write the object unless there is one of this name.

        :param data: the content, or the local file that holds it.
        :return: ``True`` when this call wrote it.
        """

    @abstractmethod
    def compare_and_set(self, key: str, data: bytes, expected: str | None) -> str:
        """Replace the object if it is still the one that was read.

        :param expected: etag by :meth:`read_versioned`; ``None`` when there must be no object yet.
        :return: the new etag.
        :raises StoreConflictError: somebody else wrote first.
        """

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Remove an object; ``False`` when there is none."""

    @abstractmethod
    def list(self, prefix: str = "") -> list[str]:
        """Keys that begin with ``prefix``, sorted.

        :raises StoreError: it cannot be read; what is in it must not pass for absent.
        """

    @abstractmethod
    def modified(self, prefix: str = "") -> dict[str, datetime]:
        """When each object below ``prefix`` was written, by the store's own clock.

        :raises StoreError: as for :meth:`list`.
        """

    @abstractmethod
    def sweep(self, before: datetime) -> int:
        """Remove what writers that were killed before this time left behind; no reader can see it.

        :return: how many such pieces there were.
        """

    def read_json(self, key: str) -> Any:
        """The object's content parsed as JSON; ``None`` when there is none."""
        data = self.read(key)
        if data is None:
            return None
        try:
            return json.loads(data)
        except ValueError as error:
            raise StoreError(
                f"{self.address(key)} is not JSON ({error}): restore it from a backup"
            ) from error

    def put_json_if_absent(self, key: str, value: Any) -> bool:
        """Write ``value`` as readable JSON unless there is an object of this name."""
        return self.put_if_absent(key, json_bytes(value))

    def check_writable(self, folder: str) -> None:
        """Write something and remove it, before hours are spent on what could not be stored.

        :param folder: where the result will be.
        :raises StoreError: nothing can be written there.
        """
        key = f"{folder}/probe-{uuid.uuid4().hex}"
        self.put_if_absent(key, b"Whether this store can be written to; it may be removed.\n")
        with contextlib.suppress(StoreError):
            self.delete(key)


def checked_key(key: str) -> str:
    """The key itself.

    :raises StoreError: it could leave the store, or meet its own files.
    """
    parts = PurePosixPath(key).parts
    odd = key != "/".join(parts) or key.startswith("/") or "\\" in key or "\0" in key
    if not parts or odd or any(part.startswith(".") for part in parts):
        raise StoreError(
            f"store key {key!r} is not allowed: give names joined by '/', none of them empty "
            "or beginning with a dot"
        )
    return key


def in_parallel(function: Callable[[_Given], _Result], given: Iterable[_Given]) -> list[_Result]:
    """What ``function`` gives for each, in their order, some at a time; the first error ends it."""
    items = list(given)
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(TRANSFERS, len(items))) as pool:
        waiting = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in waiting]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def json_bytes(value: Any) -> bytes:
    """A value as readable JSON, the same bytes for the same value."""
    return json_text(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
