"""Airflow connections for the model code: read in the worker, masked in every log, handed over as files."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import amask_secret, mask_secret

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.hooks.connections import is_missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow.sdk import Connection

#: Characters that a text must have to be hidden, as in Airflow's logs.
SHORTEST = 5


def secret_documents(secrets: Mapping[str, str]) -> dict[str, bytes]:
    """What the model code reads as ``input/secrets/<name>.json``.

    :param secrets: name → Airflow connection.
    :return: name → JSON of ``conn_type``, ``host``, ``port``, ``schema``, ``login``, ``password`` and ``extra``.
    :raises RunnerError: when there is no such connection; a retriable one when Airflow does not say.
    """
    return {name: _document(_connection(name, conn_id)) for name, conn_id in secrets.items()}


def mask_secrets(secrets: Mapping[str, str]) -> tuple[str, ...]:
    """Let no log of this process show a password, or any text of an extra, of these connections.

    :return: those texts, for places that Airflow does not mask.
    :raises RunnerError: as :func:`secret_documents`.
    """
    values = _all_values(secrets)
    for value in values:
        mask_secret(value)
    return _hidden(values)


def without_secrets(text: str, secrets: Mapping[str, str]) -> str:
    """A text of the model code's without what the same connections say, for messages that go farther than logs.

    Where a connection cannot be read, nobody knows what to hide, and nothing of the text is shown.
    """
    if not text or not secrets:
        return text
    try:
        hidden = _hidden(_all_values(secrets))
    except RunnerError as error:
        return f"(left out, since what is secret in it is not known: {error})"
    for value in hidden:
        text = text.replace(value, "***")
    return text


async def mask_secrets_async(secrets: Mapping[str, str]) -> tuple[str, ...]:
    """As :func:`mask_secrets`, for the triggerer."""
    values: list[str] = []
    for name, conn_id in secrets.items():
        try:
            connection = await BaseHook.aget_connection(conn_id)
        except AirflowNotFoundException as error:
            # In a thread: the question blocks.
            raise await asyncio.to_thread(_missing, name, conn_id) from error
        values += _values(connection)
    for value in values:
        await amask_secret(value)
    return _hidden(values)


def _all_values(secrets: Mapping[str, str]) -> list[str]:
    return [value for name, conn_id in secrets.items() for value in _values(_connection(name, conn_id))]


def _hidden(values: Iterable[str]) -> tuple[str, ...]:
    # The longest first: one may be a part of another.
    return tuple(sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True))


def _connection(name: str, conn_id: str) -> Connection:
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise _missing(name, conn_id) from error


def _missing(name: str, conn_id: str) -> RunnerError:
    if is_missing(conn_id):
        return RunnerError(
            f"There is no connection {conn_id!r} for the secret {name!r}. Cure: airflow connections add {conn_id}, or "
            "correct training.secrets."
        )
    away = RunnerError(
        f"Airflow does not say what connection {conn_id!r} for the secret {name!r} is. Cure: the next try asks again; "
        "look at its API server."
    )
    away.retriable = True
    return away


def _document(connection: Connection) -> bytes:
    fields = ("conn_type", "host", "port", "schema", "login", "password")
    content = {field: getattr(connection, field) for field in fields}
    return json.dumps({**content, "extra": connection.extra_dejson}, indent=2).encode()


def _values(connection: Connection) -> Iterator[str]:
    if connection.password:
        yield connection.password
        # As a model prints the file it has read.
        yield json.dumps(connection.password)[1:-1]
    yield from _texts([connection.extra_dejson])


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, dict):
            yield from _texts(value.values())
        elif isinstance(value, list):
            yield from _texts(value)
        elif isinstance(value, str) and value:
            yield value
