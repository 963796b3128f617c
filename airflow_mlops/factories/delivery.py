"""Delivery: champion → predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import XComArg

from airflow_mlops.assets import predictions_asset
from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories.application import (
    application_dag,
    assumptions_of,
    code_of,
    dataset_arguments,
    model_code_arguments,
)
from airflow_mlops.factories.schedules import schedule_of
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.delivery import PlanBatchOperator, PredictBatchOperator
from airflow_mlops.spec.delivery import BatchDelivery

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_mlops.spec import ApplicationSpec


def build_delivery_dag(spec: ApplicationSpec) -> DAG:
    """Build ``<application>__delivery``: a batch job of the champion over the examples not predicted yet."""
    name, mlflow = spec.application, spec.tracking.connection
    batch = spec.form(BatchDelivery)
    if batch is None:
        raise SpecError(f"{name}: delivery has no batch. Cure: add - batch: {{}} to delivery.")
    with application_dag(
        spec,
        "delivery",
        "Predicts the examples that arrived, with the champion, and publishes the predictions.",
        schedule=schedule_of(batch.schedule),
    ) as dag:
        plan = PlanBatchOperator(
            task_id="plan_batch",
            application=name,
            store=spec.store,
            model=spec.registration.model,
            code=code_of(spec),
            mlflow_conn_id=mlflow,
        )
        dataset = ProvisionDatasetOperator(
            task_id="provision",
            purpose="prediction",
            window_start=XComArg(plan, key="window_start"),
            when_empty="skip",
            assumptions=None if batch.assumptions == "off" else assumptions_of(spec),
            warn_only=batch.assumptions == "warn",
            **dataset_arguments(spec),
        )
        PredictBatchOperator(
            task_id="predict",
            code=XComArg(plan, key="code"),
            training=plan.output,
            dataset=dataset.output,
            mlflow_conn_id=mlflow,
            outlets=[predictions_asset(name)],
            **model_code_arguments(spec),
        )
    return dag
