"""The steps of a feature pipeline: extract, transform or prepare, publish."""

from __future__ import annotations

from airflow_mlops.operators.extraction import ExtractFeaturesOperator
from airflow_mlops.operators.publication import PublishFeaturesOperator
from airflow_mlops.operators.transformation import PrepareFeaturesOperator, TransformFeaturesOperator

__all__ = [
    "ExtractFeaturesOperator",
    "PrepareFeaturesOperator",
    "PublishFeaturesOperator",
    "TransformFeaturesOperator",
]
