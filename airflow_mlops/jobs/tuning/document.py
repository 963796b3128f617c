"""The document of a tuning in the store, and which of several loops goes on with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import StoreConflictError, StoreError
from airflow_mlops.hooks.store.base import json_bytes
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.primitives.texts.documents import json_text
from airflow_mlops.primitives.training.tuning import Tuning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_mlops.hooks.store.base import Store

#: Seconds between two signs of life that the owner writes, and after how many without one another takes over.
HEARTBEAT, SILENCE = 60.0, 300.0
#: Seconds between two looks of who waits for the owner.
POLL = 5.0


class TuningDocument:
    """
    One process's view of a tuning's document.

    Whoever claimed it last may write it: the writes of all others fail from that moment, and so they neither start
    nor remove a job of it.

    :param store: the artifact store, or its URI.
    :param key: of the document.
    """

    def __init__(self, store: Store | str, key: str) -> None:
        self.key = key
        self.tuning: Tuning
        self._store = open_store(store) if isinstance(store, str) else store
        self._me = uuid.uuid4().hex
        self._etag: str | None = None
        self._ended: dict[int, str] = {}
        self._writing = asyncio.Lock()
        self.written_at = time.monotonic()

    def read(self) -> Tuning:
        """The document as it is now.

        :raises StoreError: there is none.
        """
        data, self._etag = self._store.read_versioned(self.key)
        if data is None:
            raise StoreError(f"The tuning's document {self._store.address(self.key)} is not there.")
        self.tuning, self._ended = Tuning.from_dict(json.loads(data)), {}
        return self.tuning

    async def save(self) -> None:
        """Write the document.

        :raises StoreConflictError: another process has claimed it.
        """
        async with self._writing:
            writing = asyncio.ensure_future(asyncio.to_thread(self._writer()))
            try:
                self._etag = await asyncio.shield(writing)
            except asyncio.CancelledError:
                # The thread goes on: who writes next needs to know what it has written.
                with contextlib.suppress(StoreError):
                    self._etag = await writing
                raise
            self.written_at = time.monotonic()

    def _writer(self) -> Callable[[], str]:
        """Writes what is true now; the loop, which all other tasks wait for, need not wait for the JSON of it."""
        head, ended, etag = self.tuning.head(), self._ended, self._etag
        trials: list[str | dict[str, Any]] = [
            ended.get(trial.number) or trial.to_dict() for trial in self.tuning.trials
        ]

        def write() -> str:
            lines = []
            for trial in trials:
                line = trial if isinstance(trial, str) else json_text(trial, ensure_ascii=False)
                if isinstance(trial, dict) and trial["state"] != "running":
                    ended[trial["number"]] = line  # it does not change any more
                lines.append(line)
            return self._store.compare_and_set(self.key, _document(head, lines), etag)

        return write

    async def claim(self) -> Tuning:
        """Read the document and make it this process's own, unless the tuning is over."""
        while True:
            tuning = await asyncio.to_thread(self.read)
            if tuning.status != "running":
                return tuning
            tuning.owner = self._me
            try:
                await self.save()
            except StoreConflictError:
                continue
            return tuning

    async def heartbeat(self) -> None:
        """Write when nothing was written for a while, so that others know that somebody is there."""
        if time.monotonic() - self.written_at >= HEARTBEAT:
            await self.save()

    async def wait_for_owner(self) -> None:
        """Return when the tuning is over, or its owner has been silent for long."""
        seen, since = None, time.monotonic()
        while time.monotonic() - since < SILENCE:
            tuning = await asyncio.to_thread(self.read)
            if tuning.status != "running":
                return
            if self._etag != seen:
                seen, since = self._etag, time.monotonic()
            await asyncio.sleep(POLL)

    def local(self, key: str, scratch: Path) -> Path:
        """A file with an object of the store beside the document."""
        return self._store.local(key, scratch)

    def delete(self, key: str) -> bool:
        """Remove an object of the store beside the document."""
        return self._store.delete(key)


def _document(head: dict[str, Any], trials: list[str]) -> bytes:
    """The document as readable JSON, a trial a line."""
    begin = json_bytes(head).rstrip().removesuffix(b"}").rstrip()
    return begin + b',\n  "trials": [\n' + ",\n".join(trials).encode() + b"\n  ]\n}\n"
