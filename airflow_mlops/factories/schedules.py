"""Schedules of the YAML as Airflow understands them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable

if TYPE_CHECKING:
    from airflow_mlops.spec.values import AssetSchedule


def schedule_of(schedule: AssetSchedule | str | None, *own: Asset) -> Any:
    """Turn a schedule of the YAML into ``DAG(schedule=…)``.

    :param schedule: cron expression (UTC), names of assets of which any wakes the DAG, or nothing.
    :param own: assets of the application that wake the DAG as well.
    """
    # Somebody else declares the outside assets: a reference leaves their URI and watchers alone.
    named = [] if schedule is None or isinstance(schedule, str) else schedule.assets
    wakers = [*own, *(Asset.ref(name=name) for name in named)]
    condition = AssetAny(*wakers) if wakers else None
    if not isinstance(schedule, str):
        return condition
    timetable = CronTriggerTimetable(schedule, timezone="UTC")
    return AssetOrTimeSchedule(timetable=timetable, assets=condition) if condition else timetable
