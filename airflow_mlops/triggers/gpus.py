"""Waits in the triggerer until GPUs are free, so that a job without one holds no worker slot."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_mlops.exceptions import GpusMissingError
from airflow_mlops.quirks.settling import settled
from airflow_mlops.runners import get_runner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Seconds between two looks, a little more or less: not all who wait shall ask at once.
POLL = 5.0
LONGEST_PAUSE = 60.0


class FreeGpuTrigger(BaseTrigger):
    """
    Fire once, when a job could have its GPUs, or when it turns out that it never can.

    The event is ``{"status": "free" | "missing", "message": …}``. Nothing is held for the job until it is submitted
    again: another one may be faster, and then it waits once more.

    :param runner: kind of the runner.
    :param options: options of the runner.
    :param name: name of the job.
    :param gpus: what it asks for, as ``Resources.gpus``.
    :param image: its image.
    :param poll: seconds between two looks.
    """

    def __init__(
        self, *, runner: str, options: dict[str, Any], name: str, gpus: Any, image: str, poll: float = POLL
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.runner = runner
        self.options = options
        self.name = name
        self.gpus = gpus
        self.image = image
        self.poll = poll

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What is stored of the trigger: JSON values, nothing secret."""
        names = ("runner", "options", "name", "gpus", "image", "poll")
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            key: getattr(self, key) for key in names
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again; an engine that is away is waited for."""
        runner: Any = await asyncio.to_thread(get_runner, self.runner, **self.options)
        pause = self.poll
        await settled(self, time.monotonic())
        while True:
            try:
                free = await asyncio.to_thread(runner.gpus_free, self.name, self.gpus, self.image)
            except GpusMissingError as error:
                yield TriggerEvent({"status": "missing", "message": str(error)})  # type: ignore[no-untyped-call]
                return
            except Exception as error:  # noqa: BLE001  a failed trigger would fail a task that only waits
                pause = min(2 * pause, LONGEST_PAUSE)
                self.log.warning("Cannot see which GPUs are free, trying again in %.0f s: %s", pause, error)
            else:
                pause = self.poll
                if free:
                    yield TriggerEvent({"status": "free", "message": ""})  # type: ignore[no-untyped-call]
                    return
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311  no secret
