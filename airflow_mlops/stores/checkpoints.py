"""Checkpoints of jobs that ended too early, in the artifact store, until a later try has gone on from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.hooks.store.base import in_parallel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from airflow_mlops.hooks.store.base import Store

__all__ = ["CheckpointStore"]


class CheckpointStore:
    """Checkpoints of one job: each is seen whole or not at all, and the newest one counts.

    The files have numbers for names in the store, since a model may call its own as it likes. A list with their
    paths is written last: it makes the checkpoint visible.

    :param store: where they are kept.
    :param application: name of the application, the first part of every key.
    :param job: name of the job, the same for all tries that may go on from each other.
    """

    def __init__(self, store: Store, application: str, job: str) -> None:
        self._store = store
        self._prefix = f"{application}/checkpoints/{job}"

    @classmethod
    def jobs(cls, store: Store, application: str) -> list[str]:
        """Names of the jobs of an application that have one."""
        prefix = f"{application}/checkpoints/"
        return sorted({key.removeprefix(prefix).partition("/")[0] for key in store.list(prefix)})

    def save(self, folder: Path, attempt: int, owner: Mapping[str, str]) -> int:
        """Keep the files of a folder, and drop what earlier attempts left.

        :param attempt: number of the try that wrote it.
        :param owner: the task instance that it is for: ``dag_id``, ``run_id``, ``task_id``, ``map_index``.
        :return: bytes; 0 for a folder without a file, which is no checkpoint and changes nothing.
        """
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            return 0
        root = f"{self._prefix}/{attempt:05d}"
        # What a killed worker left of this attempt is not of this folder.
        self._drop(key for key in self._keys() if key.startswith(root))
        keys = {f"{root}/{number:05d}": path for number, path in enumerate(files)}
        in_parallel(lambda key: self._store.put_if_absent(key, keys[key]), keys)
        listed = {str(path.relative_to(folder)): key for key, path in keys.items()}
        self._store.put_json_if_absent(f"{root}.json", {"owner": dict(owner), "files": listed})
        self._drop(key for key in self._keys() if not key.startswith(root))
        return sum(path.stat().st_size for path in files)

    def fetch(self, scratch: Path) -> dict[str, Path]:
        """Path below the checkpoint's folder → local file, of the newest one; empty when there is none."""
        listed = self._newest().get("files") or {}
        found = in_parallel(lambda key: self._store.local(key, scratch), listed.values())
        return dict(zip(listed, found, strict=True))

    def owner(self) -> dict[str, str]:
        """The task instance that the newest one is for; empty when there is none."""
        return dict(self._newest().get("owner") or {})

    def delete(self) -> None:
        """Remove all of them."""
        self._drop(self._keys())

    def _newest(self) -> dict[str, Any]:
        lists = [key for key in self._keys() if key.endswith(".json")]
        return dict(self._store.read_json(lists[-1]) or {}) if lists else {}

    def _keys(self) -> list[str]:
        return self._store.list(f"{self._prefix}/")

    def _drop(self, keys: Iterable[str]) -> None:
        # The lists first: half a checkpoint is never seen.
        for key in sorted(keys, key=lambda key: not key.endswith(".json")):
            self._store.delete(key)
