"""Feast, as far as provisioning needs it: which services there are, and their training sets."""

from __future__ import annotations

import difflib
import importlib
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from airflow_mlops.exceptions import FeatureStoreError, MLOpsError, SourceError
from airflow_mlops.primitives.provisioning.dataset import TrainingSet
from airflow_mlops.primitives.provisioning.point_in_time import SEMANTICS
from airflow_mlops.primitives.provisioning.sources import find_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from feast import FeatureService, FeatureStore, FeatureView

__all__ = ["FeastHook"]

_SQLITE = "sqlite:///"


class FeastHook(BaseHook):
    """
    Speaks to one Feast repository.

    The connection's extra holds ``{"repo_path": "/opt/airflow/features"}``, the folder of
    ``feature_store.yaml`` as the workers see it; its host may hold the path instead.

    :param feast_conn_id: Airflow connection of type ``feast``.
    """

    conn_name_attr = "feast_conn_id"
    default_conn_name = "feast_default"
    conn_type = "feast"
    hook_name = "Feast"

    def __init__(self, feast_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.feast_conn_id = feast_conn_id
        self._store: FeatureStore | None = None

    @property
    def repo_path(self) -> Path:
        """Folder of ``feature_store.yaml``.

        :raises FeatureStoreError: the connection names none, or nothing is there.
        """
        connection = self.get_connection(self.feast_conn_id)
        text = connection.extra_dejson.get("repo_path") or connection.host
        if not text:
            raise FeatureStoreError(
                f'connection {self.feast_conn_id!r}: set the extra {{"repo_path": "…"}} to the folder of '
                "feature_store.yaml"
            )
        path = Path(text).expanduser()
        if not (path / "feature_store.yaml").is_file():
            raise FeatureStoreError(
                f"connection {self.feast_conn_id!r}: {path} has no feature_store.yaml on this worker; "
                "set repo_path to the folder that has it"
            )
        return path

    def store(self) -> FeatureStore:
        """The feature store, its registry being there. Opened once.

        :raises FeatureStoreError: configuration or registry are missing or broken.
        """
        if self._store is None:
            repo = self.repo_path
            feast = _import_feast()
            with _feast_errors(f"Feast repository {repo}"):
                config = importlib.import_module("feast.repo_config").load_repo_config(
                    repo, repo / "feature_store.yaml"
                )
                _settle_registry(config, repo)
                self._store = feast.FeatureStore(config=config, repo_path=str(repo))
        return self._store

    def service(self, name: str) -> FeatureService:
        """The feature service of this name.

        :raises FeatureStoreError: there is none; the message names the known ones.
        """
        store = self.store()
        where = f"registry {_registry_name(store)}, project {store.project!r}"
        with _feast_errors(where):
            known = {service.name: service for service in store.list_feature_services()}
        if name in known:
            return known[name]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise FeatureStoreError(
            f"no feature service {name!r} in {where}; known are {', '.join(sorted(known)) or 'none'}{hint} "
            f"If it is new, run `feast apply` in {self.repo_path}"
        )

    def entity_columns(self, feature_service: str) -> tuple[str, ...]:
        """Columns that examples must bring along for this service: join keys, and data of on-demand views."""
        views, on_demand = self._views(self.service(feature_service))
        names = [
            view.projection.join_key_map.get(key.name, key.name)
            for view in views
            for key in view.entity_columns
            if key.name != "__dummy_id"
        ]
        names += [name for view in on_demand for name in view.get_request_data_schema()]
        return tuple(dict.fromkeys(names))

    def training_set(self, feature_service: str, entity_sql: str, destination: Path) -> TrainingSet:
        """Join the features of a service to examples, as they were known at each example's time.

        With our own offline store (:mod:`airflow_mlops.hooks.feast_asof`) the rows are streamed; with
        any other one that ``feature_store.yaml`` names, Feast's own join is used.

        :param feature_service: name of the service.
        :param entity_sql: DuckDB query of the examples: join keys, ``event_timestamp``, and anything else
            that the result shall carry along.
        :param destination: Parquet file to write.
        """
        service = self.service(feature_service)
        references = {
            feature.name: f"{projection.name_to_use()}:{feature.name}"  # type: ignore[no-untyped-call]
            for projection in service.feature_view_projections
            for feature in projection.features
        }
        with _feast_errors(f"feature service {feature_service!r}"):
            if self._is_ours():
                return self._join_ours(service, entity_sql, destination, references)
            return self._join_by_feast(service, entity_sql, destination, references)

    def test_connection(self) -> tuple[bool, str]:
        """Open the registry and count what is in it."""
        try:
            store = self.store()
            with _feast_errors("registry"):
                services = len(store.list_feature_services())
        except MLOpsError as error:
            return False, str(error)
        return True, f"Project {store.project!r} in {_registry_name(store)}: {services} feature service(s)"

    def _is_ours(self) -> bool:
        from airflow_mlops.hooks.feast_asof import AsofOfflineStoreConfig

        return isinstance(self.store().config.offline_store, AsofOfflineStoreConfig)

    def _join_ours(
        self, service: FeatureService, entity_sql: str, destination: Path, references: dict[str, str]
    ) -> TrainingSet:
        job: Any = self.store().get_historical_features(entity_df=entity_sql, features=service)
        try:
            rows = job.to_parquet(destination)
        finally:
            job.close()
        return TrainingSet(
            path=destination,
            rows=rows,
            references=references,
            views=tuple(view.to_json() for view in job.views),
            semantics=SEMANTICS,
            files=tuple(dict.fromkeys(path for view in job.views for path in view.paths)),
        )

    def _join_by_feast(
        self, service: FeatureService, entity_sql: str, destination: Path, references: dict[str, str]
    ) -> TrainingSet:
        import duckdb
        import pyarrow.parquet as pq

        store = self.store()
        kind = str(store.config.offline_store.type)
        with duckdb.connect() as connection:
            entities = connection.execute("SET TimeZone='UTC'").execute(entity_sql).df()
        created = bool(store._get_provider().offline_store.supports_filter_by_created_timestamp)  # noqa: SLF001
        if not created:
            self.log.warning("Offline store %s cannot leave out features that were created later", kind)
        job = store.get_historical_features(
            entity_df=entities, features=service, filter_by_created_timestamp=created
        )
        table = job.to_arrow()
        pq.write_table(table, destination, compression="zstd")
        views, _ = self._views(service)
        return TrainingSet(
            path=destination,
            rows=table.num_rows,
            references=references,
            views=tuple({"name": view.name, "ttl_seconds": _seconds(view)} for view in views),
            semantics=f"feast:{kind}",
            files=tuple(dict.fromkeys(path for view in views for path in _local_files(view, self.repo_path))),
        )

    def _views(self, service: FeatureService) -> tuple[list[FeatureView], list[Any]]:
        from feast import utils

        store = self.store()
        with _feast_errors(f"feature service {service.name!r}"):
            views, on_demand = utils._get_feature_views_to_use(store.registry, store.project, service)  # noqa: SLF001
        return views, on_demand


def _import_feast() -> ModuleType:
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


@contextmanager
def _feast_errors(where: str) -> Iterator[None]:
    """Translate what Feast and its registry's database raise."""
    try:
        yield
    except MLOpsError:
        raise
    except Exception as error:  # Feast raises ValueError, KeyError and its own errors alike
        module = type(error).__module__.partition(".")[0]
        wrong = FeatureStoreError(f"{where}: {type(error).__name__}: {error}")
        wrong.retriable = module == "sqlalchemy" and type(error).__name__ in (
            "OperationalError",
            "TimeoutError",
        )
        raise wrong from error


def _settle_registry(config: Any, repo: Path) -> None:
    """Make a relative SQLite path one of the repository, as for Feast's own CLI, and see that it is there."""
    registry = config.registry
    path = str(registry.path)
    if path.startswith(_SQLITE):
        file = Path(path.removeprefix(_SQLITE))
        if not file.is_absolute():
            file = repo / file
            registry.path = f"{_SQLITE}{file}"
    elif registry.registry_type == "file" and "://" not in path:
        file = Path(path) if Path(path).is_absolute() else repo / path
    else:
        return
    if not file.is_file():
        raise FeatureStoreError(
            f"Feast repository {repo}: registry {file} does not exist; run `feast apply` in {repo}"
        )


def _registry_name(store: FeatureStore) -> str:
    path = str(store.config.registry.path)
    if "@" not in path:
        return path
    scheme, _, rest = path.partition("://")
    return f"{scheme}://…@{rest.rpartition('@')[2]}"


def _seconds(view: FeatureView) -> float:
    return view.ttl.total_seconds() if view.ttl else 0.0


def _local_files(view: FeatureView, repo: Path) -> tuple[str, ...]:
    path = getattr(view.batch_source, "path", None)
    if not isinstance(path, str) or "://" in path:
        return ()
    try:
        return find_files(path, repo)
    except SourceError:
        return ()
