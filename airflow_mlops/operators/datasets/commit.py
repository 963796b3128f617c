"""What all operators do that publish a dataset version: who made it, where it stands, what they return."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.datasets.branches import MAIN

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.primitives.datasets.manifest import Manifest

__all__ = ["commit_record", "result_of"]

_LIBRARIES = ("airflow-mlops", "duckdb", "feast", "pyarrow")


def commit_record(context: Context, *, line: str, **facts: Any) -> dict[str, Any]:
    """Who makes a version, when and with what: everything that the version itself must not depend on.

    :param line: the line it belongs to; all but the main one are experiments.
    :param facts: more to write down.
    """
    task = context.get("ti")
    bundle = getattr(task, "bundle_instance", None)
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "dag_id": getattr(task, "dag_id", None),
        "task_id": getattr(task, "task_id", None),
        "run_id": getattr(task, "run_id", None),
        "try_number": getattr(task, "try_number", None),
        "git": _text(getattr(bundle, "version", None)) or os.environ.get("GIT_COMMIT"),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "line": line,
        "retention": "production" if line == MAIN else "experiment",
        **facts,
    }


def result_of(manifest: Manifest, *, created: bool, store: str, line: str) -> dict[str, Any]:
    """What a task that publishes a version returns."""
    return {
        "dataset_id": manifest.id,
        "rows": manifest.rows,
        "window": list(manifest.window),
        "splits": manifest.splits,
        "created": created,
        "store": store,
        "application": manifest.application,
        "line": line,
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
