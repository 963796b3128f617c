"""Every sensor of the package, by its name; see :mod:`airflow_mlops.operators`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops import lazily

if TYPE_CHECKING:
    from airflow_mlops.sensors.provisioning import FeaturesFreshSensor

__all__ = [
    "FeaturesFreshSensor",
]

__getattr__ = lazily(
    {
        "FeaturesFreshSensor": "airflow_mlops.sensors.provisioning",
    }
)
