"""``airflow-mlops reproduce``: train a registered model again, and compare."""

from __future__ import annotations

from airflow_mlops.cli.reproduce.command import add_arguments, run

__all__ = ["add_arguments", "run"]
