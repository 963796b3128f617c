"""Lines of development: which reference of a dataset belongs to which line, and what came before on it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_mlops.hooks.datasets import DatasetStore
    from airflow_mlops.primitives.provisioning.version import Purpose

__all__ = ["MAIN", "line_reference", "previous_rows"]

MAIN = "main"
"""The line that trains for production."""

_LINE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_COMMITS = 100


def line_reference(line: str, purpose: Purpose = "training") -> str:
    """Name of the reference that points to a line's newest version.

    :raises SpecError: it is no name of a line.
    """
    if not _LINE.fullmatch(line) or line == "latest":
        raise SpecError(
            f"line {line!r}: expected up to 63 lower-case letters, digits, _, - and ., beginning with a letter or "
            "a digit, and not latest; for example new-weather"
        )
    name = "latest" if purpose == "training" else "latest-prediction"
    return name if line == MAIN else f"{line}/{name}"


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
