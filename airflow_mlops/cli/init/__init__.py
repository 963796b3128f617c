"""``airflow-mlops init``: a repository for the model code of one application."""

from __future__ import annotations

from airflow_mlops.cli.init.command import add_arguments, run

__all__ = ["add_arguments", "run"]
