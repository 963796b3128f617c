"""From a file to its DAGs: what the stub beside each YAML calls."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import get_parsing_context

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories.delivery import build_delivery_dag
from airflow_mlops.factories.monitoring import build_monitoring_dag
from airflow_mlops.factories.provisioning import build_provisioning_dag
from airflow_mlops.factories.training import build_training_dag
from airflow_mlops.spec import load_application

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from airflow_mlops.spec import ApplicationSpec

_BUILDERS: dict[str, Callable[[ApplicationSpec], DAG]] = {
    "provisioning": build_provisioning_dag,
    "training": build_training_dag,
    "delivery": build_delivery_dag,
    "monitoring": build_monitoring_dag,
}
_APPLICATION = re.compile(
    rb"""^[ \t{]*["']?application["']?[ \t]*:[ \t]*["']?([A-Za-z0-9_]+)""", re.MULTILINE
)


def build_dags(spec: ApplicationSpec, only: str | None = None) -> dict[str, DAG]:
    """Build the DAGs of one application.

    :param only: build just this ``dag_id``, as a worker needs it.
    :returns: ``dag_id`` → DAG. Without a delivery in the YAML there are no predictions to monitor either.
    """
    wanted = ["provisioning", "training", *(["delivery", "monitoring"] if spec.delivery else [])]
    names = {f"{spec.application}__{primitive}": primitive for primitive in wanted}
    return {dag_id: _BUILDERS[names[dag_id]](spec) for dag_id in names if only in (None, dag_id)}


def application_dags(stub: str) -> dict[str, DAG]:
    """Build the DAGs of the YAML beside a stub (``flight_delay.py`` → ``flight_delay.yaml``).

    :raises SpecError: for everything wrong in the file, with lines; Airflow shows it as the import error
        of the stub, and all other applications stay alive.
    """
    path = next((p for p in map(Path(stub).with_suffix, (".yaml", ".yml")) if p.is_file()), None)
    if path is None:
        raise SpecError(
            f"{stub}: there is no YAML of this name beside it. Cure: airflow-mlops generate {Path(stub).parent}"
        )
    spec = load_application(path)
    _refuse_twins(path, spec.application)
    return build_dags(spec, only=get_parsing_context().dag_id)


def _refuse_twins(path: Path, application: str) -> None:
    for other in sorted((*path.parent.glob("*.yaml"), *path.parent.glob("*.yml"))):
        if other == path:
            continue
        found = _APPLICATION.search(other.read_bytes())
        if found and found[1].decode() == application:
            raise SpecError(
                f"{path}: application: {application} is also the name in {other.name}. "
                "Cure: give one of them another name; both would build the same DAGs."
            )
