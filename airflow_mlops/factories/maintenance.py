"""Maintenance: what finished tasks left behind is removed, once an hour."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, get_parsing_context

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories.application import runner_of
from airflow_mlops.factories.verbatim import VerbatimDag
from airflow_mlops.operators.maintenance import ReapJobsOperator
from airflow_mlops.operators.training.runs import CloseRunsOperator
from airflow_mlops.primitives.texts.documents import json_text
from airflow_mlops.spec import ApplicationSpec, application_files, load_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_mlops.spec import Spec

DAG_ID = "mlops_maintenance"


def maintenance_dags(loader: str) -> dict[str, DAG]:
    """Build ``mlops_maintenance`` for all YAML files of a DAG folder; what the loader ``mlops.py`` calls.

    A broken file is left out here: its own stub says what is wrong with it.

    :param loader: the file beside which ``applications/`` and ``features/`` are.
    """
    if get_parsing_context().dag_id not in (None, DAG_ID):
        return {}
    specs = list(_specs(Path(loader).absolute().parent))
    return {DAG_ID: build_maintenance_dag(specs)} if specs else {}


def build_maintenance_dag(specs: Sequence[Spec]) -> DAG:
    """Build ``mlops_maintenance`` for the places in which these applications and pipelines run model code."""
    runners = [runner for spec in specs if (runner := _runner(spec)) is not None]
    with VerbatimDag(
        dag_id=DAG_ID,
        description="Removes jobs and checkpoints whose tasks are over.",
        doc_md="Removes containers, GPU leases and checkpoints whose task instance is over or was deleted, and only "
        "those that this Airflow started.",
        schedule="@hourly",
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        tags=["mlops"],
        default_args={
            "retries": 1,
            "retry_delay": timedelta(minutes=5),
            "execution_timeout": timedelta(hours=1),
        },
    ) as dag:
        ReapJobsOperator(
            task_id="reap",
            # Many applications share an engine.
            runners=[
                json.loads(text) for text in sorted({json_text(each, sort_keys=True) for each in runners})
            ],
            stores=sorted({spec.store for spec in specs}),
            applications=sorted({_name(spec) for spec in specs}),
        )
        for connection in sorted(_connections(specs)):
            CloseRunsOperator(task_id=f"close_runs__{connection}", mlflow_conn_id=connection)
    return dag


def _specs(folder: Path) -> Iterator[Spec]:
    for name in ("applications", "features"):
        for file in application_files(folder / name) if (folder / name).is_dir() else ():
            try:
                yield load_spec(file)
            except SpecError:
                continue


def _runner(spec: Spec) -> dict[str, Any] | None:
    return runner_of(spec) if isinstance(spec, ApplicationSpec) or spec.prepare else None


def _connections(specs: Sequence[Spec]) -> set[str]:
    return {spec.tracking.connection for spec in specs if isinstance(spec, ApplicationSpec)}


def _name(spec: Spec) -> str:
    return spec.application if isinstance(spec, ApplicationSpec) else spec.features
