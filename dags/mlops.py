"""Airflow DAG loader: writes the stub beside each application YAML. Copy it into your DAG folder."""

from pathlib import Path

from airflow_mlops.factories.stubs import ensure_stubs

ensure_stubs(Path(__file__).parent / "applications")
