"""``training.docker:``: which Docker Engine runs model code."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator

from airflow_mlops.spec.places.place import Place
from airflow_mlops.spec.values import ConnectionId, complaint, no_doubles


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


class DockerOptions(Place):
    """How to reach the Docker Engine."""

    about: ClassVar[str] = "For run_on: docker."

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

    def runner(self, jobs: str, time_limit: timedelta) -> dict[str, Any]:  # noqa: ARG002
        """See :meth:`.Place.runner`."""
        if not self.nodes:
            return {"kind": "docker", "docker_conn_id": self.connection}
        if self.node != "any":
            return {"kind": "docker", "docker_conn_id": self.node}
        return {"kind": "docker_nodes", "nodes": list(self.nodes)}

    def job_network(self) -> str:
        """See :meth:`.Place.job_network`."""
        return self.network
