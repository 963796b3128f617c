"""What the Kubernetes runner creates: a Job, a Secret, and a Service where several machines train together."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.contract.protocol.distribution import PORT, RENDEZVOUS
from airflow_mlops.exceptions import RunnerError

if TYPE_CHECKING:
    from airflow_mlops.runners.protocol import ContainerJob, Resources

#: In front of every label and annotation that the runner sets.
PREFIX = "ai.airflow-mlops/"
NAME, TOKEN, STOPPED = f"{PREFIX}name", f"{PREFIX}token", f"{PREFIX}stopped"
#: Selects what any airflow-mlops made.
OURS = "app.kubernetes.io/managed-by=airflow-mlops"
#: The one container of a pod.
CONTAINER = "model"
#: The user that model code runs as, whatever the image says.
USER = 1000
#: Key of a Secret, and so name of the variable, that leads to the inputs.
TRANSFER = "MLOPS_TRANSFER"
#: Seconds between SIGTERM and SIGKILL when a machine is drained: a checkpoint must be written and uploaded.
DRAIN = 30

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.\-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True)
class PodOptions:
    """What a YAML may say of the pods of one application.

    :param disk: bytes that a job may write; ``None`` for what the machine allows.
    :param gpu_resource: what the device plugin calls a GPU.
    :param gpu_type_label: label of nodes that says the type of their GPUs.
    """

    service_account: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    affinity: Mapping[str, Any] | None = None
    image_pull_secrets: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    priority_class: str = ""
    runtime_class: str = ""
    disk: int | None = None
    gpu_resource: str = "nvidia.com/gpu"
    gpu_type_label: str = "nvidia.com/gpu.product"


def object_name(name: str) -> str:
    """A job's name in the letters that Kubernetes allows, short enough for the pods' host names."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    if not words[:1].isalpha():
        words = f"job-{words}"
    return f"{words}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def job_manifest(job: ContainerJob, options: PodOptions, token: str, time_limit: int) -> dict[str, Any]:
    """The Job, suspended until what it needs is there.

    :param token: makes the names of what belongs to it unlike those of an earlier Job of this name.
    :param time_limit: seconds from a pod's start after which the cluster ends it, should nobody watch it any more.
    """
    name, nodes = object_name(job.name), job.distribution.nodes
    labels = {**options.labels, **_labels(job)}
    annotations = {**options.annotations, **_annotations(job), TOKEN: token}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {
            "suspend": True,
            # Whether to try again is Airflow's to say.
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "completions": nodes,
            "parallelism": nodes,
            "completionMode": "Indexed" if nodes > 1 else "NonIndexed",
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {**_pod(job, options, token), "activeDeadlineSeconds": time_limit},
            },
        },
    }


def secret_manifest(
    job: ContainerJob, token: str, uid: str, transfer: str, files: Mapping[str, bytes]
) -> dict[str, Any]:
    """What no other object may show: the address of the inputs, and the job's secrets.

    :param uid: of the Job, with which it goes away.
    :param files: name → content of each file below ``input/secrets``.
    """
    contents = {TRANSFER: transfer.encode(), **{f"{name}.json": content for name, content in files.items()}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _owned(job, f"{object_name(job.name)}-{token}", uid),
        "type": "Opaque",
        "immutable": True,
        "data": {key: b64encode(content).decode() for key, content in contents.items()},
    }


