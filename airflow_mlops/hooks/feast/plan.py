"""What our join of a feature service would read and do, known before it is done, and the pins of its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from feast import FeatureStore, FeatureView

    from airflow_mlops.hooks.sources.examples import AirflowSources
    from airflow_mlops.primitives.datasets.making.request import JoinPlan
    from airflow_mlops.primitives.datasets.point_in_time import ViewPlan

__all__ = ["join_options", "plan_join", "view_pins"]


def plan_join(
    store: FeatureStore,
    views: Sequence[FeatureView],
    references: Mapping[str, str],
    between: tuple[datetime, datetime],
    *,
    full_names: bool = False,
) -> JoinPlan:
    """The join of feature views by our offline store.

    :param references: ``view:feature`` by the name of the feature's column.
    :param between: first and last moment at which examples may be; other files are left out.
    :param full_names: whether features are named ``view__feature``.
    """
    from airflow_mlops.hooks.feast.asof.files import ViewFiles
    from airflow_mlops.hooks.feast.asof.plan import plan_views
    from airflow_mlops.primitives.datasets.making.request import JoinPlan
    from airflow_mlops.primitives.datasets.point_in_time import SEMANTICS

    settings: Any = store.config.offline_store
    files = ViewFiles(settings.aws_conn_id, Path(store.repo_path) if store.repo_path else None)
    plans = plan_views(views, list(references.values()), files, full_names=full_names, between=between)
    return JoinPlan(
        references=dict(references),
        views=tuple(plan.to_json() for plan in plans),
        semantics=SEMANTICS,
        pins=tuple(view_pins(store, views, plans)),
        options=join_options(store),
    )


def join_options(store: FeatureStore) -> dict[str, Any]:
    """Settings of our offline store that decide about values, where they are not the usual ones."""
    settings: Any = store.config.offline_store
    return {} if settings.filter_by_created_timestamp else {"filter_by_created": False}


def view_pins(
    store: FeatureStore, views: Sequence[FeatureView], plans: Sequence[ViewPlan]
) -> list[dict[str, Any]]:
    """Pins of the files of each view, as the manifest keeps them.

    :param plans: the same views with the files that were read.
    :raises SourceUnavailableError: a file does not answer: try again.
    """
    from airflow_mlops.primitives.sources.base import pins_of

    patterns = {
        view.projection.name_alias or view.name: str(getattr(view.batch_source, "path", "")) for view in views
    }
    pins = []
    for plan in plans:
        pattern = patterns.get(plan.name, "")
        pins += pins_of(f"view:{plan.name}", pattern, plan.paths, _sources(store, pattern))
    return pins


def _sources(store: FeatureStore, pattern: str) -> AirflowSources:
    """What pins the files of a pattern: the connection that read them, which the pattern may name."""
    from airflow_mlops.hooks.s3.client import split_s3
    from airflow_mlops.hooks.sources.examples import AirflowSources, is_s3

    settings: Any = store.config.offline_store
    conn_id = settings.aws_conn_id or "aws_default"
    return AirflowSources(split_s3(pattern, conn_id).conn_id if is_s3(pattern) else conn_id)
