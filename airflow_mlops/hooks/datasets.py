"""Dataset versions in the artifact store."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import StoreConflictError, StoreError
from airflow_mlops.hooks.store import json_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_mlops.hooks.store import Store
    from airflow_mlops.primitives.provisioning.version import Manifest

__all__ = ["DatasetStore"]

_REF_ATTEMPTS = 20


class DatasetStore:
    """Dataset versions of one application: chunks and manifests never change, references move.

    :param store: where they are kept.
    :param application: name of the application, the first part of every key.
    """

    def __init__(self, store: Store, application: str) -> None:
        self.store = store
        self.application = application

    def key(self, *names: str) -> str:
        """Key of something below this application's datasets."""
        return "/".join((self.application, "datasets", *names))

    def chunk_key(self, digest: str) -> str:
        """Key of the chunk with this logical digest."""
        return self.key("chunks", digest[:2], f"{digest}.parquet")

    def publish(
        self, manifest: Manifest, files: Mapping[str, Path], commit: Mapping[str, Any], ref: str = "latest"
    ) -> bool:
        """Make a version visible, all or nothing: chunks first, then the manifest, then the reference.

        :param manifest: the version.
        :param files: chunk digest → local Parquet file, for chunks that the store has not yet.
        :param commit: who made it, when and with what; must hold ``time`` (ISO 8601).
        :param ref: the reference that will point to it.
        :return: ``False`` when the same version was there before.
        :raises StoreError: a chunk is neither in ``files`` nor in the store.
        """
        for chunk in manifest.chunks:
            key = self.chunk_key(chunk.digest)
            if self.store.exists(key):
                continue
            if chunk.digest not in files:
                raise StoreError(f"dataset {manifest.id}: chunk {chunk.digest} is neither stored nor given")
            self.store.put_if_absent(key, files[chunk.digest])
        created = self.store.put_if_absent(
            self.key("manifests", f"{manifest.id}.json"), manifest.to_json().encode()
        )
        stamp = "".join(c for c in str(commit["time"]) if c.isalnum())
        record = {"dataset_id": manifest.id, "ref": ref, "created": created, **commit}
        name = f"{stamp}-{hashlib.sha256(json_bytes(record)).hexdigest()[:12]}"
        self.store.put_json_if_absent(self.key("commits", f"{name}.json"), record)
        self._point(ref, {"dataset_id": manifest.id, "commit": name})
        return created

    def manifest(self, dataset_id: str) -> Manifest:
        """The version with this id.

        :raises StoreError: there is none, or its content does not match its id.
        """
        from airflow_mlops.primitives.provisioning.version import Manifest

        path = self.store.address(self.key("manifests", f"{dataset_id}.json"))
        data = self.store.read(self.key("manifests", f"{dataset_id}.json"))
        if data is None:
            raise StoreError(f"no dataset version {dataset_id} of {self.application!r} (expected {path})")
        manifest = Manifest.from_json(data)
        if manifest.id != dataset_id:
            raise StoreError(f"{path} was changed: its content has the id {manifest.id}; restore it")
        return manifest

    def paths(self, dataset_id: str, split: str, scratch: Path) -> list[Path]:
        """Local Parquet files of one split, in the order of their rows; they must not be changed.

        :param scratch: where they are copied to if the store is no folder.
        :raises StoreError: the version has no such split, or lost a chunk.
        """
        manifest = self.manifest(dataset_id)
        if split not in manifest.splits:
            raise StoreError(
                f"dataset {dataset_id} has no split {split!r}; it has {', '.join(manifest.splits) or 'none'}"
            )
        keys = [self.chunk_key(chunk.digest) for chunk in manifest.chunks if chunk.split == split]
        if lost := [key for key in keys if not self.store.exists(key)]:
            first = self.store.address(lost[0])
            raise StoreError(f"dataset {dataset_id}: {len(lost)} chunk(s) are gone, first {first}")
        return [self.store.local(key, scratch) for key in keys]

    def resolve(self, ref: str) -> str | None:
        """Id of the version that the reference points to; ``None`` when it was never set."""
        value = self.store.read_json(self.key("refs", f"{ref}.json"))
        return None if value is None else str(value["dataset_id"])

    def _point(self, ref: str, value: dict[str, str]) -> None:
        key = self.key("refs", f"{ref}.json")
        for attempt in range(_REF_ATTEMPTS):
            data, etag = self.store.read_versioned(key)
            if data is not None and json.loads(data)["dataset_id"] == value["dataset_id"]:
                return
            try:
                self.store.compare_and_set(key, json_bytes(value), etag)
            except StoreConflictError:
                if attempt == _REF_ATTEMPTS - 1:
                    raise
            else:
                return
