"""
From an Airflow connection to Feast's configuration.

The connection's extra names a repository (``repo_path``), or holds what ``feature_store.yaml`` would:
``project``, ``registry``, ``offline_store``, ``online_store`` and the rest. Both together are possible: the
extra is stronger. Where a registry or a store needs a login, it names another Airflow connection
(``{"connection": "feast_registry"}``), so that no secret stands in a file or in the extra.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.hooks.connections.find import missing_connection
from airflow_mlops.hooks.feast.connection.logins import registry_login, store_login
from airflow_mlops.primitives.texts.secrets import secret_texts, spellings, without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow.sdk import Connection

__all__ = ["OUR_STORE", "FeastSettings", "read_settings"]

#: Type of our own offline store in ``feature_store.yaml``, and the default of an inline connection.
OUR_STORE = "airflow_mlops.AsofOfflineStore"
#: Shorter names of it that a connection may use.
OUR_NAMES = ("asof", "airflow_mlops", OUR_STORE)

_FILE = "feature_store.yaml"
_SQLITE = "sqlite:///"
_PARTS = ("registry", "offline_store", "online_store")
_KEYS = (
    "repo_path",
    "project",
    "project_description",
    "provider",
    *_PARTS,
    "auth",
    "batch_engine",
    "coerce_tz_aware",
    "entity_key_serialization_version",
    "materialization",
)
_SECRET_WORDS = ("password", "secret", "token", "private_key", "passphrase", "api_key")
#: A shorter text is no secret, and leaving it out would make messages unreadable.
SHORTEST = 3


@dataclass(frozen=True)
class FeastSettings:
    """Feast's configuration, and what must never be shown of it.

    :param conn_id: id of the Airflow connection.
    :param config: arguments of Feast's ``RepoConfig``; they hold secrets.
    :param repo: folder of ``feature_store.yaml``, if there is one.
    :param secrets: texts that may not get into a log or a message.
    """

    conn_id: str
    config: dict[str, Any] = field(repr=False)
    repo: Path | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def where(self) -> str:
        """The store as messages name it."""
        if self.repo is not None:
            return f"Feast repository {self.repo}"
        return f"Feast connection {self.conn_id!r}"

    @property
    def cure(self) -> str:
        """How a user puts new definitions into the registry."""
        if self.repo is not None:
            return f"run `feast apply` in {self.repo}"
        return "apply its definitions with ApplyFeaturesOperator"

    def scrub(self, text: str) -> str:
        """The text without secrets, however they are spelled."""
        return without(text, spellings(self.secrets, SHORTEST))


def read_settings(connection: Connection, lookup: Callable[[str], Connection]) -> FeastSettings:
    """Read a connection of type ``feast``.

    :param lookup: finds another Airflow connection by its id.
    :raises FeatureStoreError: something is missing, unknown or cannot be meant.
    """
    conn_id = str(connection.conn_id)
    extra = _extra(connection, conn_id)
    text = extra.pop("repo_path", None) or connection.host
    repo = _repository(str(text), conn_id) if text else None
    config = {**(_read_yaml(repo) if repo else {"provider": "local"}), **extra}
    _check(config, conn_id, repo)
    config.setdefault("offline_store", {"type": OUR_STORE} if repo is None else {"type": "dask"})
    config.setdefault("entity_key_serialization_version", 3)
    if repo is None:  # Feast's own default would be an SQLite file in whatever folder the worker stands
        config.setdefault("online_store", None)
    for part in _PARTS:
        config[part] = _part(part, config.get(part), conn_id, lookup, repo)
    secrets = tuple(sorted(set(_secrets(config))))
    return FeastSettings(conn_id, config, repo, secrets)


def _extra(connection: Connection, conn_id: str) -> dict[str, Any]:
    """The extra, in which a form may have left JSON as text, and empty fields."""
    found = {}
    for key, value in dict(connection.extra_dejson or {}).items():
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise FeatureStoreError(
                f"connection {conn_id!r}: its extra has {key!r}, expected {', '.join(_KEYS)}{hint}"
            )
        if value not in (None, ""):
            found[key] = _parsed(key, value, conn_id)
    return found


def _parsed(key: str, value: Any, conn_id: str) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        # The text is not repeated: it may hold a secret.
        raise FeatureStoreError(f"connection {conn_id!r}: {key} is no JSON ({error})") from None


def _repository(text: str, conn_id: str) -> Path:
    path = Path(text).expanduser()
    if not (path / _FILE).is_file():
        raise FeatureStoreError(
            f"connection {conn_id!r}: {path} has no {_FILE} on this worker; set repo_path to the folder "
            "that has it, or give project, registry and offline_store in the connection instead"
        )
    return path


def _read_yaml(repo: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(os.path.expandvars((repo / _FILE).read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise FeatureStoreError(f"{repo / _FILE} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise FeatureStoreError(f"{repo / _FILE} holds {type(found).__name__}, expected keys and values")
    return found


def _check(config: Mapping[str, Any], conn_id: str, repo: Path | None) -> None:
    if missing := [key for key in ("project", "registry") if not config.get(key)]:
        where = f"{repo / _FILE}" if repo else f"connection {conn_id!r}"
        raise FeatureStoreError(
            f"{where} has no {' and no '.join(missing)}. Set the connection's extra repo_path to the folder "
            'of feature_store.yaml, or give {"project": "…", "registry": "…", "offline_store": {"type": "…"}} in it'
        )


def _part(part: str, value: Any, conn_id: str, lookup: Callable[[str], Connection], repo: Path | None) -> Any:
    """Registry or store, with its login filled in and its paths made absolute."""
    if isinstance(value, str):
        value = {"path": value} if part == "registry" else {"type": value}
    if not isinstance(value, dict):
        return value
    value, named = dict(value), None
    if "connection" in value:
        other_id = str(value.pop("connection"))
        named = _other(other_id, f"connection {conn_id!r}: {part}", lookup)
        login = registry_login if part == "registry" else store_login
        value = login(value, named, f"connection {conn_id!r}: {part}")
    if part == "offline_store" and value.get("type") in OUR_NAMES:
        value["type"] = OUR_STORE
        if repo is None:
            value.setdefault("aws_conn_id", "aws_default")
    if part == "registry":
        value.setdefault("registry_type", "sql" if "://" in _sql(str(value.get("path", ""))) else "file")
    return _absolute(part, value, conn_id, repo)


def _sql(path: str) -> str:
    """The path, if it is the URL of a database."""
    remote = ("s3://", "gs://", "hdfs://", "file://", "az://", "abfs://", "http://", "https://")
    return "" if path.startswith(remote) else path


def _other(other_id: str, where: str, lookup: Callable[[str], Connection]) -> Connection:
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return lookup(other_id)
    except AirflowNotFoundException as error:
        raise missing_connection(other_id, FeatureStoreError, about=f"that {where} names") from error


def _absolute(part: str, value: dict[str, Any], conn_id: str, repo: Path | None) -> dict[str, Any]:
    path = value.get("path")
    if not isinstance(path, str):
        return value
    sqlite = path.startswith(_SQLITE)
    if "://" in path and not sqlite:
        return value
    file = Path(path.removeprefix(_SQLITE))
    if not file.is_absolute():
        if repo is None:
            raise FeatureStoreError(
                f"connection {conn_id!r}: {part} has the relative path {file}, which no two workers understand "
                "in the same way; give an absolute one"
            )
        if part == "registry" and sqlite:  # as Feast's own command line, which works in the repository
            value["path"] = f"{_SQLITE}{repo / file}"
    return value


def _secrets(value: Any, key: str = "") -> Iterator[str]:
    """Every text in a configuration that is a password or holds one."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _secrets(inner, f"{key}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(inner, key)
    elif isinstance(value, str):
        found = value if any(word in key.lower() for word in _SECRET_WORDS) else _password(value)
        if len(found) >= SHORTEST:
            yield from secret_texts(found)
            yield unquote(found)


def _password(text: str) -> str:
    if inside := re.search(r"password=([^,;\s]+)", text):
        return inside[1]
    if "://" not in text:
        return ""
    try:
        return urlsplit(text).password or ""
    except ValueError:
        return ""
