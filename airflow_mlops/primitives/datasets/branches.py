"""Lines of development: which reference of a dataset belongs to which line."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_mlops.primitives.datasets.manifest import Purpose

__all__ = ["MAIN", "line_name", "line_of_reference", "line_reference"]

MAIN = "main"
"""The line that trains for production."""

_LONGEST = 63
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


def line_of_reference(reference: str) -> str | None:
    """The line to whose newest version this reference points; ``None`` where it is none of a line."""
    line, _, name = reference.rpartition("/")
    return (line or MAIN) if name in ("latest", "latest-prediction") else None


def line_name(*parts: str | None) -> str:
    """A line called after a feature service, an image, or both; ``main`` when there is neither.

    :param parts: what it is called after, such as ``registry:5000/app@sha256:…``.
    """
    said = "-".join(part for part in parts if part).lower()
    if not said:
        return MAIN
    said = re.sub(r"sha256:([0-9a-f]{12})[0-9a-f]*", r"\1", said)
    name = re.sub(r"[^a-z0-9_.-]+", "-", said).lstrip("_.-")
    if name in ("", MAIN, "latest"):
        return f"line-{name}".rstrip("-")
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 13]}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
