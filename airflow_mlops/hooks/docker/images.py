"""Pulling images onto a Docker Engine: whose registry it is, who logs in, and what its refusals mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import ImageNotFoundError

if TYPE_CHECKING:
    from airflow_mlops.hooks.docker.address import EngineAddress
    from docker import APIClient

#: What an engine says, in part, of a registry that may answer the next time.
AWAY = (
    "connection refused",
    "connection reset",
    "i/o timeout",
    "no route to host",
    "network is unreachable",
    "deadline exceeded",
    "Client.Timeout",
    "toomanyrequests",
    "EOF",
    # With their words: a port, a tag or a digest may have the figures.
    "502 Bad Gateway",
    "503 Service Unavailable",
    "504 Gateway Time",
)
#: What an engine says, in part, when the registry wants another login.
UNAUTHORIZED = ("unauthorized", "no basic auth", "authentication required", "access denied", "denied: ")


def registry_of(reference: str) -> str:
    """Host and port of an image's registry; empty when its name says none."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""


def pull_image(client: APIClient, address: EngineAddress, reference: str, conn_id: str | None) -> None:
    """Pull an image, with the login of the connection when the image is in its registry.

    :param conn_id: the connection, for the message.
    :raises ImageNotFoundError: with the registry's own words; retriable when it does not answer.
    """
    from docker.errors import APIError

    login: dict[str, Any] | None = None
    given = address.registry
    if given and given.host == registry_of(reference):
        login = {"username": given.user, "password": given.password}
    try:
        for step in client.pull(reference, stream=True, decode=True, auth_config=login):
            if "error" in step:
                raise _refusal(address, reference, str(step["error"]), conn_id)
    except APIError as error:
        raise _refusal(address, reference, str(error.explanation), conn_id) from error


def _refusal(address: EngineAddress, reference: str, words: str, conn_id: str | None) -> ImageNotFoundError:
    away = any(part in words for part in AWAY)
    if any(part in words for part in UNAUTHORIZED):
        cure = (
            f"write host ({registry_of(reference)}), login and password of the registry into connection {conn_id!r}, or "
            "correct the image's name"
        )
    elif away:
        cure = f"start the registry {registry_of(reference)}, or let the engine's machine reach it"
    else:
        cure = f"correct the image's name, or push it; docker pull {reference} on that machine says more"
    refused = ImageNotFoundError(
        f"Image {reference!r} is not on the Docker Engine {address.url} and cannot be pulled: {words.strip()}. Cure: "
        f"{cure}."
    )
    refused.retriable = away
    return refused
