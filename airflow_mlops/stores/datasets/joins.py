"""Joined rows that published versions hold, so that the next version need not join them again."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import StoreConflictError, StoreError
from airflow_mlops.hooks.store.base import in_parallel, json_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_mlops.primitives.datasets.making.join_cache import StoredRows
    from airflow_mlops.primitives.datasets.manifest import Manifest
    from airflow_mlops.stores.datasets.versions import DatasetStore

__all__ = ["JoinStore"]


log = logging.getLogger(__name__)


class JoinStore:
    """Which version holds all rows of a join: a note of a few bytes for each join.

    :param datasets: where versions are kept.
    """

    def __init__(self, datasets: DatasetStore) -> None:
        self.datasets = datasets

    def find(self, key: str, scratch: Path) -> StoredRows | None:
        """The rows of this join; ``None`` if no version has them any more, or not as they were published.

        :param key: name of the join.
        :param scratch: where files are copied to if the store is no folder.
        """
        from airflow_mlops.primitives.datasets.making.join_cache import StoredRows
        from airflow_mlops.stores.datasets.damage import sound

        note = self.datasets.store.read_json(self._key(key))
        if note is None:
            return None
        try:
            manifest = self.datasets.manifest(note["dataset_id"])
            if manifest.rows != note["rows"]:
                return None
            keys = [self.datasets.chunk_key(chunk.digest) for chunk in manifest.chunks]
            files = in_parallel(lambda name: self.datasets.store.local(name, scratch), keys)
        except StoreError as error:
            if error.retriable:
                raise
            return None  # removed by the retention: the rows are joined again
        if not sound(self.datasets, dict(zip(manifest.chunks, files, strict=True))):
            log.warning(
                "Dataset version %s holds the joined rows, but is damaged: they are joined again. "
                "`airflow-mlops dataset verify` says what is wrong",
                manifest.id,
            )
            return None
        return StoredRows(manifest, tuple(files))

    def remember(self, key: str, manifest: Manifest) -> None:
        """Note that a published version holds all rows of a join."""
        name, note = self._key(key), json_bytes({"dataset_id": manifest.id, "rows": manifest.rows})
        if self.datasets.store.put_if_absent(name, note):
            return
        found, etag = self.datasets.store.read_versioned(name)
        if found != note and self._gone(found):
            # Whoever was faster wrote the same rows.
            with contextlib.suppress(StoreConflictError):
                self.datasets.store.compare_and_set(name, note, etag)

    def _gone(self, note: bytes | None) -> bool:
        import json

        known = json.loads(note or b"{}").get("dataset_id")
        return known is None or not self.datasets.store.exists(
            self.datasets.key("manifests", f"{known}.json")
        )

    def _key(self, key: str) -> str:
        return self.datasets.key("joins", f"{key}.json")
