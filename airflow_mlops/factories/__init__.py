"""YAML → DAGs."""

from __future__ import annotations

from airflow_mlops.factories.files import application_dags, build_dags

__all__ = ["application_dags", "build_dags"]
