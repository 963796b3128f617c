"""Monitoring: predictions and outcomes → a reason to train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops.assets import predictions_asset, retraining_asset
from airflow_mlops.factories.application import BOOKKEEPING_RETRIES, application_dag, examples_of
from airflow_mlops.factories.schedules import schedule_of
from airflow_mlops.operators.monitoring.alarm import RaiseAlarmOperator
from airflow_mlops.operators.monitoring.decide import DecideRetrainingOperator
from airflow_mlops.operators.monitoring.performance import MeasurePerformanceOperator
from airflow_mlops.operators.monitoring.profile import ProfileInputsOperator

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_mlops.spec import ApplicationSpec


def build_monitoring_dag(spec: ApplicationSpec) -> DAG:
    """Build ``<application>__monitoring``."""
    monitoring = spec.monitoring
    place = {"application": spec.application, "store": spec.store}
    drift = monitoring.drift.model_dump(mode="json")
    performance = monitoring.performance.model_dump(mode="json") if monitoring.performance else None
    with application_dag(
        spec,
        "monitoring",
        "Compares what arrives with what the model was trained on, and its errors with those of its test.",
        schedule=schedule_of(monitoring.schedule, predictions_asset(spec.application)),
    ) as dag:
        profile = ProfileInputsOperator(task_id="profile_inputs", drift=drift, **place)
        decide = DecideRetrainingOperator(
            task_id="decide",
            rules={
                "drift": drift,
                "performance": performance,
                "retraining": {"on": list(spec.retraining.on)},
            },
            mlflow_conn_id=spec.tracking.connection,
            **place,
        )
        RaiseAlarmOperator(
            task_id="raise_alarm",
            decision=decide.output,
            outlets=[retraining_asset(spec.application)],
            # The event leaves with the task's success: an alarm must not hang on a worker's luck.
            retries=max(spec.training.retries, BOOKKEEPING_RETRIES),
            **place,
        )
        if performance is None:
            profile >> decide
        else:
            measure = MeasurePerformanceOperator(
                task_id="measure_performance", examples=examples_of(spec), performance=performance, **place
            )
            profile >> measure >> decide
    return dag
