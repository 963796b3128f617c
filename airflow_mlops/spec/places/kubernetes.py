"""``training.kubernetes:``: where in a cluster model code runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, StringConstraints

from airflow_mlops.spec.places.place import Gpus, Place
from airflow_mlops.spec.store import StoreUri
from airflow_mlops.spec.values import (
    ConnectionId,
    FreeText,
    PositiveDuration,
    Section,
    Size,
    WholeNumber,
    duration,
)

DnsName = Annotated[
    str, StringConstraints(strict=True, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.\-]*[a-z0-9])?$")
]
DnsLabel = Annotated[
    str, StringConstraints(strict=True, max_length=63, pattern=r"^[a-z0-9]([a-z0-9\-]*[a-z0-9])?$")
]
LabelKey = Annotated[
    str,
    StringConstraints(
        strict=True,
        max_length=317,
        pattern=r"^([a-z0-9]([a-z0-9.\-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.\-]{0,61}[A-Za-z0-9])?$",
    ),
]
LabelValue = Annotated[
    str, StringConstraints(strict=True, pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.\-]{0,61}[A-Za-z0-9])?)?$")
]


#: Keys that are the runner's own; all others describe its pods.
_RUNNERS = ("connection", "namespace", "staging", "start_timeout")


class Toleration(Section):
    """A taint of machines that the pods may run on all the same."""

    key: LabelKey | None = Field(default=None, description="Key of the taint; null: every key.")
    operator: Literal["Equal", "Exists"] = Field(default="Equal", description="How value is compared.")
    value: LabelValue | None = Field(default=None, description="Value of the taint; none with Exists.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint; null: every effect."
    )
    tolerationSeconds: WholeNumber | None = Field(  # noqa: N815  as Kubernetes spells it
        default=None, ge=0, description="Seconds that a NoExecute taint is borne; null: for ever."
    )


class KubernetesOptions(Place):
    """How to reach a cluster, and what its pods are like."""

    about: ClassVar[str] = "For run_on: kubernetes."
    gpus: ClassVar[Gpus] = Gpus(
        (int, dict),
        "must be a number with run_on: {run_on}",
        "a number, or {type: NVIDIA-H100-80GB-HBM3, count: 2}",
    )
    machines: ClassVar[bool] = True
    staged: ClassVar[bool] = True

    connection: ConnectionId = Field(
        default="kubernetes_default",
        description="Airflow connection of type kubernetes. Where this one does not exist: the account of Airflow's "
        "own pod, or the kube config of its machine.",
    )
    namespace: DnsLabel | None = Field(
        default=None, description="Namespace of the jobs. Default: the connection's, else default."
    )
    staging: StoreUri | None = Field(
        default=None,
        description="s3://bucket/prefix through which data goes in and out. Default: the application's store, if it "
        "is on S3.",
    )
    service_account: DnsName | None = Field(
        default=None, description="Service account of the pods, whose token they do not get."
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default={}, description="Labels that a machine must have."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), description="Taints that the pods do not mind, as Kubernetes writes them."
    )
    affinity: dict[str, JsonValue] | None = Field(
        default=None, description="Affinity of the pods, as Kubernetes writes it."
    )
    image_pull_secrets: tuple[DnsName, ...] = Field(
        default=(), description="Secrets with the login of the image's registry."
    )
    labels: dict[LabelKey, LabelValue] = Field(default={}, description="Labels of the jobs and pods.")
    annotations: dict[LabelKey, FreeText] = Field(default={}, description="Annotations of the jobs and pods.")
    priority_class: DnsName | None = Field(default=None, description="Priority class of the pods.")
    runtime_class: DnsName | None = Field(
        default=None, description="Runtime class of the pods, such as nvidia or gvisor."
    )
    disk: Size | None = Field(
        default=None, description="What a job may write; null: what the machine has room for."
    )
    gpu_resource: LabelKey = Field(
        default="nvidia.com/gpu", description="What the cluster's device plugin calls a GPU."
    )
    gpu_type_label: LabelKey = Field(
        default="nvidia.com/gpu.product",
        description="Label of machines that says the type of their GPUs; resources.gpus.type must be its whole value.",
    )
    start_timeout: PositiveDuration = Field(
        default=duration("30m"), description="Longest wait for a machine, the image and the volumes."
    )

    def runner(self, jobs: str, time_limit: timedelta) -> dict[str, Any]:  # noqa: ARG002
        """See :meth:`.Place.runner`."""
        said = {key: value for key, value in self.to_json().items() if key not in _RUNNERS}
        pod = {key: value for key, value in said.items() if value not in ({}, [])}
        return {
            "kind": "kubernetes",
            "kubernetes_conn_id": self.connection,
            "namespace": self.namespace or "",
            "staging": self.staging,
            "start_timeout": self.start_timeout.total_seconds(),
            "time_limit": time_limit.total_seconds(),
            "pod": pod | ({"disk": self.disk} if self.disk else {}),
        }
