"""Sensors that wait for data."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from airflow_mlops.operators.errors import airflow_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

__all__ = ["FeaturesFreshSensor"]


class FeaturesFreshSensor(BaseSensorOperator):
    """
    Wait until the newest row of every feature view is young enough.

    The event time of the newest row is asked of the source itself; rows of the future do not count. No worker's
    slot is held between two looks: by default the task is rescheduled, and with ``deferrable`` the triggerer
    keeps the time (it never imports Feast).

    Returns ``{view: ISO 8601 time of its newest row}``.

    :param max_age: how old the newest row may be, such as ``2h``.
    :param service: feature service whose views are looked at.
    :param views: names of views, instead of a service.
    :param at: ISO 8601 time at which they have to be fresh; now by default.
    :param feast_conn_id: Airflow connection of type ``feast``.
    :param deferrable: whether to wait in the triggerer instead of being rescheduled. ``timeout`` counts from the
        first look of a try.
    :param mode: ``reschedule`` holds no slot between two looks, ``poke`` does.
    """

    template_fields: Sequence[str] = ("max_age", "service", "views", "at", "feast_conn_id")
    ui_color = "#e8e4d0"

    def __init__(
        self,
        *,
        max_age: str,
        service: str | None = None,
        views: list[str] | None = None,
        at: str | None = None,
        feast_conn_id: str = "feast_default",
        deferrable: bool = False,
        mode: str = "reschedule",
        **kwargs: Any,
    ) -> None:
        super().__init__(mode=mode, **kwargs)
        self.max_age = max_age
        self.service = service
        self.views = views
        self.at = at
        self.feast_conn_id = feast_conn_id
        self.deferrable = deferrable
        self._newest: dict[str, str] = {}

    def execute(self, context: Context) -> Any:
        """Look, and wait."""
        if not self.deferrable:
            super().execute(context)
            return self._newest
        return self.look_again(context)

    def look_again(self, context: Context, event: Any = None, since: str | None = None) -> dict[str, str]:  # noqa: ARG002
        """Look once, and give the slot away if it is too early.

        :param since: ISO 8601 time of the first look.
        """
        from datetime import timedelta

        from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

        from airflow_mlops.quirks.settling import settling

        now = datetime.now(UTC)
        since = since or now.isoformat()
        if not self._look(context):
            left = timedelta(seconds=self.timeout) - (now - datetime.fromisoformat(since))
            if left <= timedelta(0):
                self._time_out()
            # The last look is at the end of the time, and not beyond it, unless Airflow would not survive that.
            pause = max(min(timedelta(seconds=self.poke_interval), left), timedelta(seconds=settling()))
            self.defer(
                trigger=TimeDeltaTrigger(pause),
                method_name="look_again",
                kwargs={"since": since},
            )
        return self._newest

    def _look(self, context: Context) -> bool:
        """One look that fails as those of a sensor that is not deferred."""
        from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

        try:
            return self.poke(context)
        except Exception as error:
            final = isinstance(error, AirflowFailException)
            if self.never_fail or (self.soft_fail and final):
                raise AirflowSkipException(f"Skipped instead of failing: {error}") from error
            if self.silent_fail and not final:
                self.log.exception("Looking failed; it is tried again")
                return False
            raise

    def _time_out(self) -> None:
        from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException

        error = AirflowSkipException if self.soft_fail or self.never_fail else AirflowSensorTimeout
        raise error(f"Features are still not fresh after {self.timeout:g} seconds; see the lines above")

    def poke(self, context: Context) -> bool:  # noqa: ARG002
        """Whether every view is fresh."""
        from airflow_mlops.hooks.feast.hook import FeastHook
        from airflow_mlops.primitives.features.freshness import Freshness, parse_age

        with airflow_errors():
            oldest, moment = parse_age(self.max_age), self._moment()
            hook = FeastHook(self.feast_conn_id)
            found = [Freshness(name, hook.newest(name, moment), moment, oldest) for name in self._names(hook)]
        for stale in (view for view in found if not view.fresh):
            self.log.info("Waiting: %s", stale)
        self._newest = {view.name: view.newest.isoformat() for view in found if view.newest}
        return all(view.fresh for view in found)

    def _names(self, hook: Any) -> Sequence[str]:
        from airflow_mlops.exceptions import SpecError

        if bool(self.views) == bool(self.service):
            raise SpecError("give either a service or views to look at; both or none are given")
        names: Sequence[str] = self.views or hook.views_of(self.service)
        return names

    def _moment(self) -> datetime:
        from airflow_mlops.exceptions import SpecError

        if not self.at or self.at == "None":  # a template of nothing
            return datetime.now(UTC)
        try:
            moment = datetime.fromisoformat(self.at)
        except ValueError as error:
            raise SpecError(f"at {self.at!r} is no time; expected ISO 8601") from error
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
