"""``airflow-mlops demo``: the whole loop on the flights that left New York in 2013."""

from __future__ import annotations

from airflow_mlops.cli.demo.command import add_arguments, run

__all__ = ["add_arguments", "run"]
