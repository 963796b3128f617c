"""What came before on a line of development."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_mlops.hooks.datasets.versions import DatasetStore

__all__ = ["previous_rows"]

_COMMITS = 100


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
