"""Waiting for Airflow as long as anything goes on there, and saying what that is."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from airflow_mlops.cli.demo.client import AirflowAwayError, AirflowClient
from airflow_mlops.cli.demo.home import DemoError

__all__ = ["Waiting"]

#: Seconds between two looks, between two looks at what else goes on, and between two lines that say it.
LOOK, OBSERVE, SAY = 0.5, 5.0, 60.0
#: Who has to be well for a task in this state to go on.
NEEDS = {"running": "scheduler", "deferred": "triggerer"}
_T = TypeVar("_T")


class Waiting:
    """
    Waits for one thing after the other, however busy the machine is.

    A wait ends without success only when for ``patience`` seconds nothing has moved: no task ran or was deferred under a
    living scheduler and triggerer, no task changed its state, and no log grew. How long a task may run is for its own
    limits to say.

    :param client: the running Airflow.
    :param logs: folder of the tasks' logs.
    :param say: prints one line of progress.
    :param patience: seconds without any progress.
    """

    def __init__(
        self, client: AirflowClient, logs: Path, say: Callable[[str], None], patience: float
    ) -> None:
        self._client, self._logs, self._say = client, logs, say
        self._patience = patience
        self._seen: Any = None
        self._doing = "nothing is known of Airflow yet"

    def until(self, what: str, look: Callable[[], _T | None]) -> _T:
        """What ``look`` finds, as soon as it finds something.

        :raises DemoError: nothing has moved for too long.
        """
        moved = said = time.monotonic()
        observed = 0.0
        while True:
            try:
                if found := look():
                    return found
                if time.monotonic() - observed >= OBSERVE:
                    observed = time.monotonic()
                    if self._moves():
                        moved = observed
            except AirflowAwayError as error:
                self._doing = str(error)
            now = time.monotonic()
            if now - moved > self._patience:
                raise DemoError(self._gave_up(what))
            if now - said >= SAY:
                said = now
                self._say(f"waiting for {what}: {self._doing}")
            time.sleep(LOOK)

    def _moves(self) -> bool:
        """Whether anything goes on, or has changed since the last look."""
        tasks, health = self._client.active_tasks(), self._client.health()
        self._doing = ", ".join(map(_words, tasks)) or "no task is about to run"
        ill = sorted(part for part in set(NEEDS.values()) if health.get(part) != "healthy")
        if ill:
            self._doing += f" (Airflow's {' and '.join(ill)} gave no sign of life lately)"
        before, self._seen = self._seen, (tasks, health, _size(self._logs))
        at_work = any(NEEDS.get(task["state"], "") not in ("", *ill) for task in tasks)
        return at_work or before != self._seen

    def _gave_up(self, what: str) -> str:
        return (
            f"nothing has moved for {self._patience:.0f} s while it waited for {what}: {self._doing}. Logs: {self._logs}. "
            "Cure: run it again, it goes on where it was; on a machine that is busy otherwise say --patience with more "
            "seconds"
        )


def _words(task: dict[str, Any]) -> str:
    """A task as people read it: where it is, and since when."""
    since = f" for {_seconds(task['start_date']):.0f} s" if task.get("start_date") else ""
    more = f", try {task['try_number']}" if (task.get("try_number") or 0) > 1 else ""
    return f"{task['dag_id']} {task['task_id']} is {task['state']}{since}{more}"


def _seconds(moment: str) -> float:
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*.log*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
