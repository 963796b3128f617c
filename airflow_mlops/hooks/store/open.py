"""From the address of a store to the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from airflow_mlops.exceptions import StoreError

if TYPE_CHECKING:
    from airflow_mlops.hooks.store.base import Store


def open_store(uri: str | Path) -> Store:
    """Open the store at an address. Nothing is created and no server is asked before the first use.

    :param uri: absolute folder, ``~`` allowed, or ``file:///folder``, or ``s3://[conn_id@]bucket/prefix``
        where ``conn_id`` is an Airflow connection of type ``aws`` (``aws_default`` when left out).
    :raises StoreError: for any other scheme, and for a relative folder.
    """
    text = str(uri)
    parts = urlsplit(text)
    if parts.scheme == "s3" and "://" in text:
        from airflow_mlops.hooks.store.s3 import S3Store

        return S3Store.at(text)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise StoreError(
                f"store {text!r}: a file address names no machine; write file:///{parts.netloc}…"
            )
        text = unquote(parts.path)
    elif "://" in text:
        raise StoreError(
            f"store {text!r}: {parts.scheme}:// is not known; give s3://bucket/prefix, or a folder that all "
            "workers share, such as /var/lib/airflow-mlops"
        )
    root = Path(text).expanduser()
    if not root.is_absolute():
        raise StoreError(
            f"store {text!r} is relative, and every worker starts elsewhere: give an absolute folder"
        )
    from airflow_mlops.hooks.store.files import FileStore

    return FileStore(root)
