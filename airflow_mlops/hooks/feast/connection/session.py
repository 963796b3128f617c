"""Opening Feast: its import, its registry, and what its errors mean."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import FeatureStoreError, FeatureStoreUnavailableError, MLOpsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from feast import FeatureStore

    from airflow_mlops.hooks.feast.connection.config import FeastSettings

__all__ = ["feast_errors", "import_feast", "open_feast", "registry_name"]

log = logging.getLogger(__name__)

_SQLITE = "sqlite:///"
_OUR_S3 = "airflow_mlops.hooks.feast.connection.registry_s3.ConnectionS3RegistryStore"
_LOGIN = ("password authentication failed", "access denied for user", "no password supplied", 'role "')
_WARNED: set[str] = set()
#: More than the tables of a SQL registry: each can be met half made once.
_TABLES_AT_MOST = 50

#: Words in the names of modules of Feast's other stores, by what a user installs for them.
_EXTRAS = {"spark": "spark", "psycopg": "postgres", "postgres": "postgres"}
_FEAST_EXTRAS = {
    "snowflake": "snowflake",
    "google": "gcp",
    "mysql": "mysql",
    "pymysql": "mysql",
    "trino": "trino",
    "redis": "redis",
    "ray": "ray",
    "dask": "dask",
}


def import_feast() -> ModuleType:
    """Import Feast without instrumenting it: typeguard costs as much time as all the rest of Feast.

    Its checks are about how repositories are written; here one is only read.
    """
    if "feast" in sys.modules:
        return sys.modules["feast"]
    try:
        typeguard: Any = importlib.import_module("typeguard")
    except ImportError:  # nothing to leave out
        return importlib.import_module("feast")
    checked = typeguard.typechecked
    typeguard.typechecked = lambda target=None, **_: target if target is not None else lambda inner: inner
    try:
        return importlib.import_module("feast")
    finally:
        typeguard.typechecked = checked


def open_feast(settings: FeastSettings, *, create: bool = False) -> FeatureStore:
    """The feature store of these settings.

    :param create: whether a registry that is not there yet is made, empty.
    :raises FeatureStoreError: configuration or registry are missing or broken.
    :raises FeatureStoreUnavailableError: the registry does not answer.
    """
    _refuse_ray(settings)
    if (settings.config.get("offline_store") or {}).get("type") == "postgres":
        # A time without zone is UTC, not whatever zone the server is in; Feast has no setting for it.
        os.environ.setdefault("PGTZ", "UTC")
    feast = import_feast()
    _mask(settings)
    with feast_errors(settings.where, settings):
        config = importlib.import_module("feast.repo_config").RepoConfig(**settings.config)
        config.repo_path = settings.repo
        registry = config.registry
    _settle_registry(registry, settings, create=create)
    with feast_errors(settings.where, settings):
        store: FeatureStore = feast.FeatureStore(
            config=config, repo_path=str(settings.repo) if settings.repo else None
        )
        _open_registry(store)
    return store


def _open_registry(store: FeatureStore) -> None:
    """Open the registry, which makes what is missing of its tables.

    Of several processes that meet an empty database at once, each finds tables that another one just made.
    """
    for _ in range(_TABLES_AT_MOST):
        try:
            _ = store.registry
        except Exception as error:
            if "already exists" not in str(error).lower():
                raise
        else:
            return
    _ = store.registry


@contextmanager
def feast_errors(where: str, settings: FeastSettings | None = None) -> Iterator[None]:
    """Translate what Feast and its registry's database raise, without their secrets.

    :param where: what was being done, for the message.
    """
    wrong: MLOpsError | None = None
    cause: BaseException | None = None
    try:
        yield
    except MLOpsError:
        raise
    except Exception as error:  # noqa: BLE001 - Feast raises ValueError, KeyError and its own errors alike
        wrong = _translate(where, error)
        text = str(wrong)
        shown = "".join(traceback.format_exception(error))
        if settings is not None:
            wrong = type(wrong)(settings.scrub(text))
        # A cause is printed with the error: it is left out when it says what may not be said.
        cause = error if settings is None or settings.scrub(shown) == shown else None
    if wrong is not None:
        raise wrong from cause


def registry_name(store: FeatureStore) -> str:
    """Where the registry is, without a login."""
    path = str(store.config.registry.path)
    if "@" not in path:
        return path
    scheme, _, rest = path.partition("://")
    return f"{scheme}://…@{rest.rpartition('@')[2].partition('?')[0]}"


def _translate(where: str, error: Exception) -> MLOpsError:
    module, kind = type(error).__module__.partition(".")[0], type(error).__name__
    said = str(getattr(error, "orig", None) or error).strip()
    lower = said.lower()
    if isinstance(error, ImportError) or kind == "FeastExtrasDependencyImportError":
        return FeatureStoreError(f"{where}: {said}. {_install(said)}")
    if any(word in lower for word in _LOGIN) and module in ("sqlalchemy", "psycopg"):
        return FeatureStoreError(
            f"{where}: the database refused the login ({said}). Check login and password of the connection"
        )
    if "database is locked" in lower:
        return FeatureStoreUnavailableError(
            f"{where}: the registry is locked by another process ({said}). Try again; a registry in "
            "PostgreSQL has no such lock"
        )
    text = f"{where}: {kind}: {said}"
    if module in ("sqlalchemy", "psycopg") and kind in ("OperationalError", "TimeoutError", "InterfaceError"):
        if "does not exist" in lower or "unable to open database file" in lower:
            return FeatureStoreError(f"{text}. Create it, or correct the connection")
        return FeatureStoreUnavailableError(f"{text}. Is it running, and reachable from this worker?")
    return FeatureStoreError(text)


def _install(said: str) -> str:
    for module, extra in _EXTRAS.items():
        if module in said:
            return f"Cure: pip install 'airflow-mlops[{extra}]'"
    for module, extra in _FEAST_EXTRAS.items():
        if module in said:
            return f"Cure: pip install 'feast[{extra}]'"
    return "Cure: install Feast's extra for this store"


def _refuse_ray(settings: FeastSettings) -> None:
    kind = str((settings.config.get("offline_store") or {}).get("type", ""))
    if kind == "ray" or kind.endswith(".RayOfflineStore"):
        raise FeatureStoreError(
            f"{settings.where}: the offline store ray ignores the time to live of feature views and picks any of "
            "several rows with equal time, so its training sets hold values that were not valid. Name another "
            "store: airflow_mlops.AsofOfflineStore on one machine, spark on several"
        )


def _mask(settings: FeastSettings) -> None:
    """Have Airflow leave the secrets out of task logs, in every spelling."""
    from airflow_mlops.hooks.connections.masking import hide_texts
    from airflow_mlops.hooks.feast.connection.config import SHORTEST

    hide_texts(settings.secrets, SHORTEST)


def _settle_registry(registry: Any, settings: FeastSettings, *, create: bool) -> None:
    path = str(registry.path)
    if path.startswith(_SQLITE):
        file = Path(path.removeprefix(_SQLITE))
        # Writers of one SQLite file wait for each other; five seconds are too few for three of them.
        options = dict(registry.sqlalchemy_config_kwargs)
        options.setdefault("connect_args", {"timeout": 60})
        registry.sqlalchemy_config_kwargs = options
    elif path.startswith("s3://") and registry.registry_store_type is None:
        registry.registry_store_type = _OUR_S3
        return
    elif registry.registry_type == "file" and "://" not in path:
        file = Path(path) if Path(path).is_absolute() else (settings.repo or Path()) / path
    else:
        if registry.registry_type == "file":
            _warn_of_lost_updates(path)
        return
    if registry.registry_type == "file":
        _warn_of_lost_updates(path)
    if not file.is_file():
        if not create:
            raise FeatureStoreError(f"{settings.where}: registry {file} does not exist; {settings.cure}")
        file.parent.mkdir(parents=True, exist_ok=True)


def _warn_of_lost_updates(path: str) -> None:
    if path in _WARNED:
        return
    _WARNED.add(path)
    log.warning(
        "Feast registry %s is a file that every change writes as a whole: of two changes at once one is lost. "
        "Name an SQL registry instead (registry_type: sql; SQLite or PostgreSQL)",
        path,
    )
