"""From a file to its DAGs: what the stub beside each YAML calls."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import get_parsing_context

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories.provisioning import build_provisioning_dag
from airflow_mlops.factories.training import build_training_dag
from airflow_mlops.factories.twins import refuse_twins
from airflow_mlops.spec import ApplicationSpec, load_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from airflow_mlops.spec import Spec

#: For each form of delivery the DAGs that it asks for: last part of their id → module and function.
_FORM_DAGS = {
    "batch": {
        "delivery": ("airflow_mlops.factories.delivery", "build_delivery_dag"),
        "monitoring": ("airflow_mlops.factories.monitoring", "build_monitoring_dag"),
    },
}


def build_dags(spec: Spec, only: str | None = None) -> dict[str, DAG]:
    """Build the DAGs of one application, or the one of a feature pipeline.

    :param only: build just this ``dag_id``, as a worker needs it.
    :returns: ``dag_id`` → DAG. Without a delivery in the YAML there are no predictions to monitor either.
    """
    if not isinstance(spec, ApplicationSpec):
        dag_id = f"{spec.features}__features"
        if only not in (None, dag_id):
            return {}
        # Here and not above: most DAG files are of applications, and need none of it.
        from airflow_mlops.factories.features import build_features_dag

        return {dag_id: build_features_dag(spec)}
    builders = {f"{spec.application}__{name}": build for name, build in _builders(spec).items()}
    return {dag_id: build(spec) for dag_id, build in builders.items() if only in (None, dag_id)}


def _builders(spec: ApplicationSpec) -> dict[str, Callable[[ApplicationSpec], DAG]]:
    builders: dict[str, Callable[[ApplicationSpec], DAG]] = {
        "provisioning": build_provisioning_dag,
        "training": build_training_dag,
    }
    for item in spec.delivery:
        for name, (module, function) in _FORM_DAGS[item.kind].items():
            builders[name] = getattr(import_module(module), function)
    return builders


def application_dags(stub: str) -> dict[str, DAG]:
    """Build the DAGs of the YAML beside a stub (``flight_delay.py`` → ``flight_delay.yaml``).

    :raises SpecError: for everything wrong in the file, with lines; Airflow shows it as the import error
        of the stub, and all other files stay alive.
    """
    path = next((p for p in map(Path(stub).with_suffix, (".yaml", ".yml")) if p.is_file()), None)
    if path is None:
        raise SpecError(
            f"{stub}: there is no YAML of this name beside it. Cure: airflow-mlops generate {Path(stub).parent}"
        )
    spec = load_spec(path)
    refuse_twins(path, Path(stub))
    return build_dags(spec, only=get_parsing_context().dag_id)