def service_manifest(job: ContainerJob, uid: str) -> dict[str, Any]:
    """Gives each pod of several a name that the others find."""
    name = object_name(job.name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _owned(job, name, uid),
        "spec": {
            "clusterIP": "None",
            "selector": {NAME: name},
            # They look for each other before they are ready.
            "publishNotReadyAddresses": True,
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }


def _owned(job: ContainerJob, name: str, uid: str) -> dict[str, Any]:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": object_name(job.name), "uid": uid}
    return {"name": name, "labels": _labels(job), "ownerReferences": [owner]}


def _labels(job: ContainerJob) -> dict[str, str]:
    said = {f"{PREFIX}{key}": value for key, value in job.labels.items() if _LABEL.fullmatch(value)}
    return {
        **dict([OURS.split("=")]),
        **said,
        f"{PREFIX}command": job.command,
        NAME: object_name(job.name),
    }


def _annotations(job: ContainerJob) -> dict[str, str]:
    # A label's value has 63 characters at most and few kinds of them; the whole truth is here.
    said = {f"{PREFIX}{key}": value for key, value in job.labels.items()}
    return {**said, NAME: job.name, f"{PREFIX}image": job.image}


def _pod(job: ContainerJob, options: PodOptions, token: str) -> dict[str, Any]:
    selector = {**options.node_selector, **_gpu_selector(job.resources, options)}
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": DRAIN,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The first process is then the cluster's, which hands signals on and cleans up after orphans.
        "shareProcessNamespace": True,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(job, options, token)],
        "volumes": _volumes(job, options, token),
    }
    optional = {
        "serviceAccountName": options.service_account,
        "nodeSelector": selector,
        "tolerations": [dict(each) for each in options.tolerations],
        "affinity": options.affinity,
        "imagePullSecrets": [{"name": name} for name in options.image_pull_secrets],
        "priorityClassName": options.priority_class,
        "runtimeClassName": options.runtime_class,
        "subdomain": object_name(job.name) if job.distribution.nodes > 1 else "",
    }
    return spec | {key: value for key, value in optional.items() if value}


def _container(job: ContainerJob, options: PodOptions, token: str) -> dict[str, Any]:
    name = object_name(job.name)
    limits = _limits(job.resources, options)
    reference = {"name": f"{name}-{token}", "key": TRANSFER}
    environment: list[dict[str, Any]] = [
        {"name": "PYTHONUNBUFFERED", "value": "1"},
        {"name": TRANSFER, "valueFrom": {"secretKeyRef": reference}},
    ]
    if job.distribution.nodes > 1:
        # The index of a pod is in its environment by itself: JOB_COMPLETION_INDEX.
        environment.append({"name": RENDEZVOUS, "value": f"{name}-0.{name}:{PORT}"})
    mounts: list[dict[str, Any]] = [
        {"name": "work", "mountPath": "/opt/ml"},
        # Of its own, so that a mount below it leaves it to the job's user.
        {"name": "input", "mountPath": "/opt/ml/input"},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    if job.secrets:
        mounts.append({"name": "secrets", "mountPath": "/opt/ml/input/secrets", "readOnly": True})
    return {
        "name": CONTAINER,
        "image": job.image,
        "args": [job.command],
        "env": environment,
        "resources": {"requests": limits, "limits": limits} if limits else {},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
        # Where no line of the log can be had any more, its last ones are in the pod's state.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _volumes(job: ContainerJob, options: PodOptions, token: str) -> list[dict[str, Any]]:
    room: dict[str, Any] = {"sizeLimit": str(options.disk)} if options.disk else {}
    volumes: list[dict[str, Any]] = [
        {"name": "work", "emptyDir": room},
        {"name": "input", "emptyDir": room},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(job.resources.shm)}},
    ]
    if job.secrets:
        items = [{"key": f"{name}.json", "path": f"{name}.json"} for name in sorted(job.secrets)]
        # Read by the group alone, which is that of the job's user.
        secret = {"secretName": f"{object_name(job.name)}-{token}", "items": items, "defaultMode": 0o440}
        volumes.append({"name": "secrets", "secret": secret})
    return volumes


def _limits(resources: Resources, options: PodOptions) -> dict[str, str]:
    gpus, _ = _gpus(resources)
    limits = {
        "cpu": f"{round(resources.cpus * 1000)}m" if resources.cpus else "",
        "memory": str(resources.memory or ""),
        "ephemeral-storage": str(options.disk or ""),
        options.gpu_resource: str(gpus or ""),
    }
    return {key: value for key, value in limits.items() if value}


def _gpu_selector(resources: Resources, options: PodOptions) -> dict[str, str]:
    _, gpu_type = _gpus(resources)
    return {options.gpu_type_label: gpu_type} if gpu_type else {}


def _gpus(resources: Resources) -> tuple[int, str]:
    """Number of GPUs, and their type where it matters."""
    asked = resources.gpus
    if isinstance(asked, int):
        return asked, ""
    if not isinstance(asked, Mapping):
        raise RunnerError(
            f"Kubernetes gives GPUs by number; got gpus: {asked!r}. Cure: write a number, or {{type: …, count: …}}."
        )
    return int(asked.get("count") or 1), str(asked["type"])
