"""Airflow connections: found and masked, or an error that says whether a retry may find them."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, TypeVar

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.quirks.connections import is_missing

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

__all__ = ["afind_connection", "find_connection", "missing_connection", "not_found"]

_CONN_ID = re.compile(r"conn_id `(.+?)`")
E = TypeVar("E", bound=MLOpsError)


def find_connection(conn_id: str, kind: type[MLOpsError], conn_type: str = "") -> Connection:
    """The Airflow connection of this id; what is secret in it is hidden from now on.

    :param kind: of the error.
    :param conn_type: what the connection should be, for the cure.
    :raises MLOpsError: of that kind, as :func:`missing_connection`.
    """
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    from airflow_mlops.hooks.connections.masking import hide_connection

    try:
        return hide_connection(BaseHook.get_connection(conn_id))
    except AirflowNotFoundException as error:
        raise missing_connection(conn_id, kind, conn_type) from error


async def afind_connection(conn_id: str, kind: type[MLOpsError], conn_type: str = "") -> Connection:
    """As :func:`find_connection`, for the triggerer's event loop."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    from airflow_mlops.hooks.connections.masking import hide_connection

    try:
        return hide_connection(await BaseHook.aget_connection(conn_id))
    except AirflowNotFoundException as error:
        # In a thread: the question blocks.
        raise await asyncio.to_thread(missing_connection, conn_id, kind, conn_type) from error


def missing_connection(conn_id: str, kind: type[E], conn_type: str = "", about: str = "") -> E:
    """The error for a connection that Airflow did not give: final only where Airflow says that it is not there.

    :param about: what it is for, such as ``for the secret 'warehouse'``.
    """
    named = f"connection {conn_id!r}{f' {about}' if about else ''}"
    missing = is_missing(conn_id)
    typed = f" of type {conn_type}" if conn_type else ""
    error = kind(
        f"There is no Airflow {named}. Cure: create one{typed} with this id (airflow connections add {conn_id}), or "
        "correct its name in the YAML."
        if missing
        else f"Airflow does not say what its {named} is. Cure: none is needed where its API server is away; the next "
        "try asks again."
    )
    error.retriable = not missing
    return error


def not_found(error: AirflowNotFoundException, kind: type[E], conn_type: str = "") -> E:
    """As :func:`missing_connection`, for what a provider's hook raised."""
    named = _CONN_ID.search(str(error))
    return missing_connection(named[1], kind, conn_type) if named else kind(str(error))
