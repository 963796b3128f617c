"""Feast as provisioning needs it: which services there are, their training sets, and how new the features are."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from airflow_mlops.exceptions import FeatureStoreError, MLOpsError, SourceError
from airflow_mlops.hooks.connections.find import find_connection
from airflow_mlops.hooks.feast.connection.config import OUR_STORE, FeastSettings, read_settings
from airflow_mlops.hooks.feast.connection.session import feast_errors, import_feast, open_feast, registry_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from feast import FeatureService, FeatureStore, FeatureView

    from airflow_mlops.primitives.datasets.making.make import JoinPlan, TrainingSet

__all__ = ["FeastHook"]

_import_feast = import_feast
_NO_KEY = "__dummy_id"


class FeastHook(BaseHook):
    """
    Speaks to one Feast feature store.

    The connection's extra holds ``{"repo_path": "/opt/airflow/features"}``, the folder of
    ``feature_store.yaml`` as the workers see it (its host may hold the path instead), or what would stand
    in that file: ``project``, ``registry``, ``offline_store``, ``online_store``. Logins come from other
    Airflow connections: ``"registry": {"connection": "feast_registry"}``.

    :param feast_conn_id: Airflow connection of type ``feast``.
    """

    conn_name_attr = "feast_conn_id"
    default_conn_name = "feast_default"
    conn_type = "feast"
    hook_name = "Feast"

    def __init__(self, feast_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.feast_conn_id = feast_conn_id
        self._settings: FeastSettings | None = None
        self._store: FeatureStore | None = None

    @property
    def settings(self) -> FeastSettings:
        """What the connection says.

        :raises FeatureStoreError: something is missing, unknown or cannot be meant.
        """
        if self._settings is None:
            connection = find_connection(self.feast_conn_id, FeatureStoreError, "feast")
            self._settings = read_settings(connection, self.get_connection)
        return self._settings

    @property
    def repo_path(self) -> Path:
        """Folder of ``feature_store.yaml``.

        :raises FeatureStoreError: the connection names none, or nothing is there.
        """
        if self.settings.repo is None:
            raise FeatureStoreError(
                f'connection {self.feast_conn_id!r} has no repository: set its extra {{"repo_path": "…"}}'
            )
        return self.settings.repo

    @property
    def offline_store(self) -> str:
        """Type of the offline store, as ``feature_store.yaml`` names it."""
        return str(self.store().config.offline_store.type)

    def store(self, *, create: bool = False) -> FeatureStore:
        """The feature store, its registry being there. Opened once.

        :param create: whether a registry that is not there yet is made.
        :raises FeatureStoreError: configuration or registry are missing or broken.
        """
        if self._store is None:
            self._store = open_feast(self.settings, create=create)
        return self._store

    def service(self, name: str) -> FeatureService:
        """The feature service of this name.

        :raises FeatureStoreError: there is none; the message names the nearest of the known ones.
        """
        store = self.store()
        with self._errors():
            known = {service.name: service for service in store.list_feature_services()}
        found: FeatureService = self._known("feature service", name, known)
        return found

    def view(self, name: str) -> FeatureView:
        """The feature view of this name.

        :raises FeatureStoreError: there is none; the message names the nearest of the known ones.
        """
        store = self.store()
        with self._errors():
            known = {view.name: view for view in store.list_all_feature_views()}
        found: FeatureView = self._known("feature view", name, known)
        return found

    def entity_columns(self, feature_service: str) -> tuple[str, ...]:
        """Columns that examples must bring along for this service: join keys, and data of on-demand views."""
        views, on_demand = self._views(self.service(feature_service))
        names = [
            view.projection.join_key_map.get(key.name, key.name)
            for view in views
            for key in view.entity_columns
            if key.name != _NO_KEY
        ]
        names += [name for view in on_demand for name in view.get_request_data_schema()]
        return tuple(dict.fromkeys(names))

    def feature_columns(self, feature_service: str) -> tuple[str, ...]:
        """Columns of the features of a service, as they come out of a join."""
        return tuple(_references(self.service(feature_service)))

    def training_set(self, feature_service: str, entity_sql: str, destination: Path) -> TrainingSet:
        """Join the features of a service to examples, as they were known at each example's time.

        With our own offline store (:mod:`airflow_mlops.hooks.feast.asof.store`) the rows are streamed; with
        any other one that is configured, Feast's own join is used. Where two features of the service have one
        name, as when it has a view twice, each is called ``view__feature`` (with an alias, ``alias__feature``).

        :param feature_service: name of the service.
        :param entity_sql: DuckDB query of the examples: join keys, ``event_timestamp``, and anything else
            that the result shall carry along.
        :param destination: Parquet file to write.
        :raises FeatureStoreError: the features cannot be joined, or one of them did not come out.
        """
        service = self.service(feature_service)
        references = _references(service)
        with feast_errors(f"feature service {feature_service!r}", self.settings):
            join = self._join_ours if self.offline_store == OUR_STORE else self._join_by_feast
            joined = join(service, entity_sql, destination, references)
        _check_features(service, joined)
        return joined

    def plan_join(self, feature_service: str, between: tuple[datetime, datetime]) -> JoinPlan | None:
        """What :meth:`training_set` would do; ``None`` by other stores than ours, and with on-demand views.

        :param between: first and last moment at which examples may be.
        """
        from airflow_mlops.hooks.feast.plan import plan_join

        if self.offline_store != OUR_STORE:
            return None
        service = self.service(feature_service)
        views, on_demand = self._views(service)
        if on_demand:  # their code decides too, and nobody says when it changed
            return None
        with feast_errors(f"feature service {feature_service!r}", self.settings):
            return plan_join(
                self.store(), views, _references(service), between, full_names=_full_names(service)
            )

    def newest(self, view: str, until: datetime) -> datetime | None:
        """Event time of a view's newest row that is not after ``until``; ``None`` when there is no such row.

        :raises FeatureStoreError: no such view, or its store cannot tell.
        :raises SourceError: its files cannot be read.
        """
        from airflow_mlops.hooks.feast.freshness import newest_row

        found = self.view(view)
        with feast_errors(f"feature view {view!r}", self.settings):
            return newest_row(self.store(), found, until)

    def views_of(self, feature_service: str) -> tuple[str, ...]:
        """Names of the stored views that a service reads, those behind its on-demand views included."""
        views, _ = self._views(self.service(feature_service))
        return tuple(dict.fromkeys(view.name for view in views))

    def test_connection(self) -> tuple[bool, str]:
        """Open the registry and count what is in it."""
        try:
            store = self.store()
            with self._errors():
                services, views = len(store.list_feature_services()), len(store.list_all_feature_views())
        except MLOpsError as error:
            return False, str(error)
        return True, (
            f"Project {store.project!r} in {registry_name(store)}: {services} feature service(s), {views} feature "
            f"view(s); offline store {self.offline_store}"
        )

    def _errors(self) -> Any:
        return feast_errors(self.settings.where, self.settings)

    def _known(self, what: str, name: str, known: dict[str, Any]) -> Any:
        if name in known:
            return known[name]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        store = self.store()
        raise FeatureStoreError(
            f"no {what} {name!r} in registry {registry_name(store)}, project {store.project!r}; known are "
            f"{', '.join(sorted(known)) or 'none'}{hint} If it is new, {self.settings.cure}"
        )

    def _join_ours(
        self, service: FeatureService, entity_sql: str, destination: Path, references: dict[str, str]
    ) -> TrainingSet:
        from airflow_mlops.hooks.feast.plan import join_options, view_pins
        from airflow_mlops.primitives.datasets.making.make import TrainingSet
        from airflow_mlops.primitives.datasets.point_in_time import SEMANTICS

        job: Any = self.store().get_historical_features(
            entity_df=entity_sql, features=service, full_feature_names=_full_names(service)
        )
        try:
            rows = job.to_parquet(destination, ordered=False)  # examples carry their number
        finally:
            job.close()
        return TrainingSet(
            path=destination,
            rows=rows,
            references=references,
            views=tuple(view.to_json() for view in job.views),
            semantics=SEMANTICS,
            pins=tuple(view_pins(self.store(), self._views(service)[0], job.views)),
            options=join_options(self.store()),
        )

    def _join_by_feast(
        self, service: FeatureService, entity_sql: str, destination: Path, references: dict[str, str]
    ) -> TrainingSet:
        from airflow_mlops.hooks.feast.join import join_by_feast
        from airflow_mlops.primitives.datasets.making.make import TrainingSet

        rows = join_by_feast(self.store(), service, entity_sql, destination, full_names=_full_names(service))
        views, _ = self._views(service)
        return TrainingSet(
            path=destination,
            rows=rows,
            references=references,
            views=tuple({"name": view.name, "ttl_seconds": _seconds(view)} for view in views),
            semantics=f"feast:{self.offline_store}",
            files=tuple(
                dict.fromkeys(path for view in views for path in _local_files(view, self.settings.repo))
            ),
        )

    def _views(self, service: FeatureService) -> tuple[Sequence[FeatureView], Sequence[Any]]:
        from feast import utils

        store = self.store()
        with feast_errors(f"feature service {service.name!r}", self.settings):
            views, on_demand = utils._get_feature_views_to_use(store.registry, store.project, service)  # noqa: SLF001
        return views, on_demand


def _references(service: FeatureService) -> dict[str, str]:
    """``view:feature`` of each feature, by the name of its column."""
    full = _full_names(service)
    return {f"{view}__{name}" if full else name: f"{view}:{name}" for view, name in _features_of(service)}


def _full_names(service: FeatureService) -> bool:
    """Whether two features of a service have one name, and so all of them carry that of their view."""
    # DuckDB tells no names apart by upper and lower case.
    names = [name.lower() for _, name in _features_of(service)]
    return len(set(names)) < len(names)


def _features_of(service: FeatureService) -> list[tuple[str, str]]:
    """View, by its alias if it has one, and name of each feature."""
    return [
        (projection.name_to_use(), feature.name)  # type: ignore[no-untyped-call]
        for projection in service.feature_view_projections
        for feature in projection.features
    ]


def _check_features(service: FeatureService, joined: TrainingSet) -> None:
    """Make sure that every feature came out: Feast leaves one out when its full name hides another one."""
    import pyarrow.parquet as pq

    there = pq.read_schema(joined.path).names
    if lost := [name for name in joined.references if name not in there]:
        raise FeatureStoreError(
            f"feature service {service.name!r}: {', '.join(lost)} did not come out of the join; it gave "
            f"{', '.join(there)}. An on-demand view cannot name a feature like one of the views that it reads when the "
            "service has both. Cure: rename it in the on-demand view"
        )


def _seconds(view: FeatureView) -> float:
    return view.ttl.total_seconds() if view.ttl else 0.0


def _local_files(view: FeatureView, repo: Path | None) -> tuple[str, ...]:
    from airflow_mlops.primitives.sources.base import find_files

    path = getattr(view.batch_source, "path", None)
    if not isinstance(path, str) or "://" in path:
        return ()
    try:
        return find_files(path, repo)
    except SourceError:
        return ()
