"""Operators that bring Feast's registry and its online store up to date."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.assets import online_store_asset
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from feast import FeatureStore

    from airflow_mlops.hooks.feast.hook import FeastHook
    from airflow_mlops.hooks.feast.objects import FeastObjects

__all__ = ["ApplyFeaturesOperator", "MaterializeFeaturesOperator"]


class ApplyFeaturesOperator(MLOpsTask):
    """
    Bring Feast's registry to what is defined: planned first, and written only where it differs.

    A change that takes something away (a feature, a view, a service, another key or type) is refused unless it
    is allowed. What is not named here is left alone: other files own it. Several tasks may apply at once.

    Returns the plan: ``{"changes": [{"action", "kind", "name", "differences"}], "unchanged", "destructive"}``.

    :param definitions: feature views and services as JSON values; sources are made for the connection's offline
        store. ``{"kind": "feature_view", "name": "old", "absent": true}`` removes one.
    :param repo_path: a Feast repository instead, whose Python files define everything; they run in a process of
        their own, which knows no Airflow connection.
    :param feast_conn_id: Airflow connection of type ``feast``.
    :param destructive: whether something may be taken away.
    :param store: URI of the artifact store in which a feature pipeline publishes what is defined here.
    :param features: name of that pipeline. With both, views whose columns are not published are not applied: whoever
        joins them would fail. The task is skipped then, or fails if rows were published in this run.
    :param published: what ``PublishFeaturesOperator`` returned; nothing when it was skipped.
    """

    template_fields: Sequence[str] = (
        "definitions",
        "repo_path",
        "feast_conn_id",
        "store",
        "features",
        "published",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"definitions": "json", "published": "json"}
    ui_color = "#d8e8dc"

    def __init__(
        self,
        *,
        definitions: list[dict[str, Any]] | None = None,
        repo_path: str | None = None,
        feast_conn_id: str = "feast_default",
        destructive: bool = False,
        store: str | None = None,
        features: str | None = None,
        published: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.definitions = definitions
        self.repo_path = repo_path
        self.feast_conn_id = feast_conn_id
        self.destructive = destructive
        self.store = store
        self.features = features
        self.published = published

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Plan, check and apply."""
        from airflow_mlops.exceptions import SpecError
        from airflow_mlops.hooks.feast.apply import apply_features
        from airflow_mlops.hooks.feast.hook import FeastHook

        with airflow_errors():
            if bool(self.definitions) == bool(self.repo_path):
                raise SpecError("give either definitions or repo_path to apply; both or none are given")
            self._check_published()
            hook = FeastHook(self.feast_conn_id)
            plan = apply_features(hook, self._builder(hook), destructive=self.destructive)
        self.log.info("Feature definitions in %s:\n%s", hook.settings.where, plan)
        return plan.to_json()

    def _check_published(self) -> None:
        """Make sure that the published rows have the columns of the views.

        :raises AirflowSkipException: they have not yet.
        :raises FeatureStoreError: they have not, although rows were published just now.
        """
        from airflow_mlops.exceptions import FeatureStoreError
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.primitives.features.plan import columns_of
        from airflow_mlops.stores.features.table import FeatureTable

        if not self.store or not self.features:
            return
        snapshot = FeatureTable(open_store(self.store), self.features).snapshot()
        there = snapshot.stored_columns if snapshot is not None else ()
        if not there:
            raise AirflowSkipException(
                f"Nothing is published of {self.features} yet: its views are applied with the first rows."
            )
        for view, columns in columns_of(self.definitions or ()).items():
            missing = ", ".join(name for name in columns if name not in there)
            if missing and (self.published or {}).get("new_rows"):
                raise FeatureStoreError(
                    f"feature view {view!r} has {missing}, and the published rows have not; they have "
                    f"{', '.join(there)}. Cure: select it in the transform, or remove it from the view"
                )
            if missing:
                raise AirflowSkipException(
                    f"No published row of {self.features} has {missing}, which the view {view} has: the definitions "
                    "are applied with the next rows."
                )

    def _builder(self, hook: FeastHook) -> Any:
        from airflow_mlops.hooks.feast.objects import build_objects
        from airflow_mlops.hooks.feast.repository import objects_of_repository

        if self.repo_path:
            content = objects_of_repository(self.repo_path)
            return content.objects

        def build(store: FeatureStore) -> FeastObjects:
            return build_objects(self.definitions or (), str(store.config.offline_store.type), hook.view)

        return build


