"""Provisioning: sources → dataset version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops.assets import dataset_asset
from airflow_mlops.factories.application import (
    application_dag,
    line_form,
    line_of_form,
    training_dataset_arguments,
)
from airflow_mlops.factories.schedules import schedule_of
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.primitives.datasets.branches import line_name

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_mlops.spec import ApplicationSpec


def build_provisioning_dag(spec: ApplicationSpec) -> DAG:
    """Build ``<application>__provisioning``."""
    with application_dag(
        spec,
        "provisioning",
        "Joins the examples with their features and publishes an immutable dataset version.",
        schedule=schedule_of(spec.provisioning.schedule),
        params=line_form(),
        user_defined_macros={"line_name": line_name},
    ) as dag:
        ProvisionDatasetOperator(
            task_id="provision",
            outlets=[dataset_asset(spec.application)],
            **{**training_dataset_arguments(spec), **line_of_form(spec)},
        )
    return dag
