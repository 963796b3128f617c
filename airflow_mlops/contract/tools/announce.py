"""Tells an Airflow that there is new model code: an event on the application's code asset, as a CI job posts it."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from airflow_mlops.contract.protocol.documents import json_text
from airflow_mlops.contract.protocol.storable import storable

_SECONDS = 30
#: The login: a token, or a user and a password to get one with.
TOKEN, USER, PASSWORD = "AIRFLOW_TOKEN", "AIRFLOW_USER", "AIRFLOW_PASSWORD"


class AnnouncementError(Exception):
    """The event could not be posted."""


def announce(
    airflow: str, application: str, extra: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> int:
    """Post the event, and return its id; its training DAG starts within seconds, for the reason ``new_code``.

    :param airflow: address of the API server, as ``https://airflow.example.com``.
    :param application: name of the application.
    :param extra: what to say of the code: image, digest, commit, message; made storable first.
    :param environment: holds ``AIRFLOW_TOKEN``, or ``AIRFLOW_USER`` and ``AIRFLOW_PASSWORD``.
    :raises AnnouncementError: Airflow does not answer, refuses, or knows no such application.
    """
    if not airflow.startswith(("https://", "http://")):
        raise AnnouncementError(
            f"The address of Airflow must begin with https:// or http://, got {airflow!r}."
        )
    airflow = airflow.rstrip("/")
    token = environment.get(TOKEN) or _token(airflow, environment)
    name = f"{application}.code"
    query = urllib.parse.urlencode({"name_pattern": name, "limit": 100})
    assets = _call("GET", f"{airflow}/api/v2/assets?{query}", token)["assets"]
    number = next((asset["id"] for asset in assets if asset["name"] == name), None)
    if number is None:
        raise AnnouncementError(
            f"{airflow} knows no asset {name}, or this user may not see it. Cure: look at the application's name, and "
            f"whether its DAG {application}__training is there and active."
        )
    content = {"asset_id": number, "extra": storable({"reason": "new_code", **extra})}
    return int(_call("POST", f"{airflow}/api/v2/assets/events", token, content)["id"])


def _token(airflow: str, environment: Mapping[str, str]) -> str:
    user, password = environment.get(USER), environment.get(PASSWORD)
    if not user or not password:
        raise AnnouncementError(f"There is no login. Cure: set {TOKEN}, or {USER} and {PASSWORD}.")
    return str(
        _call("POST", f"{airflow}/auth/token", "", {"username": user, "password": password})["access_token"]
    )


def _call(method: str, url: str, token: str, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(  # noqa: S310 - http and https only, see above
        url, None if content is None else json_text(content).encode(), headers, method=method
    )
    where = urllib.parse.urlsplit(url).path
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        said = error.read(500).decode(errors="replace")
        raise AnnouncementError(f"Airflow refuses {method} {where} with HTTP {error.code}: {said}") from error
    except (OSError, ValueError) as error:
        raise AnnouncementError(f"Airflow does not answer {method} {where}: {error}") from error
