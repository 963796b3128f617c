"""The alarm that triggers a retraining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.operators.errors import airflow_errors
from airflow_mlops.operators.monitoring.windows import MonitoringOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class RaiseAlarmOperator(MonitoringOperator):
    """
    Tell the outlets that a new model is needed, with the evidence; skipped when there is no alarm.

    The event's ``extra`` is the newest alarm (``reason``, ``alarm_id``, ``message``, ``window``, ``figures``,
    ``model_version``, ...) with all of them in ``alarms``. Raising an alarm again is harmless: its id is the same.

    :param decision: what :class:`DecideRetrainingOperator` returned.
    """

    template_fields: Sequence[str] = ("decision",)

    def __init__(self, *, decision: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.decision = decision

    def execute(self, context: Context) -> list[str]:
        """Put the evidence on the outlets' events, which leave with the task's success."""
        from airflow_mlops.primitives.reasons import Alarm, alarm_event

        with airflow_errors():
            told = list((self.decision or {}).get("alarms") or ())
            alarms = [Alarm.from_json(one, f"decision: alarm {number}") for number, one in enumerate(told, 1)]
        if not alarms:
            raise AirflowSkipException("No alarm: no window asks for a new model.")
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = alarm_event(alarms)
        for alarm in alarms:
            self.log.warning("%s alarm %s: %s", alarm.reason, alarm.alarm_id, alarm.message)
        return [alarm.alarm_id for alarm in alarms]
