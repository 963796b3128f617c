"""The event triggers that a DAG may watch an asset with; see :mod:`airflow_mlops.operators`.

Triggers that only deferred operators use are not part of the interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops import lazily

if TYPE_CHECKING:
    from airflow_mlops.triggers.model_code import NewModelCodeTrigger

__all__ = [
    "NewModelCodeTrigger",
]

__getattr__ = lazily(
    {
        "NewModelCodeTrigger": "airflow_mlops.triggers.model_code",
    }
)
