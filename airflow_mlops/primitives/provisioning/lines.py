"""Lines of development: which reference of a dataset belongs to which line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_mlops.primitives.provisioning.versions.manifest import Purpose

__all__ = ["MAIN", "line_reference"]

MAIN = "main"
"""The line that trains for production."""

_LINE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


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
