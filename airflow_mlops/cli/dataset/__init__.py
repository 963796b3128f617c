"""``airflow-mlops dataset``: the dataset versions of an application."""

from __future__ import annotations

from airflow_mlops.cli.dataset.command import add_arguments, run

__all__ = ["add_arguments", "run"]
