"""The names of the assets that join the DAGs of applications and feature pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import Asset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import AssetWatcher


def _asset(application: str, noun: str) -> Asset:
    return Asset(name=f"{application}.{noun}", uri=f"mlops://{application}/{noun}", group="mlops")


def features_asset(features: str) -> Asset:
    """A feature pipeline published rows; the event's extra says how many, and in which partitions."""
    return Asset(name=f"{features}.features", uri=f"mlops://features/{features}", group="mlops")


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
    """There is a reason to train; the event's extra says which (see ``primitives/reasons/``)."""
    return _asset(application, "retraining")


def training_asset(application: str) -> Asset:
    """A training began or ended; the event's extra says why, and how. It stands on the page of the DAG run."""
    return _asset(application, "training")


def code_asset(application: str, watchers: Sequence[AssetWatcher] = ()) -> Asset:
    """There is new model code; the event's extra names it. Whoever builds it may say so, or a watcher notices.

    Only the training DAG declares it with its watchers, all others refer to it by name: Airflow would end them.
    """
    return Asset(
        name=f"{application}.code", uri=f"mlops://{application}/code", group="mlops", watchers=list(watchers)
    )


def online_store_asset(feast_conn_id: str) -> Asset:
    """The online store behind a Feast connection; its state remembers how far each view was copied into it."""
    return Asset(name=f"{feast_conn_id}.online_store", uri=f"mlops://feast/{feast_conn_id}", group="mlops")
