"""JSON documents, written by the one function of the contract; a DAG file that only names a task loads none of it."""

from __future__ import annotations

from typing import Any

__all__ = ["json_text"]


def json_text(value: Any, **options: Any) -> str:
    """See :func:`airflow_mlops.contract.protocol.documents.json_text`."""
    from airflow_mlops.contract.protocol.documents import json_text as written

    return written(value, **options)
