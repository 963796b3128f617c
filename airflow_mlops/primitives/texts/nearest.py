"""Of many names, those that somebody may have meant."""

from __future__ import annotations

from bisect import bisect
from difflib import SequenceMatcher
from heapq import nlargest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["nearest_of"]

#: Names on each side of the wanted one that are compared letter by letter.
_COMPARED = 1000


def nearest_of(names: Iterable[str], wanted: str) -> str:
    """The ten names most like the wanted one, sorted, and how many more there are; for messages."""

    def alike(name: str) -> float:
        return SequenceMatcher(None, wanted.lower(), name.rstrip("/").lower()).ratio()

    ordered = sorted(names)
    place = bisect(ordered, wanted)
    shown = sorted(nlargest(10, ordered[max(0, place - _COMPARED) : place + _COMPARED], key=alike))
    if len(ordered) > len(shown):
        shown.append(f"… ({len(ordered) - len(shown)} more)")
    return ", ".join(shown) or "nothing"
