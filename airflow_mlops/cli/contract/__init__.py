"""``airflow-mlops contract``: whether an image keeps the contract of model code, on real rows."""

from __future__ import annotations

from airflow_mlops.cli.contract.command import add_arguments, run

__all__ = ["add_arguments", "run"]
