"""YAML → DAGs.

The DAGs of a file are at hand at once; what only the loader needs is loaded when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops import lazily
from airflow_mlops.factories.files import application_dags, build_dags

if TYPE_CHECKING:
    from airflow_mlops.factories.maintenance import maintenance_dags
    from airflow_mlops.factories.stubs import ensure_stubs

__all__ = ["application_dags", "build_dags", "ensure_stubs", "maintenance_dags"]

__getattr__ = lazily(
    {
        "ensure_stubs": "airflow_mlops.factories.stubs",
        "maintenance_dags": "airflow_mlops.factories.maintenance",
    }
)
