"""Reasons to train as texts: one line for people, and short ids for the tags of runs and model versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from airflow_mlops.contract.protocol.storable import storable_text

if TYPE_CHECKING:
    from airflow_mlops.primitives.reasons.records import Reason

__all__ = ["WORDS_LIMIT", "carries", "describe", "short_ids"]

#: Characters of all reasons in words.
WORDS_LIMIT = 2000
#: Characters of a tag with ids that every back end of MLflow keeps.
TAG_LIMIT = 4_000


def describe(reasons: Iterable[Reason]) -> str:
    """One line for people: why this run trains."""
    lines = []
    for reason in reasons:
        evidence = reason.evidence
        detail = evidence.get("message") or evidence.get("why") or evidence.get("who") or ""
        lines.append(" ".join(f"{reason.kind}{': ' + str(detail) if detail else ''}".split()))
    return storable_text("; ".join(lines), WORDS_LIMIT)


def short_ids(ids: Iterable[str]) -> str:
    """Ids of reasons as a tag carries them: 12 characters of each one's SHA-256, with spaces between.

    More than a tag holds are one digest of all of them.
    """
    ids = list(ids)
    text = " ".join(_short(one) for one in ids)
    return text if len(text) <= TAG_LIMIT else f"all:{_short(' '.join(sorted(map(_short, ids))))}"


def carries(tag: str, ids: Iterable[str]) -> bool:
    """Whether a tag made by :func:`short_ids` names all of these ids."""
    return set(short_ids(ids).split()) <= set(tag.split())


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
