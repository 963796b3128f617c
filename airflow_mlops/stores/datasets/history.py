"""What came before on a line of development."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops.primitives.datasets.branches import MAIN, line_of_reference

if TYPE_CHECKING:
    from airflow_mlops.stores.datasets.versions import DatasetStore

__all__ = ["History", "previous_rows"]

_COMMITS = 100


class History:
    """What came before a published version.

    :param datasets: where it is.
    :param dataset_id: its id.
    """

    def __init__(self, datasets: DatasetStore, dataset_id: str) -> None:
        self.dataset_id = dataset_id
        self._there = set(datasets.ids())
        self._commits = datasets.commits()

    @property
    def line(self) -> str:
        """The line on which it was provisioned last."""
        refs = (str(record["ref"]) for record in self._commits if record["dataset_id"] == self.dataset_id)
        return line_of_reference(next(refs, "")) or MAIN

    def had(self, reference: str) -> bool:
        """Whether the reference points to it, or did so once."""
        return self.dataset_id in self._pointed(reference)

    def before(self, reference: str) -> list[str]:
        """Versions that the reference pointed to before it did to this one, newest first.

        All but this one where it never did; those that were removed since are not among them.
        """
        pointed = self._pointed(reference)
        last = pointed.index(self.dataset_id) + 1 if self.dataset_id in pointed else 0
        earlier = dict.fromkeys(pointed[last:])
        return [name for name in earlier if name != self.dataset_id and name in self._there]

    def _pointed(self, reference: str) -> list[str]:
        return [record["dataset_id"] for record in self._commits if record["ref"] == reference]


def previous_rows(datasets: DatasetStore, reference: str, count: int = 5) -> tuple[int, ...]:
    """Joined rows of the last versions that a reference pointed to, newest first."""
    keys = sorted(datasets.store.list(datasets.key("commits", "")), reverse=True)
    rows: dict[str, int] = {}
    # Names begin with the time. A line that rests longer than this begins anew.
    for key in keys[:_COMMITS]:
        record = datasets.store.read_json(key)
        if record and record.get("ref") == reference and isinstance(record.get("rows"), int):
            rows.setdefault(record["dataset_id"], record["rows"])
        if len(rows) == count:
            break
    return tuple(rows.values())
