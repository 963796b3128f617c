"""``registration:``: the registered model."""

from __future__ import annotations

from pydantic import Field

from airflow_mlops.spec.values import Section, Text, unstated


class Registration(Section):
    """Under which name a model is registered."""

    model: Text = Field(
        default="",
        description="Name of the registered model in MLflow. Default: the application's name.",
        json_schema_extra=unstated,
    )
