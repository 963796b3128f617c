"""Bringing Feast's registry to what is defined: planned first, written only where it differs, safe against others."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import FeatureStoreConflictError, FeatureStoreError, MLOpsError
from airflow_mlops.hooks.feast.connection.session import feast_errors
from airflow_mlops.hooks.feast.objects import FeastObjects, describe, kind_of
from airflow_mlops.primitives.features.plan import FeaturePlan, plan_features

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feast import FeatureStore

    from airflow_mlops.hooks.feast.hook import FeastHook

__all__ = ["apply_features", "plan_objects"]

log = logging.getLogger(__name__)

ATTEMPTS = 8
_CONFLICTS = (
    "IntegrityError",
    "ConcurrentVersionConflict",
    "StaleDataError",
    "is locked",
    "deadlock detected",
)


def apply_features(
    hook: FeastHook, build: Callable[[FeatureStore], FeastObjects], *, destructive: bool = False
) -> FeaturePlan:
    """Plan, check, and write what differs; a registry that is as defined is not written.

    Whoever changes the registry at the same time is waited for: the plan is made anew, and after writing it is
    looked whether everything is there.

    :param build: makes the objects; Feast changes them while applying, so each attempt has its own.
    :param destructive: whether something may be taken away.
    :return: the plan that was carried out.
    :raises FeatureStoreError: a destructive change that was not allowed, or Feast refuses.
    :raises FeatureStoreConflictError: others kept changing the registry.
    """
    done: FeaturePlan | None = None
    for attempt in range(ATTEMPTS):
        try:
            store = hook.store(create=True)
            with feast_errors(hook.settings.where, hook.settings):
                if attempt:
                    store.refresh_registry()  # type: ignore[no-untyped-call]
                objects = build(store)
                plan = plan_objects(store, objects)
                if not plan.changes:
                    return done or plan
                plan.check(destructive=destructive)
                _write(store, objects, plan)
            done = done or plan
        except MLOpsError as error:
            if not _is_conflict(error):
                raise
            log.info("Attempt %d of %d to apply features: %s", attempt + 1, ATTEMPTS, error)
            time.sleep(random.uniform(0.2, 1.0) * min(2**attempt, 8) / 2)  # noqa: S311 - no secret
        else:
            if _is_there(hook, build):
                return done
    raise FeatureStoreConflictError(
        f"{hook.settings.where}: others changed the registry during each of {ATTEMPTS} attempts to apply; try again, "
        "and use an SQL registry"
    )


def plan_objects(store: FeatureStore, objects: FeastObjects) -> FeaturePlan:
    """What applying these objects would change in the registry."""
    there = {(kind_of(thing), thing.name): describe(thing) for thing in _registered(store)}
    wanted = {key: describe(thing) for key, thing in objects.wanted.items()}
    return plan_features(there, wanted, objects.absent)


def _is_there(hook: FeastHook, build: Callable[[FeatureStore], FeastObjects]) -> bool:
    store = hook.store()
    with feast_errors(hook.settings.where, hook.settings):
        store.refresh_registry()  # type: ignore[no-untyped-call]
        return not plan_objects(store, build(store)).changes


def _registered(store: FeatureStore) -> Iterator[Any]:
    registry, project = store.registry, store.project
    yield from registry.list_entities(project)
    yield from registry.list_data_sources(project)
    yield from registry.list_all_feature_views(project)
    yield from registry.list_feature_services(project)
    yield from registry.list_permissions(project)


def _write(store: FeatureStore, objects: FeastObjects, plan: FeaturePlan) -> None:
    wanted = [objects.wanted[key] for key in plan.keys("add", "change")]
    removed = set(plan.keys("remove"))
    gone = [thing for thing in _registered(store) if (kind_of(thing), thing.name) in removed]
    # Feast deletes only when it is told that the list is not partial; nothing but the list is deleted then.
    store.apply([*wanted, *_sources_of(wanted)], objects_to_delete=gone, partial=not gone)


def _sources_of(things: list[Any]) -> list[Any]:
    return [source for thing in things if (source := getattr(thing, "batch_source", None)) is not None]


def _is_conflict(error: MLOpsError) -> bool:
    if isinstance(error, FeatureStoreConflictError):
        return True
    return isinstance(error, FeatureStoreError) and any(name in str(error) for name in _CONFLICTS)
