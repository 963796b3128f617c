"""Airflow connections for the model code: read in the worker, masked in every log, handed over as files."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, log
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import amask_secret, mask_secret

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.hooks.connections import missing_connection
from airflow_mlops.primitives.secrets import (
    SHORTEST,
    inner_secrets,
    secret_texts,
    sensitive_texts,
    spellings,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow.sdk import Connection

__all__ = [
    "connection_texts",
    "hide_connection",
    "hide_texts",
    "mask_secrets",
    "mask_secrets_async",
    "secret_documents",
    "without_known_secrets",
    "without_secrets",
]

#: Characters of a spelling that this process's masker gets; a longer text is masked in its lines, and as it is.
LONGEST = 16 * 1024
#: Every spelling of what this process was told to hide.
_KNOWN: set[str] = set()


def secret_documents(secrets: Mapping[str, str]) -> dict[str, bytes]:
    """What the model code reads as ``input/secrets/<name>.json``.

    :param secrets: name → Airflow connection.
    :return: name → JSON of ``conn_type``, ``host``, ``port``, ``schema``, ``login``, ``password`` and ``extra``.
    :raises RunnerError: when there is no such connection; a retriable one when Airflow does not say.
    """
    return {name: _document(_connection(name, conn_id)) for name, conn_id in secrets.items()}


def mask_secrets(secrets: Mapping[str, str]) -> tuple[str, ...]:
    """Let no log of this process show a password, or any text of an extra, of these connections.

    :return: those texts in every spelling, for places that Airflow does not mask.
    :raises RunnerError: as :func:`secret_documents`.
    """
    return hide_texts(_all_texts(secrets))


async def mask_secrets_async(secrets: Mapping[str, str]) -> tuple[str, ...]:
    """As :func:`mask_secrets`, for the triggerer."""
    texts: list[str] = []
    for name, conn_id in secrets.items():
        try:
            connection = await BaseHook.aget_connection(conn_id)
        except AirflowNotFoundException as error:
            # In a thread: the question blocks.
            raise await asyncio.to_thread(_missing, name, conn_id) from error
        texts += connection_texts(connection)
    hidden = _remember(texts)
    for text in _wholes(texts):
        await amask_secret(text)
    return hidden


def hide_texts(texts: Iterable[str], shortest: int = SHORTEST) -> tuple[str, ...]:
    """Let no log and no message of this process show these texts, in any spelling.

    :return: all spellings, the longest first.
    """
    texts = list(texts)
    hidden = _remember(texts, shortest)
    for text in _wholes(texts):
        mask_secret(text)
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


def without_secrets(text: str, secrets: Mapping[str, str]) -> str:
    """A text of the model code's without what the same connections say, for messages that go farther than logs.

    Where a connection cannot be read, nobody knows what to hide, and nothing of the text is shown.
    """
    if not text or not secrets:
        return text
    try:
        hidden = spellings(_all_texts(secrets))
    except RunnerError as error:
        return f"(left out, since what is secret in it is not known: {error})"
    return without(text, hidden)


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


def _all_texts(secrets: Mapping[str, str]) -> list[str]:
    return [
        text for name, conn_id in secrets.items() for text in connection_texts(_connection(name, conn_id))
    ]


def _connection(name: str, conn_id: str) -> Connection:
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise _missing(name, conn_id) from error


def _missing(name: str, conn_id: str) -> RunnerError:
    return missing_connection(conn_id, RunnerError, about=f"for the secret {name!r}")


def _document(connection: Connection) -> bytes:
    fields = ("conn_type", "host", "port", "schema", "login", "password")
    content = {field: getattr(connection, field) for field in fields}
    return json.dumps({**content, "extra": connection.extra_dejson}, indent=2).encode()
