"""Reports on what did not hold: all findings with the rows that break them, kept in the store."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import AssumptionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_mlops.primitives.assumptions import Finding
    from airflow_mlops.primitives.datasets.manifest import Manifest
    from airflow_mlops.stores.datasets.versions import DatasetStore

__all__ = ["put_report", "report_failure", "report_warnings"]

log = logging.getLogger(__name__)


def put_report(datasets: DatasetStore, name: str, report: Mapping[str, Any]) -> str:
    """Write a report beside the dataset versions, once whatever its content, and say where it is."""
    from airflow_mlops.hooks.store.base import json_bytes

    digest = hashlib.sha256(json_bytes(report)).hexdigest()[:16]
    key = datasets.key("assumptions", f"{name}-{digest}.json")
    datasets.store.put_json_if_absent(key, report)
    return datasets.store.address(key)


def report_failure(error: AssumptionError, datasets: DatasetStore, name: str) -> AssumptionError:
    """The error with the place of its full report, which is written."""
    report = {"application": datasets.application, "message": str(error), "findings": error.failures}
    return AssumptionError(f"{error} Full report: {put_report(datasets, name, report)}", error.failures)


def report_warnings(
    datasets: DatasetStore, manifest: Manifest, findings: Sequence[Finding]
) -> dict[str, str]:
    """Write the report on a version that some assumptions only warn of.

    :return: what the record of the run says of it: ``report`` and its address; nothing when all hold.
    """
    from airflow_mlops.primitives.assumptions import report

    if all(finding.passed for finding in findings):
        return {}
    content = {"application": datasets.application, "dataset_id": manifest.id, **report(findings)}
    address = put_report(datasets, f"dataset-{manifest.id[:12]}", content)
    log.warning("Assumptions that only warn do not hold. Full report: %s", address)
    return {"report": address}
