"""Assumptions of the model code that do not hold, for the people who read about it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_mlops.operators.container_files import JSON_LIMIT

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


def report_broken(output: Path, store: str, application: str, command: str) -> str:
    """What the model code found broken: in the log, in full as a report in the store, and in words for the error.

    :param output: folder with what was collected of the job.
    :param store: URI of the artifact store.
    """
    from airflow_mlops.hooks.datasets.versions import DatasetStore
    from airflow_mlops.hooks.secrets import without_known_secrets
    from airflow_mlops.hooks.store.base import open_store
    from airflow_mlops.operators.assumption_reports import put_report
    from airflow_mlops.primitives.training.outcome import assumption_lines, broken_assumptions

    path = output / "output/assumptions.json"
    if not path.is_file() or path.stat().st_size > JSON_LIMIT:
        return ""
    failures = without_known_secrets(broken_assumptions(path.read_bytes()))
    if not failures:
        return ""
    lines = assumption_lines(failures)
    log.error("%d assumption(s) of the model code do not hold:\n%s", len(failures), lines)
    report = {"application": application, "command": command, "findings": failures}
    address = put_report(DatasetStore(open_store(store), application), "model-code", report)
    return f"\n{lines}\nFull report: {address}"
