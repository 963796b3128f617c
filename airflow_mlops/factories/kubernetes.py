"""The runner of a Kubernetes cluster, as an application's YAML describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_mlops.spec.training.training import Training

#: Keys that are the runner's own; all others describe its pods.
_RUNNERS = ("connection", "namespace", "staging", "start_timeout")


def kubernetes_runner(training: Training) -> dict[str, Any]:
    """Kind and options of the runner for ``run_on: kubernetes``."""
    options = training.kubernetes
    said = {key: value for key, value in options.to_json().items() if key not in _RUNNERS}
    pod = {key: value for key, value in said.items() if value not in ({}, [])}
    return {
        "kind": "kubernetes",
        "kubernetes_conn_id": options.connection,
        "namespace": options.namespace or "",
        "staging": options.staging,
        "start_timeout": options.start_timeout.total_seconds(),
        "time_limit": training.timeout.total_seconds(),
        "pod": pod | ({"disk": options.disk} if options.disk else {}),
    }
