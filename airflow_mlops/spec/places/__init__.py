"""The places where jobs run: a section class for each, which declares what the place needs and can do."""

from __future__ import annotations

from airflow_mlops.spec.places.aws_batch import AwsBatchOptions
from airflow_mlops.spec.places.docker import DockerOptions
from airflow_mlops.spec.places.kubernetes import KubernetesOptions
from airflow_mlops.spec.places.place import Place
from airflow_mlops.spec.places.process import ProcessOptions
from airflow_mlops.spec.places.sagemaker import SageMakerOptions

__all__ = ["PLACES", "Place"]

#: The value of ``run_on`` → its section. A new place is added here, and nowhere else in this package.
PLACES: dict[str, type[Place]] = {
    "docker": DockerOptions,
    "process": ProcessOptions,
    "kubernetes": KubernetesOptions,
    "aws_batch": AwsBatchOptions,
    "sagemaker": SageMakerOptions,
}
