"""Assumptions of the model code that do not hold, for the people who read about it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import ContractError
from airflow_mlops.jobs.files import JSON_LIMIT

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

READ = "airflow_mlops.primitives.training.outcome:read_broken_assumptions"


def report_broken(output: Path, store: str, application: str, command: str) -> str:
    """What the model code found broken: in the log, in full as a report in the store, and in words for the error.

    :param output: folder with what was collected of the job.
    :param store: URI of the artifact store.
    """
    from airflow_mlops.hooks.connections.masking import without_known_secrets
    from airflow_mlops.hooks.store.open import open_store
    from airflow_mlops.primitives.training.outcome import assumption_lines
    from airflow_mlops.stores.datasets.reports import put_report
    from airflow_mlops.stores.datasets.versions import DatasetStore

    failures = without_known_secrets(_failures(output / "output/assumptions.json"))
    if not failures:
        return ""
    lines = assumption_lines(failures)
    log.error("%d assumption(s) of the model code do not hold:\n%s", len(failures), lines)
    report = {"application": application, "command": command, "findings": failures}
    address = put_report(DatasetStore(open_store(store), application), "model-code", report)
    return f"\n{lines}\nFull report: {address}"


def _failures(path: Path) -> list[dict[str, Any]]:
    """What is reported beside the end of a job, which counts whatever this says."""
    from airflow_mlops.primitives.container_output.judging import judge_file

    if not path.is_file():
        return []
    try:
        found: list[dict[str, Any]] = judge_file(READ, path, "output/assumptions.json", limit=JSON_LIMIT)
    except ContractError as error:
        log.warning("What the model code says of its assumptions is left out: %s", error)
        return []
    return found