class MaterializeFeaturesOperator(MLOpsTask):
    """
    Copy the newest rows of feature views to the online store, from where the last run ended.

    How far each view was copied is kept in Airflow's asset state store, so that applying definitions cannot reset
    it. The first time, and when a view has changed, its whole time to live is copied. A retry copies again what
    it cannot know to be there; the result is the same. When the clock has gone back, it starts over.
    Rows of a feature pipeline are copied when they are published, however old they are; of other sources, those
    that come behind the last end by more than ``late`` are not seen.

    Returns ``{"views": {name: {"start", "end", "why"}}}``; a view without news is not in it.

    :param views: names of the views; all that are served online by default.
    :param feast_conn_id: Airflow connection of type ``feast``.
    :param start: ISO 8601 time to copy from, instead of from the last end; to repair something.
    :param end: ISO 8601 time to copy up to; now by default.
    :param late: how far before the last end rows may still arrive, such as ``6h``.
    """

    template_fields: Sequence[str] = ("views", "feast_conn_id", "start", "end", "late")
    ui_color = "#d8e8dc"

    def __init__(
        self,
        *,
        views: list[str] | None = None,
        feast_conn_id: str = "feast_default",
        start: str | None = None,
        end: str | None = None,
        late: str = "0s",
        **kwargs: Any,
    ) -> None:
        self.asset = online_store_asset(feast_conn_id)
        kwargs["inlets"] = [*(kwargs.get("inlets") or ()), self.asset]
        super().__init__(**kwargs)
        self.views = views
        self.feast_conn_id = feast_conn_id
        self.start = start
        self.end = end
        self.late = late

    def execute(self, context: Context) -> dict[str, Any]:
        """Copy view by view, and remember each."""
        from airflow_mlops.hooks.feast.hook import FeastHook
        from airflow_mlops.hooks.feast.materialize import online_views

        with airflow_errors():
            hook = FeastHook(self.feast_conn_id)
            names = self.views if self.views is not None else online_views(hook)
            done = {name: self._materialize(context, hook, name) for name in names}
        return {"views": {name: window for name, window in done.items() if window}}

    def _materialize(self, context: Context, hook: FeastHook, name: str) -> dict[str, str] | None:
        from datetime import timedelta

        from airflow_mlops.hooks.feast.materialize import definition_digest, first_published, materialize_view
        from airflow_mlops.primitives.features.materialization import Materialized, next_window

        view = hook.view(name)
        memory, key = context["asset_state_store"][self.asset], f"{hook.store().project}.{name}"
        digest = definition_digest(view)
        last = Materialized.from_json(memory.get(key))
        window = next_window(
            last,
            digest,
            ttl=view.ttl or timedelta(0),
            now=datetime.now(UTC),
            start=_time(self.start, "start"),
            end=_time(self.end, "end"),
            late=_duration(self.late),
            fresh=first_published(hook, view, datetime.fromisoformat(last.until)) if last else None,
        )
        if window is None:
            self.log.info("Feature view %s: nothing new to copy", name)
            return None
        self.log.info("Feature view %s: copying %s up to %s (%s)", name, window.start, window.end, window.why)
        materialize_view(hook, view, window.start, window.end)
        if window.until is not None:
            memory.set(key, Materialized(window.until.isoformat(), digest).to_json())
        return {"start": window.start.isoformat(), "end": window.end.isoformat(), "why": window.why}


def _time(text: str | None, name: str) -> datetime | None:
    from airflow_mlops.exceptions import SpecError

    if not text or text == "None":  # a template of nothing
        return None
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise SpecError(
            f"{name} {text!r} is no time; expected ISO 8601, as 2026-01-31T00:00:00+00:00"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _duration(text: str) -> Any:
    from airflow_mlops.exceptions import SpecError
    from airflow_mlops.spec.values import duration

    try:
        return duration(text)
    except ValueError as error:
        raise SpecError(f"late {text!r} {error}; expected such as 90d, 24h or 30m") from error
