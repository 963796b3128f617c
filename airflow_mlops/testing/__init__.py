"""Test kits: of model code, and of Feast offline stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops import lazily

if TYPE_CHECKING:
    from airflow_mlops.contract.testing import ModelCodeTestCase
    from airflow_mlops.testing.offline_store.conformance import read_config, run_conformance

__all__ = ["ModelCodeTestCase", "read_config", "run_conformance"]

__getattr__ = lazily(
    {
        "ModelCodeTestCase": "airflow_mlops.contract.testing",
        "read_config": "airflow_mlops.testing.offline_store.conformance",
        "run_conformance": "airflow_mlops.testing.offline_store.conformance",
    }
)
