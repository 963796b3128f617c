"""Airflow connections for the model code: read in the worker, masked in every log, handed over as files."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.hooks.connections.find import missing_connection
from airflow_mlops.hooks.connections.masking import connection_texts, hide_texts, hide_texts_async
from airflow_mlops.primitives.texts.secrets import spellings, without

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Connection

__all__ = ["mask_secrets", "mask_secrets_async", "secret_documents", "without_secrets"]


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
    return await hide_texts_async(texts)


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
