"""Copying feature rows to the online store."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.hooks.feast.asof.files import ViewFiles
from airflow_mlops.hooks.feast.connection.session import feast_errors
from airflow_mlops.hooks.feast.objects import describe
from airflow_mlops.primitives.features.snapshot import BATCHES
from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feast import FeatureView

    from airflow_mlops.hooks.feast.hook import FeastHook

__all__ = ["definition_digest", "first_published", "materialize_view", "online_views"]

log = logging.getLogger(__name__)

#: What of a view decides about its rows in the online store.
#: Clocks of workers differ, and a publication is seen a moment after it says it was made.
_SLACK = timedelta(minutes=10)
_ABOUT = ("description", "tags", "owner")
_STORED = ("entities", "join_keys", "features", "timestamp", "created", "source", "ttl_seconds")


def online_views(hook: FeastHook) -> list[str]:
    """Names of all stored views that are served online."""
    store = hook.store()
    with feast_errors(hook.settings.where, hook.settings):
        return [view.name for view in store.list_feature_views() if view.online]


def definition_digest(view: FeatureView) -> str:
    """Digest of what decides about a view's rows in the online store."""
    told = {name: value for name, value in describe(view).items() if name in _STORED}
    told["source"] = {name: value for name, value in told.get("source", {}).items() if name not in _ABOUT}
    return hashlib.sha256(json_text(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def first_published(hook: FeastHook, view: FeatureView, since: datetime) -> datetime | None:
    """Time of the earliest row that was published since a moment, whatever time it is of.

    Rows of yesterday are often published today, when yesterday was copied already.

    :return: ``None`` when there is none, or when the source is not one that is published with a snapshot.
    :raises SourceError: the snapshot cannot be read.
    """
    source: Any = getattr(view, "batch_source", None)
    if type(source).__name__ != "FileSource":
        return None
    store = hook.store()
    settings, repo = store.config.offline_store, store.config.repo_path
    files = ViewFiles(getattr(settings, "aws_conn_id", None), Path(repo) if repo else None)
    with feast_errors(f"feature view {view.name!r}", hook.settings):
        snapshot = files.snapshot(source.path, source.s3_endpoint_override or None)
    if snapshot is None or not (batches := snapshot.get("batches")):
        return None
    # A batch is a list; its fifth entry says when it was published, its last the time of its first new row.
    since -= _SLACK
    if len(batches) >= BATCHES and datetime.fromisoformat(batches[0][4]) >= since:
        return datetime.fromisoformat(snapshot["first"])  # older ones are forgotten
    fresh = [batch[-1] for batch in batches if batch[-1] and datetime.fromisoformat(batch[4]) >= since]
    return min(map(datetime.fromisoformat, fresh), default=None)


def materialize_view(hook: FeastHook, view: FeatureView, start: datetime, end: datetime) -> None:
    """Copy the newest row of each entity in a window to the online store; again gives the same.

    :raises FeatureStoreError: the view is not served online, or Feast refuses.
    """
    store: Any = hook.store()
    if not view.online:
        raise FeatureStoreError(
            f"feature view {view.name!r} is not served online: set online: true where it is defined, or leave it out"
        )
    if not store.config.online_store:
        raise FeatureStoreError(
            f"{hook.settings.where} has no online store; name one, such as "
            '"online_store": {"type": "sqlite", "path": "/srv/features/online.db"}'
        )
    if not getattr(view, "feature_transformation", None):
        # Otherwise Feast takes every row of the window into memory before it looks for the newest.
        store.config.materialization_config.pull_latest_features = True
    doing = f"materializing feature view {view.name!r}"
    with feast_errors(doing, hook.settings), _without_nobodys_rows(store, view.name):
        store.materialize(start, end, feature_views=[view.name])


@contextlib.contextmanager
def _without_nobodys_rows(store: Any, view: str) -> Iterator[None]:
    """Leave out rows that lack a key: nobody can ask for them, and Feast would stop at the first one."""
    online: Any = store._get_provider().online_store  # noqa: SLF001 - the one that Feast's engine writes to
    write = online.online_write_batch

    def write_batch(config: Any, table: Any, data: list[Any], progress: Any) -> None:
        kept = [row for row in data if all(value.WhichOneof("val") for value in row[0].entity_values)]
        if len(kept) < len(data):
            log.warning("Feature view %s: %d row(s) lack a key and are left out", view, len(data) - len(kept))
        write(config, table, kept, progress)

    online.online_write_batch = write_batch
    try:
        yield
    finally:
        del online.online_write_batch
