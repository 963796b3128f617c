"""What the DAGs of one application have in common."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Param

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories.verbatim import Template, VerbatimDag
from airflow_mlops.spec import ApplicationSpec
from airflow_mlops.spec.values import format_duration

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_mlops.spec import FeaturesSpec

#: Tries after the first of a task that only keeps the books, even where a training has none.
BOOKKEEPING_RETRIES = 3

_START = datetime(2024, 1, 1, tzinfo=UTC)


def application_dag(spec: ApplicationSpec, primitive: str, summary: str, **kwargs: Any) -> DAG:
    """An empty DAG ``<application>__<primitive>`` with the YAML as its documentation."""
    return VerbatimDag(
        dag_id=f"{spec.application}__{primitive}",
        description=summary,
        doc_md=f"{spec.description}\n\n{summary}\n\n```yaml\n{spec.source_text}\n```",
        start_date=_START,
        catchup=False,
        max_active_runs=1,
        tags=["mlops", spec.application, *spec.tags],
        default_args={
            "owner": spec.owner,
            "retries": spec.training.retries,
            "retry_delay": spec.training.retry_delay,
            "execution_timeout": spec.task_timeout,
        },
        **kwargs,
    )


def model_code_arguments(spec: ApplicationSpec) -> dict[str, Any]:
    """Arguments that every operator running model code takes."""
    training = spec.training
    return {
        "application": spec.application,
        "store": spec.store,
        "runner": runner_of(spec),
        "limits": training.resources.limits(),
        "network": training.place.job_network(),
        "secrets": dict(training.secrets),
        **({"pool": training.pool, "pool_slots": training.pool_slots} if training.pool else {}),
        "seed": training.seed,
        "paradigm": spec.paradigm,
        "job_timeout": training.timeout.total_seconds(),
        "stall_timeout": training.stall_timeout.total_seconds() if training.stall_timeout else None,
        "deferrable": training.deferrable,
        "execution_timeout": job_task_timeout(spec, training.timeout, deferrable=training.deferrable),
    }


def job_task_timeout(
    spec: ApplicationSpec | FeaturesSpec, job: timedelta, *, deferrable: bool
) -> timedelta | None:
    """``execution_timeout`` of a task that waits for a job: what the job may take, and what a task may take beside it.

    None where the task is deferred: Airflow would count the wait, in which other limits hold.
    """
    return None if deferrable else job + spec.task_timeout


def runner_of(spec: ApplicationSpec | FeaturesSpec) -> dict[str, Any]:
    """Kind and options of the runner of a file's jobs, as ``get_runner`` takes them."""
    if isinstance(spec, ApplicationSpec):
        training = spec.training
        return training.place.runner(jobs_folder(spec.store, spec.application), training.timeout)
    if spec.prepare is None:
        raise SpecError(f"{spec.features} has no prepare.")
    jobs = jobs_folder(spec.store, f"features/{spec.features}")
    return spec.prepare.place.runner(jobs, spec.prepare.timeout)


def jobs_folder(store: str, name: str) -> str:
    """Where processes of model code have their folders: below the store, if that is a folder itself.

    Beside a store that is none, ``$AIRFLOW_HOME/mlops-jobs/<name>`` of the worker.
    """
    if "://" not in store:
        return f"{store}/{name}/jobs"
    home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
    return str(home / "mlops-jobs" / name)


def code_of(spec: ApplicationSpec) -> dict[str, Any]:
    """Where the model code is: an image, or a command in a folder."""
    if spec.training.place.runs == "image":
        return {"image": spec.code.image}
    process = spec.code.process
    if process is None:
        raise SpecError(f"{spec.application}: run_on: process needs code.process (directory and command).")
    return {"entrypoint": list(process.command), "directory": str(process.directory)}


def dataset_arguments(spec: ApplicationSpec) -> dict[str, Any]:
    """Arguments of every task that provisions a dataset of the application."""
    provisioning = spec.provisioning
    return {
        "application": spec.application,
        "store": spec.store,
        "examples": examples_of(spec),
        "features": provisioning.features,
        "feast_conn_id": provisioning.feature_store,
        "code": {"image": spec.code.image} if spec.code.image else None,
    }


def training_dataset_arguments(spec: ApplicationSpec) -> dict[str, Any]:
    """Arguments of the tasks that provision a training dataset: the same question, the same version."""
    provisioning = spec.provisioning
    return {
        **dataset_arguments(spec),
        "window": format_duration(provisioning.window) if provisioning.window else None,
        "split": provisioning.split.model_dump(mode="json"),
        "assumptions": assumptions_of(spec),
    }


def assumptions_of(spec: ApplicationSpec) -> list[dict[str, Any]]:
    """The rules about the data, as JSON values."""
    return [rule.model_dump(mode="json", exclude_none=True) for rule in spec.provisioning.assumptions]


def line_form() -> dict[str, Param]:
    """What a person may say who provisions beside production."""
    return {
        "line": Param(
            None,
            type=["null", "string"],
            pattern=r"^(?!(main|latest)$)[a-z0-9][a-z0-9_.\-]{0,62}$",
            title="Line",
            description="Provision into a line of its own, such as new-weather: production is not touched. Empty for "
            "production.",
        ),
        "features": Param(
            None,
            type=["null", "string"],
            title="Feature service",
            description="Another one than the YAML's. The line is called after it, if you give none.",
        ),
        "code": Param(
            None,
            type=["null", "string"],
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-/:@+]{0,299}$",
            title="Code version",
            description="Another image than the YAML's, or its digest, for which the dataset is made. The line is "
            "called after it, if you give none.",
        ),
    }


def line_of_form(spec: ApplicationSpec) -> dict[str, Any]:
    """Arguments by :func:`line_form`: neither another feature service nor other code gets into production's line.

    They call ``line_name``, which the DAG has to have among its macros.
    """
    features, image = _quoted(spec.provisioning.features), _quoted(spec.code.image)
    return {
        "features": Template(f"{{{{ params.features or {features} }}}}"),
        "line": Template("{{ params.line or line_name(params.features, params.code) }}"),
        "code": {"image": Template(f"{{{{ params.code or {image} }}}}")},
    }


def _quoted(text: str | None) -> str:
    """A text as Jinja and JSON quote it."""
    return json.dumps(text or "", ensure_ascii=False, allow_nan=False)


def examples_of(spec: ApplicationSpec) -> dict[str, Any]:
    """The examples as JSON values."""
    return spec.provisioning.examples.model_dump(mode="json", exclude_none=True)


def training_form() -> dict[str, Param]:
    """What a person may say who starts a training."""
    return {
        "why": Param(
            "",
            type=["null", "string"],
            title="Why",
            description="Goes to the run's page, its MLflow run and the model. May be left empty.",
        ),
        "parameters": Param(
            {},
            type=["null", "object"],
            title="Parameters",
            description="Hyperparameters, stronger than those of the YAML. May be left empty.",
        ),
    }
