"""The artifact store: immutable objects, and small references that move."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_mlops.exceptions import StoreError

__all__ = ["Store", "json_bytes", "open_store", "published_batches"]


class Store(ABC):
    """Objects by key. A reader sees an object whole or not at all, and what is written once stays.

    Keys are names joined by ``/``, none of them empty or beginning with a dot.
    """

    @property
    @abstractmethod
    def uri(self) -> str:
        """The address that :func:`open_store` understands."""

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


def open_store(uri: str | Path) -> Store:
    """Open the store at a folder or a ``file://`` address. Nothing is created before the first write.

    :param uri: absolute folder, ``~`` allowed, or ``file:///folder``.
    :raises StoreError: for any other scheme, and for a relative folder.
    """
    from airflow_mlops.hooks.store_files import FileStore

    text = str(uri)
    parts = urlsplit(text)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise StoreError(
                f"store {text!r}: a file address names no machine; write file:///{parts.netloc}…"
            )
        text = unquote(parts.path)
    elif "://" in text:
        raise StoreError(
            f"store {text!r}: {parts.scheme}:// stores come later; for now give a folder that all "
            "workers share, such as /var/lib/airflow-mlops"
        )
    root = Path(text).expanduser()
    if not root.is_absolute():
        raise StoreError(
            f"store {text!r} is relative, and every worker starts elsewhere: give an absolute folder"
        )
    return FileStore(root)


def json_bytes(value: Any) -> bytes:
    """A value as readable JSON, the same bytes for the same value."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def published_batches(store: Store, application: str) -> list[dict[str, Any]]:
    """Metadata of all published batches, oldest first."""
    keys = [key for key in store.list(f"{application}/predictions/") if key.endswith("/meta.json")]
    return [store.read_json(key) for key in keys]
