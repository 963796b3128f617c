"""``registration:``: the registered model."""

from __future__ import annotations

from pydantic import Field

from airflow_mlops.spec.values import Flag, Section, Text, WholeNumber, unstated


class Registration(Section):
    """Under which name a model is registered."""

    model: Text = Field(
        default="",
        description="Name of the registered model in MLflow. Default: the application's name.",
        json_schema_extra=unstated,
    )
    promote: Flag = Field(
        default=True,
        description="A model that passes the gate becomes champion at once. false: it is the challenger until somebody "
        "moves the alias.",
    )
    limits: tuple[Text, ...] = Field(
        default=(),
        description="What the model must not be used for, and what is known of its limits: for its card.",
    )
    input_example: WholeNumber = Field(
        default=5,
        ge=0,
        le=1000,
        description="Rows of the dataset that go with the model as its input example; 0 for none.",
    )
