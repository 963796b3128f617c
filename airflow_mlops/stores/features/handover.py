"""What the tasks of one run of a feature pipeline hand to each other, in the artifact store."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from airflow_mlops.hooks.store.base import Store

__all__ = ["Staging"]

#: A run that began this long ago and was not published is given up.
OLDEST = timedelta(days=7)


class Staging:
    """The staged files of one run, below ``features/<name>/staging/<run>/``.

    Each step keeps its files under names of their own and then writes one record of them, which is what
    makes them exist: a try that died leaves nothing that another try would take for its own.

    :param run: name of the run; the same for a retry, another after a Clear.
    """

    def __init__(self, store: Store, name: str, run: str) -> None:
        self.store = store
        self.root = f"features/{name}/staging/{run}"

    @classmethod
    def at(cls, store: Store, staged: str) -> Staging:
        """The staging that a step's result names.

        :param staged: ``staged`` of what the step returned.
        """
        parts = staged.split("/")
        if len(parts) != 5 or parts[0] != "features" or parts[2] != "staging":
            raise StoreError(
                f"{staged!r} names no staged files: expected features/<name>/staging/<run>/<step>"
            )
        return cls(store, parts[1], parts[3])

    def check_writable(self) -> None:
        """Find out whether rows can be staged, before they are read.

        :raises StoreError: nothing can be written.
        """
        self.store.check_writable(self.root.rpartition("/staging/")[0])

    def settle(self, window: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        """Fix what the run reads, unless an earlier try has fixed it: every try reads the same."""
        key = f"{self.root}/window.json"
        self.store.put_json_if_absent(key, {"window": dict(window), "started": now.isoformat()})
        return dict(self.store.read_json(key))

    def settled(self) -> dict[str, Any] | None:
        """What an earlier try has fixed: ``window`` and ``started``."""
        found: dict[str, Any] | None = self.store.read_json(f"{self.root}/window.json")
        return found

    def record(self, step: str) -> dict[str, Any] | None:
        """What a step has kept; ``None`` when it has not finished."""
        found: dict[str, Any] | None = self.store.read_json(f"{self.root}/{step}.json")
        return found

    def keep(self, step: str, files: Sequence[Path], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Put a step's files into the store, and return what the task returns for them.

        :param facts: JSON values that the later steps need.
        """
        place = f"{self.root}/{step}/{uuid.uuid4().hex}"
        keys = [f"{place}/{number:05d}.parquet" for number in range(len(files))]
        for key, file in zip(keys, files, strict=True):
            self.store.put_if_absent(key, file)
        record = {**facts, "staged": f"{self.root}/{step}", "files": keys}
        self.store.put_json_if_absent(f"{self.root}/{step}.json", record)
        return self.result(step)

    def result(self, step: str) -> dict[str, Any]:
        """What the task of a step returns: its record, with the number of files instead of their names.

        :raises StoreError: the step has kept nothing, or it was cleaned.
        """
        record = self._needed(step)
        return {**record, "files": len(record["files"])}

    def files(self, step: str, scratch: Path) -> list[Path]:
        """Local files of a step; they must not be changed.

        :raises StoreError: they are gone.
        """
        return [self.store.local(key, scratch) for key in self._needed(step)["files"]]

    def clean(self) -> None:
        """Remove everything of this run."""
        # The records before their files, which must not pass for whole; the date that finds the rest again last.
        dated = f"{self.root}/window.json"
        keys = [key for key in self.store.list(f"{self.root}/") if key != dated]
        for key in [*sorted(keys, key=lambda key: not key.endswith(".json")), dated]:
            self.store.delete(key)

    def clean_older(self, now: datetime) -> int:
        """Remove what other runs left behind that began long ago.

        :return: how many of them.
        """
        parent = self.root.rpartition("/")[0]
        runs = sorted({key[len(parent) + 1 :].split("/")[0] for key in self.store.list(f"{parent}/")})
        old = [run for run in runs if self._older(f"{parent}/{run}", now)]
        for run in old:
            if f"{parent}/{run}" != self.root:
                Staging.at(self.store, f"{parent}/{run}/any").clean()
        return len(old)

    def _older(self, root: str, now: datetime) -> bool:
        data = self.store.read(f"{root}/window.json")
        if data is None:
            return False
        started = datetime.fromisoformat(json.loads(data)["started"])
        return now - started.astimezone(UTC) > OLDEST

    def _needed(self, step: str) -> dict[str, Any]:
        record = self.record(step)
        if record is None:
            raise StoreError(
                f"{self.store.address(f'{self.root}/{step}.json')} is gone: what a run staged is removed when it is "
                f"published, and {OLDEST.days} days after it began. Cure: clear the extract task of this run"
            )
        return record
