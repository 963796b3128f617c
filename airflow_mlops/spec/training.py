"""``training:``: how and where a model is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from airflow_mlops.spec.values import (
    ConnectionId,
    Duration,
    Flag,
    Number,
    PositiveDuration,
    Section,
    Size,
    Text,
    WholeNumber,
    duration,
    section,
    size,
    unstated,
)

Network = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}$")]


class DockerOptions(Section):
    """How to reach the Docker Engine."""

    connection: ConnectionId = Field(
        default="docker_default", description="Airflow connection of type docker."
    )
    network: Network = Field(
        default="none", description="Docker network of the container; none for no network."
    )


class TrainingResources(Section):
    """Limits of each container."""

    cpus: Number | None = Field(
        default=None, gt=0, le=4096, description="CPU cores, fractions allowed; null: no limit."
    )
    memory: Size = Field(default=size("4g"), description="Memory, swap included.")
    shm: Size = Field(default=size("64m"), description="Shared memory (/dev/shm).")
    pids: WholeNumber = Field(default=512, ge=1, le=4194304, description="Most processes and threads.")


class Training(Section):
    """How and where a model is trained."""

    run_on: Literal["docker", "process"] = Field(
        default="docker",
        description="Where model code runs. Default: docker when code.image is given, else process.",
        json_schema_extra=unstated,
    )
    docker: DockerOptions = section("For run_on: docker.")
    resources: TrainingResources = section("Limits of each container.")
    parameters: dict[Text, JsonValue] = Field(
        default={}, description="Parameters of the model code, checked against what it describes."
    )
    seed: WholeNumber = Field(default=0, ge=0, le=2**32 - 1, description="Seed of all randomness.")
    timeout: PositiveDuration = Field(
        default=duration("2h"), description="Longest time of one job: one command of the model code, once."
    )
    retries: WholeNumber = Field(
        default=2, ge=0, le=100, description="Tries after the first, of every task of the application."
    )
    retry_delay: Duration = Field(default=duration("1m"), description="Pause between tries.")
    deferrable: Flag = Field(default=True, description="Wait in the triggerer instead of holding a worker.")
