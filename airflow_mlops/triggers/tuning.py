"""Runs the loop of a tuning in the triggerer: no worker slot for a trial, nor for the tuning."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_mlops.quirks.ownership import ended
from airflow_mlops.quirks.settling import settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_mlops.jobs.tuning.loop import TuningLoop

LONGEST_PAUSE = 30.0
#: Errors in a row, with nothing finished in between, that nobody foresaw.
UNFORESEEN = 10


class TuningTrigger(BaseTrigger):
    """
    Fire once, when the tuning has ended: ``{"status": "done" | "failed", "reason": …}``.

    It holds nothing but the address of the tuning's document: another triggerer goes on where this one was. The
    trials are stopped only when somebody ends the task by hand, never when the triggerer ends.

    :param store: URI of the artifact store.
    :param key: the document's key.
    """

    def __init__(self, *, store: str, key: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.store = store
        self.key = key
        self._made: TuningLoop | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What is stored of the trigger: JSON values, nothing secret."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"store": self.store, "key": self.key}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Do the trials; whatever fails on the way is tried again from the document."""
        from airflow_mlops.exceptions import MLOpsError

        began, pause, unforeseen = time.monotonic(), 1.0, 0
        while True:
            try:
                tuning = await (await self._loop()).run()
            except Exception as error:
                unforeseen += not (isinstance(error, MLOpsError) and error.retriable)
                if unforeseen >= UNFORESEEN:
                    self.log.exception("The tuning %s cannot go on", self.key)
                    await settled(self, began)
                    yield self._event("error", f"{type(error).__name__}: {error}")
                    return
                self.log.warning(
                    "Tuning failed, going on in %.0f s: %s: %s", pause, type(error).__name__, error
                )
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                await settled(self, began)
                yield self._event(tuning.status, tuning.reason)
                return

    async def on_kill(self) -> None:
        """Stop all trials and remove them, if the task was ended and the tuning still goes on."""
        if not await ended(self):
            self.log.info("Tuning %s goes on: another triggerer or a worker has it now", self.key)
            return
        self.log.info("Stopping tuning %s: the task was ended by hand", self.key)
        await (await self._loop()).kill()

    async def _loop(self) -> TuningLoop:
        # One for both, since it knows what is on its way. In a thread: the first one imports its packages.
        if self._made is None:
            self._made = await asyncio.to_thread(self._make)
        return self._made

    def _make(self) -> TuningLoop:
        from airflow_mlops.jobs.tuning.loop import TuningLoop

        return TuningLoop(self.store, self.key, self.log)

    def _event(self, status: str, reason: str) -> TriggerEvent:
        return TriggerEvent({"status": status, "reason": reason})  # type: ignore[no-untyped-call]
