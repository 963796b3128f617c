"""The names of the assets that join the DAGs of an application, and those that come from outside."""

from __future__ import annotations

from airflow.sdk import Asset


def _asset(application: str, noun: str) -> Asset:
    return Asset(name=f"{application}.{noun}", uri=f"mlops://{application}/{noun}", group="mlops")


def dataset_asset(application: str) -> Asset:
    """A new dataset version was published."""
    return _asset(application, "dataset")


def model_asset(application: str) -> Asset:
    """A new model version became the champion."""
    return _asset(application, "model")


def predictions_asset(application: str) -> Asset:
    """A batch of predictions was published."""
    return _asset(application, "predictions")


def retraining_asset(application: str) -> Asset:
    """There is a reason to train; the event's extra says which (see ``primitives/retraining.py``)."""
    return _asset(application, "retraining")
