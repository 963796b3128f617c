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
            {"integration-name": "Feast", "python-modules": ["airflow_mlops.hooks.feast.hook"]},
            {"integration-name": "MLflow", "python-modules": ["airflow_mlops.hooks.mlflow.hook"]},
        ],
        "config": {
            "mlops": {
                "description": "Options of airflow-mlops.",
                "options": {
                    "scratch_folder": {
                        "description": "Local folder of each worker for what tasks need for a while: inputs, results, "
                        "rows that do not fit into memory. Empty: a folder of this installation below the system's "
                        "folder for temporary files.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/scratch/airflow-mlops",
                        "default": "",
                    }
                },
            }
        },
        "extra-links": [
            "airflow_mlops.operators.links.MLflowRunLink",
            "airflow_mlops.operators.links.MLflowReportLink",
            "airflow_mlops.operators.links.MLflowModelLink",
        ],
        "connection-types": [
            {
                "connection-type": "feast",
                "hook-class-name": "airflow_mlops.hooks.feast.hook.FeastHook",
                "hook-name": "Feast",
                "conn-fields": {
                    "repo_path": _text(
                        "Repository path",
                        "Folder with feature_store.yaml, as the workers see it. Empty: what follows stands for it.",
                    ),
                    "project": _text("Project", "Name of the Feast project."),
                    "registry": _text(
                        "Registry",
                        "A URL (sqlite:////srv/registry.db, s3://bucket/registry.db), or JSON that names an Airflow "
                        'connection with the login: {"connection": "feast_registry"}.',
                    ),
                    "offline_store": _text(
                        "Offline store",
                        'Its type, or JSON: {"type": "postgres", "connection": "warehouse"}. Empty: our own.',
                    ),
                    "online_store": _text(
                        "Online store",
                        'JSON: {"type": "sqlite", "path": "/srv/features/online.db"}. Empty: none.',
                    ),
                    "entity_key_serialization_version": {
                        "label": "Entity key version",
                        "schema": {"type": ["integer", "null"], "minimum": 3},
                        "description": "Empty: 3.",
                    },
                },
                "ui-field-behaviour": {
                    "hidden-fields": ["host", "schema", "login", "password", "port"],
                    "relabeling": {},
                    "placeholders": {
                        "repo_path": "/opt/airflow/features",
                        "project": "churn",
                        "registry": '{"connection": "feast_registry"}',
                        "offline_store": "spark",
                    },
                },
            },
            {
                "connection-type": "mlflow",
                "hook-class-name": "airflow_mlops.hooks.mlflow.hook.MLflowHook",
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


def _text(label: str, description: str) -> dict[str, Any]:
    return {"label": label, "schema": {"type": ["string", "null"]}, "description": description}
