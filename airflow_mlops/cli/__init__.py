"""The command line: ``airflow-mlops``."""

from __future__ import annotations

from airflow_mlops.cli.main import main

__all__ = ["main"]
