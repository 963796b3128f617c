"""``airflow-mlops try``: the tasks of a training on this machine."""

from __future__ import annotations

from airflow_mlops.cli.trial.command import add_arguments, run

__all__ = ["add_arguments", "run"]
