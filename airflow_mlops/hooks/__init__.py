"""The hooks of the package, by their names; see :mod:`airflow_mlops.operators`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops import lazily

if TYPE_CHECKING:
    from airflow_mlops.hooks.aws.batch import BatchHook
    from airflow_mlops.hooks.aws.cloudwatch import CloudWatchHook
    from airflow_mlops.hooks.aws.sagemaker import SageMakerTrainingHook
    from airflow_mlops.hooks.docker.hook import DockerEngineHook
    from airflow_mlops.hooks.feast.hook import FeastHook
    from airflow_mlops.hooks.git.repository import GitHook
    from airflow_mlops.hooks.kubernetes.hook import KubernetesClusterHook
    from airflow_mlops.hooks.mlflow.hook import MLflowHook
    from airflow_mlops.hooks.registry import RegistryHook

__all__ = [
    "BatchHook",
    "CloudWatchHook",
    "DockerEngineHook",
    "FeastHook",
    "GitHook",
    "KubernetesClusterHook",
    "MLflowHook",
    "RegistryHook",
    "SageMakerTrainingHook",
]

__getattr__ = lazily(
    {
        "BatchHook": "airflow_mlops.hooks.aws.batch",
        "CloudWatchHook": "airflow_mlops.hooks.aws.cloudwatch",
        "DockerEngineHook": "airflow_mlops.hooks.docker.hook",
        "FeastHook": "airflow_mlops.hooks.feast.hook",
        "GitHook": "airflow_mlops.hooks.git.repository",
        "KubernetesClusterHook": "airflow_mlops.hooks.kubernetes.hook",
        "MLflowHook": "airflow_mlops.hooks.mlflow.hook",
        "RegistryHook": "airflow_mlops.hooks.registry",
        "SageMakerTrainingHook": "airflow_mlops.hooks.aws.sagemaker",
    }
)
