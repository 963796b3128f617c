"""``training.distributed:``: how many processes train one model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from airflow_mlops.spec.values import Section, WholeNumber

Processes = Annotated[WholeNumber, Field(ge=1, le=1024)] | Literal["gpu"]


class Distributed(Section):
    """Several processes that train one model, launched by torchrun."""

    nodes: WholeNumber = Field(
        default=1,
        ge=1,
        le=1024,
        description="Machines; more than one needs run_on: kubernetes, aws_batch or sagemaker.",
    )
    processes_per_node: Processes = Field(default=1, description="Processes on each machine; gpu: one a GPU.")
