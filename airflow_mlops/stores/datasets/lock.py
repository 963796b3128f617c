"""The lock of a prune: renewed while its owner lives, over soon after its death, given back by its owner alone."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import StoreConflictError, StoreError
from airflow_mlops.hooks.store.base import json_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from airflow_mlops.stores.datasets.versions import DatasetStore

__all__ = ["PruneLock"]

log = logging.getLogger(__name__)

#: Times that the lock is renewed within the time that its owner may work on one renewal.
RENEWALS = 4
#: Until when a lock was held that was given back: long ago by anybody's clock.
OVER = datetime(1970, 1, 1, tzinfo=UTC)


class PruneLock:
    """
    What a prune is about to remove, written down for all who publish: one prune of an application at a time.

    A thread renews it while the block runs. Each write is conditional on the one before, so that an owner whose lock
    was taken over, as after its machine stood still, neither renews nor ends the lock of another one.

    :param plan: ``versions`` and ``chunks`` that go.
    :param working: how long the owner may go on after a renewal.
    :param locked: how long others believe that the lock is held after a renewal.
    """

    def __init__(
        self, datasets: DatasetStore, plan: Mapping[str, Any], working: timedelta, locked: timedelta
    ) -> None:
        self._datasets = datasets
        self._working, self._locked = working, locked
        self._key = datasets.key("prune.json")
        # A token makes each owner's document another one, and so its etag.
        self._value = {**plan, "owner": uuid.uuid4().hex, "time": datetime.now(UTC).isoformat()}
        self._etag: str | None = None
        self._renewed = 0.0
        self._lost = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="prune-lock", daemon=True)

    def __enter__(self) -> Self:
        """Take the lock.

        :raises StoreConflictError: another prune has it.
        """
        data, self._etag = self._datasets.store.read_versioned(self._key)
        held = None if data is None else json.loads(data)
        if held is not None and datetime.fromisoformat(held["until"]) > datetime.now(UTC):
            raise StoreConflictError(
                f"another prune of {self._datasets.application!r} has been at work since {held['time']}. "
                f"Try again after {held['until']}: it renews its lock while it lives"
            )
        self._write(self._locked)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back, if it is still ours."""
        self._over.set()
        self._thread.join()
        # Not removed but over: only a write can be held to the document that is ours.
        if not self._lost:
            with contextlib.suppress(StoreError):
                self._write(None)

    def check(self) -> None:
        """Whether the owner may still remove something.

        :raises StoreConflictError: it could not renew its lock for too long, and another prune may have begun.
        """
        silent = time.monotonic() - self._renewed
        if self._lost or silent > self._working.total_seconds():
            raise StoreConflictError(
                f"the lock of this prune of {self._datasets.application!r} "
                f"{self._lost or f'could not be renewed for {silent:.0f} s'}: prune again for the rest"
            )

    def _keep(self) -> None:
        while not self._over.wait(self._working.total_seconds() / RENEWALS):
            try:
                self._write(self._locked)
            except StoreConflictError:
                self._lost = "was taken over by another one"
                return
            except StoreError as error:
                log.warning("The lock of a prune could not be renewed: %s", error)

    def _write(self, valid: timedelta | None) -> None:
        # The time before the write counts: it may take long.
        began = time.monotonic()
        value = {**self._value, "until": (datetime.now(UTC) + valid if valid else OVER).isoformat()}
        if valid is None:
            value |= {"versions": [], "chunks": []}
        self._etag = self._datasets.store.compare_and_set(self._key, json_bytes(value), self._etag)
        self._renewed = began
