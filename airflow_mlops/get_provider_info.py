"""What Airflow's provider manager wants to know."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Describe the package as an Airflow provider: hooks and connection types."""
    return {
        "package-name": "airflow-mlops",
        "name": "MLOps",
        "description": "The machine-learning loop on Apache Airflow, from one YAML file per application.",
        "integrations": [
            {
                "integration-name": "Feast",
                "external-doc-url": "https://docs.feast.dev/",
                "tags": ["software"],
            },
            {
                "integration-name": "MLflow",
                "external-doc-url": "https://mlflow.org/docs/latest/",
                "tags": ["software"],
            },
        ],
        "hooks": [
            {"integration-name": "Feast", "python-modules": ["airflow_mlops.hooks.feast"]},
            {"integration-name": "MLflow", "python-modules": ["airflow_mlops.hooks.mlflow"]},
        ],
        "connection-types": [
            {
                "connection-type": "feast",
                "hook-class-name": "airflow_mlops.hooks.feast.FeastHook",
                "hook-name": "Feast",
                "conn-fields": {
                    "repo_path": {
                        "label": "Repository path",
                        "schema": {"type": ["string", "null"]},
                        "description": "Folder with feature_store.yaml, as the workers see it.",
                    },
                },
                "ui-field-behaviour": {
                    "hidden-fields": ["host", "schema", "login", "password", "port"],
                    "relabeling": {},
                    "placeholders": {"repo_path": "/opt/airflow/features"},
                },
            },
            {
                "connection-type": "mlflow",
                "hook-class-name": "airflow_mlops.hooks.mlflow.MLflowHook",
                "hook-name": "MLflow",
                "conn-fields": {},
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {
                        "host": "Tracking server (URL)",
                        "login": "User (empty for a token)",
                        "password": "Password or token",
                    },
                    "placeholders": {"host": "https://mlflow.example.com"},
                },
            },
        ],
    }
