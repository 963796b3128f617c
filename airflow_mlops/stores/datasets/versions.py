"""Dataset versions in the artifact store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import StoreConflictError, StoreError
from airflow_mlops.hooks.store.base import in_parallel, json_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from airflow_mlops.hooks.store.base import Store
    from airflow_mlops.primitives.datasets.manifest import Manifest

__all__ = ["DatasetStore", "VersionInfo", "commit_time"]

_REF_ATTEMPTS = 20
#: Seconds that a publish waits for a prune which removes what it needs.
PRUNE_WAIT = 150.0


@dataclass(frozen=True)
class VersionInfo:
    """What is known of a version without reading its manifest.

    :param time: when it was provisioned last, ISO 8601.
    :param refs: references that point to it.
    :param commits: the records of each time that it was provisioned, newest first; empty when its writer
        was killed before it could write one.
    """

    id: str
    time: str
    refs: tuple[str, ...] = ()
    commits: tuple[Mapping[str, Any], ...] = ()


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

    def manifest_key(self, dataset_id: str) -> str:
        """Key of the version with this id."""
        return self.key("manifests", f"{dataset_id}.json")

    def manifest_address(self, dataset_id: str) -> str:
        """Where the version's manifest is, for people and other systems."""
        return self.store.address(self.manifest_key(dataset_id))

    # Writing -----------------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Write something and remove it, before hours are spent on what could not be stored.

        :raises StoreError: nothing can be written.
        """
        self.store.check_writable(self.key())

    def publish(
        self, manifest: Manifest, files: Mapping[str, Path], commit: Mapping[str, Any], ref: str = "latest"
    ) -> bool:
        """Make a version visible, all or nothing: chunks first, then the manifest, then the reference.

        :param manifest: the version.
        :param files: chunk digest → local Parquet file, for chunks that the store has not yet.
        :param commit: who made it, when and with what; must hold ``time`` (ISO 8601). ``retention`` and
            ``line`` say how long it stays, see :mod:`~airflow_mlops.primitives.datasets.retention`;
            ``frozen`` is the id of the version whose test it keeps, which stays as well.
        :param ref: the reference that will point to it.
        :return: ``False`` when the same version was there before.
        :raises StoreConflictError: a chunk is neither in ``files`` nor in the store (any more), or a prune
            is at work on the very chunks that are needed.
        """
        with self._announced(manifest, commit.get("frozen")):
            written = in_parallel(
                lambda chunk: self._put_chunk(manifest, chunk, files),
                list(dict.fromkeys(chunk.digest for chunk in manifest.chunks)),
            )
            created = self.store.put_if_absent(self.manifest_key(manifest.id), manifest.to_json().encode())
            stamp = "".join(c for c in str(commit["time"]) if c.isalnum())
            record = {"dataset_id": manifest.id, "ref": ref, "created": created, **commit}
            record["files"] = {digest: file for entry in written for digest, file in entry.items()}
            name = f"{stamp}-{hashlib.sha256(json_bytes(record)).hexdigest()[:12]}"
            self.store.put_json_if_absent(self.key("commits", f"{name}.json"), record)
            self._point(ref, {"dataset_id": manifest.id, "commit": name})
        return created

    def _put_chunk(
        self, manifest: Manifest, digest: str, files: Mapping[str, Path]
    ) -> dict[str, dict[str, Any]]:
        key = self.chunk_key(digest)
        if digest in files:
            if not self.store.put_if_absent(key, files[digest]):
                return {}
            return {digest: {"bytes": files[digest].stat().st_size, "sha256": _file_digest(files[digest])}}
        if not self.store.exists(key):
            raise StoreConflictError(
                f"dataset {manifest.id}: chunk {digest} is neither stored nor given: it was removed while this "
                "version was being made. Try again"
            )
        return {}

    @contextlib.contextmanager
    def _announced(self, manifest: Manifest, frozen: str | None = None) -> Iterator[None]:
        """Tell a prune what is about to be needed, chunks and a frozen version, and keep away from what it removes.

        Announce, then look; the prune does it the other way round. So one of the two sees the other.
        """
        key = self.key("pending", f"{uuid.uuid4().hex}.json")
        chunks = sorted({chunk.digest for chunk in manifest.chunks})
        note = {"dataset_id": manifest.id, "chunks": chunks, "time": datetime.now(UTC).isoformat()}
        self.store.put_json_if_absent(key, {**note, "frozen": frozen})
        try:
            self._wait_for_prune(manifest.id, frozen, set(chunks))
            if frozen and not self.store.exists(self.manifest_key(frozen)):
                raise StoreConflictError(
                    f"dataset {manifest.id}: version {frozen}, whose test it keeps, was removed while this version "
                    "was being made. Cure: freeze another version, or provision that one again"
                )
            yield
        finally:
            # What stays behind keeps a few chunks alive for a day.
            with contextlib.suppress(StoreError):
                self.store.delete(key)

    def _wait_for_prune(self, dataset_id: str, frozen: str | None, chunks: set[str]) -> None:
        versions = {dataset_id, frozen}
        deadline = time.monotonic() + PRUNE_WAIT
        while plan := self.store.read_json(self.key("prune.json")):
            over = datetime.fromisoformat(plan["until"]) < datetime.now(UTC)
            if over or (versions.isdisjoint(plan["versions"]) and chunks.isdisjoint(plan["chunks"])):
                return
            if time.monotonic() > deadline:
                raise StoreConflictError(
                    f"dataset {dataset_id}: a prune that removes some of its chunks has been at work since "
                    f"{plan['time']}. Try again after {plan['until']}"
                )
            time.sleep(0.2)

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

    # Reading -----------------------------------------------------------------------------------

    def manifest(self, dataset_id: str) -> Manifest:
        """The version with this id.

        :raises StoreError: there is none, or its content does not match its id.
        """
        from airflow_mlops.primitives.datasets.manifest import Manifest

        path = self.manifest_address(dataset_id)
        data = self.store.read(self.manifest_key(dataset_id))
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
        there = in_parallel(self.store.exists, keys)
        if lost := [key for key, found in zip(keys, there, strict=True) if not found]:
            first = self.store.address(lost[0])
            raise StoreError(f"dataset {dataset_id}: {len(lost)} chunk(s) are gone, first {first}")
        return in_parallel(lambda key: self.store.local(key, scratch), keys)

    def fetch(
        self, dataset_id: str, folder: Path, splits: Collection[str] | None = None
    ) -> dict[str, list[Path]]:
        """Copy a version into a folder: ``<split>/00000.parquet``, …, and ``manifest.json``.

        :param folder: made if need be; a version that was copied there before is replaced file by file.
        :param splits: only these; all by default.
        :raises StoreError: the version lacks a split or a chunk, or the folder cannot be written to.
        """
        manifest = self.manifest(dataset_id)
        copied: dict[str, list[Path]] = {}
        try:
            for split in manifest.splits if splits is None else splits:
                target = folder / split
                target.mkdir(parents=True, exist_ok=True)
                scratch = folder / f".{split}.{uuid.uuid4().hex}"
                try:
                    found = self.paths(dataset_id, split, scratch)
                    copied[split] = [target / f"{number:05d}.parquet" for number in range(len(found))]
                    for source, file in zip(found, copied[split], strict=True):
                        _copy(source, file, move=source.is_relative_to(scratch) and found.count(source) == 1)
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
            (folder / "manifest.json").write_text(manifest.to_json())
        except OSError as error:
            raise StoreError(f"cannot write to {folder}: {error.strerror or error}") from error
        return copied

    def resolve(self, ref: str) -> str | None:
        """Id of the version that the reference points to; ``None`` when it was never set."""
        value = self.store.read_json(self.key("refs", f"{ref}.json"))
        return None if value is None else str(value["dataset_id"])

    def refs(self) -> dict[str, str]:
        """All references and the ids of their versions."""
        start = self.key("refs", "")
        names = [key.removeprefix(start).removesuffix(".json") for key in self.store.list(start)]
        found = zip(names, in_parallel(self.resolve, names), strict=True)
        return {name: dataset_id for name, dataset_id in found if dataset_id is not None}

    def find(self, text: str) -> str:
        """Id of the version that a reference points to, or whose id begins with ``text``.

        :raises StoreError: there is none, or more than one.
        """
        if text and not text.startswith(".") and (dataset_id := self.resolve(text)):
            return dataset_id
        found = self.ids(text)
        if len(found) == 1:
            return found[0]
        if found:
            few = ", ".join(name[:12] for name in found[:5])
            raise StoreError(
                f"{len(found)} dataset versions of {self.application!r} begin with {text!r}: {few}"
            )
        known = ", ".join(sorted(self.refs())) or "none"
        raise StoreError(
            f"no dataset version of {self.application!r} begins with {text!r}, and no reference has this name "
            f"(there are: {known}). `airflow-mlops dataset list` shows all versions"
        )

    def ids(self, prefix: str = "") -> list[str]:
        """Ids of all complete versions, sorted."""
        start = self.key("manifests", "")
        return [key.removeprefix(start).removesuffix(".json") for key in self.store.list(start + prefix)]

    def versions(self) -> list[VersionInfo]:
        """All complete versions, newest first."""
        written = self.store.modified(self.key("manifests", ""))
        commits: dict[str, list[dict[str, Any]]] = {}
        for record in self.commits():
            commits.setdefault(record["dataset_id"], []).append(record)
        refs: dict[str, list[str]] = {}
        for name, dataset_id in self.refs().items():
            refs.setdefault(dataset_id, []).append(name)
        found = []
        for key, moment in written.items():
            name = key.rpartition("/")[2].removesuffix(".json")
            own = commits.get(name, [])
            when = own[0]["time"] if own else moment.isoformat(timespec="milliseconds")
            found.append(VersionInfo(name, when, tuple(refs.get(name, ())), tuple(own)))
        return sorted(found, key=lambda info: (commit_time(info.time), info.id), reverse=True)

    def commits(self, dataset_id: str | None = None) -> list[dict[str, Any]]:
        """The records of each time that a version, or any version, was provisioned; newest first."""
        keys = self.store.list(self.key("commits", ""))
        # A record may be removed by a prune between the listing and this.
        found = [record for record in in_parallel(self.store.read_json, keys) if record is not None]
        if dataset_id is not None:
            found = [record for record in found if record["dataset_id"] == dataset_id]
        return sorted(found, key=lambda record: commit_time(record["time"]), reverse=True)


def commit_time(text: str) -> datetime:
    """A time as commits have it; without a zone it is UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: Path, target: Path, *, move: bool) -> None:
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        if move:
            source.replace(staged)
        else:
            shutil.copyfile(source, staged)
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)
