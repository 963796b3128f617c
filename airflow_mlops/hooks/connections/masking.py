"""Texts of connections that nothing of this process may show: masked in logs, left out of messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.sdk import log
from airflow.sdk.log import amask_secret, mask_secret

from airflow_mlops.primitives.texts.secrets import (
    SHORTEST,
    inner_secrets,
    secret_texts,
    sensitive_texts,
    spellings,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow.sdk import Connection

__all__ = ["connection_texts", "hide_connection", "hide_texts", "hide_texts_async", "without_known_secrets"]

#: Characters of a spelling that this process's masker gets; a longer text is masked in its lines, and as it is.
LONGEST = 16 * 1024
#: Every spelling of what this process was told to hide.
_KNOWN: set[str] = set()


def hide_texts(texts: Iterable[str], shortest: int = SHORTEST) -> tuple[str, ...]:
    """Let no log and no message of this process show these texts, in any spelling.

    :return: all spellings, the longest first.
    """
    texts = list(texts)
    hidden = _remember(texts, shortest)
    for text in _wholes(texts):
        mask_secret(text)
    return hidden


async def hide_texts_async(texts: Iterable[str]) -> tuple[str, ...]:
    """As :func:`hide_texts`, for the triggerer's event loop."""
    texts = list(texts)
    hidden = _remember(texts)
    for text in _wholes(texts):
        await amask_secret(text)
    return hidden


def hide_connection(connection: Connection) -> Connection:
    """Let no log and no message of this process show what is secret in a connection that it works with itself.

    Beside the password that is what the names in the extra say, and passwords in its addresses.
    """
    texts = [
        *secret_texts(connection.password or ""),
        *inner_secrets(connection.host or ""),
        *sensitive_texts(connection.extra_dejson),
    ]
    _remember([text for text in texts if text])
    return connection


def without_known_secrets(value: Any) -> Any:
    """A text, or all texts of a JSON value, without what this process was told to hide: for what goes beyond logs."""
    if not _KNOWN:
        return value
    return _without(value, sorted(_KNOWN, key=len, reverse=True))


def connection_texts(connection: Connection) -> Iterator[str]:
    """What is secret in a connection: its password, and every text of its extra."""
    if connection.password:
        yield from secret_texts(connection.password)
        # As a header of HTTP encodes it.
        yield f"{connection.login or ''}:{connection.password}"
    yield from inner_secrets(connection.host or "")
    extra = connection.extra_dejson
    yield from secret_texts(extra)
    if connection.extra and not extra:  # no JSON, or an empty one
        yield connection.extra


def _without(value: Any, hidden: Sequence[str]) -> Any:
    if isinstance(value, str):
        return without(value, hidden)
    if isinstance(value, dict):
        return {_without(key, hidden): _without(inner, hidden) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without(inner, hidden) for inner in value)
    return value


def _remember(texts: Sequence[str], shortest: int = SHORTEST) -> tuple[str, ...]:
    hidden = spellings(texts, shortest)
    new = [text for text in hidden if text not in _KNOWN]
    _KNOWN.update(new)
    if new:
        _mask_at_once([text for text in new if SHORTEST <= len(text) <= LONGEST])
    return hidden


def _mask_at_once(texts: Sequence[str]) -> None:
    """Give many texts to the masker of this process's logs.

    One by one, it would compile all of its patterns again for each: seconds for one private key.
    """
    # There is no other way to hand over more than one.
    masker = log._secrets_masker()  # type: ignore[attr-defined]  # noqa: SLF001
    masker.patterns.update(re.escape(text) for text in texts)
    masker.replacer = re.compile("|".join(sorted(masker.patterns, key=len, reverse=True)))


def _wholes(texts: Iterable[str]) -> list[str]:
    """What the supervisor masks too, in what a task prints past its log."""
    return sorted({text for text in texts if len(text) >= SHORTEST})
