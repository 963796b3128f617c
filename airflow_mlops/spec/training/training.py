"""``training:``: how and where a model is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, ValidationInfo, field_validator

from airflow_mlops.spec.places.aws import (
    AwsBatchOptions,
    SageMakerOptions,
    check_gpus,
    check_place,
    check_secrets,
)
from airflow_mlops.spec.places.kubernetes import KubernetesOptions, check_cluster_gpus
from airflow_mlops.spec.training.distributed import Distributed
from airflow_mlops.spec.training.resources import TrainingResources
from airflow_mlops.spec.training.tuning import Tuning
from airflow_mlops.spec.values import (
    ConnectionId,
    Duration,
    Flag,
    Label,
    PositiveDuration,
    Section,
    Text,
    WholeNumber,
    complaint,
    duration,
    no_doubles,
    section,
    unstated,
)


def _own_network(value: str) -> str:
    if value == "host":
        raise complaint(
            "would be the machine's own network",
            expected="none, bridge, or a network's name",
            cure="write bridge",
        )
    return value


Network = Annotated[
    str,
    StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}$"),
    AfterValidator(_own_network),
]
SecretName = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")]


class DockerOptions(Section):
    """How to reach the Docker Engine."""

    connection: ConnectionId = Field(
        default="docker_default", description="Airflow connection of type docker, when there are no nodes."
    )
    nodes: Annotated[tuple[ConnectionId, ...], AfterValidator(no_doubles)] = Field(
        default=(),
        description="Airflow connections of type docker: a job runs on the one that has room for it.",
    )
    node: ConnectionId = Field(
        default="any", description="One of nodes, or any: the first whose GPUs are free, else the emptiest."
    )
    network: Network = Field(
        default="none", description="Docker network of the container; none for no network."
    )

    @field_validator("node")
    @classmethod
    def _one_of_nodes(cls, value: str, info: ValidationInfo) -> str:
        nodes = info.data.get("nodes", ())
        if value != "any" and value not in nodes:
            raise complaint(
                "is none of nodes",
                expected=f"any{''.join(f', {node}' for node in nodes)}",
                cure=f"write node: any, or add {value} to nodes",
            )
        return value


class Training(Section):
    """How and where a model is trained."""

    run_on: Literal["docker", "process", "kubernetes", "aws_batch", "sagemaker"] = Field(
        default="docker",
        description="Where model code runs. Default: docker when code.image is given, else process.",
        json_schema_extra=unstated,
    )
    docker: DockerOptions = section("For run_on: docker.")
    kubernetes: KubernetesOptions = section("For run_on: kubernetes.")
    aws_batch: AwsBatchOptions = section("For run_on: aws_batch.")
    sagemaker: SageMakerOptions = section("For run_on: sagemaker.")
    resources: TrainingResources = section("Limits of each container.")
    parameters: dict[Text, JsonValue] = Field(
        default={}, description="Parameters of the model code, checked against what it describes."
    )
    distributed: Distributed = section("Several processes that train one model.")
    tuning: Tuning | None = Field(
        default=None, description="Search good parameters first; null: train with those given."
    )
    secrets: dict[SecretName, ConnectionId] = Field(
        default={},
        description="What the model code must know and nobody else: name → Airflow connection. It finds each as "
        "input/secrets/<name>.json.",
    )
    pool: Label | None = Field(
        default=None,
        description="Airflow pool of the tasks that run model code; with `include deferred` it bounds how many jobs "
        "there are at once.",
    )
    pool_slots: WholeNumber = Field(default=1, ge=1, le=1000, description="Slots of it that one job takes.")
    seed: WholeNumber = Field(default=0, ge=0, le=2**32 - 1, description="Seed of all randomness.")
    timeout: PositiveDuration = Field(
        default=duration("2h"), description="Longest time of one job: one command of the model code, once."
    )
    stall_timeout: PositiveDuration | None = Field(
        default=None,
        description="Longest time without a line of output, after which a job is taken for hung; null: none.",
    )
    retries: WholeNumber = Field(
        default=2, ge=0, le=100, description="Tries after the first, of every task of the application."
    )
    retry_delay: Duration = Field(default=duration("1m"), description="Pause between tries.")
    deferrable: Flag = Field(default=True, description="Wait in the triggerer instead of holding a worker.")

    @field_validator("aws_batch", "sagemaker")
    @classmethod
    def _what_aws_needs(cls, value: Section, info: ValidationInfo) -> Section:
        check_place(info.data.get("run_on"), str(info.field_name), value)
        return value

    @field_validator("resources")
    @classmethod
    def _gpus_that_aws_counts(cls, value: TrainingResources, info: ValidationInfo) -> TrainingResources:
        check_gpus(info.data.get("run_on"), value.limits()["gpus"])
        check_cluster_gpus(info.data.get("run_on"), value.limits()["gpus"])
        return value

    @field_validator("secrets")
    @classmethod
    def _secrets_that_stay_secret(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        check_secrets(info.data.get("run_on"), value)
        return value

    @field_validator("distributed")
    @classmethod
    def _nodes_that_meet(cls, value: Distributed, info: ValidationInfo) -> Distributed:
        if value.nodes > 1 and info.data.get("run_on") in ("docker", "process"):
            raise complaint(
                f"is {value.nodes}, and run_on: {info.data['run_on']} has one machine",
                expected="1, or run_on: kubernetes, aws_batch or sagemaker",
                cure="write nodes: 1 and processes_per_node",
                at=("nodes",),
            )
        return value
