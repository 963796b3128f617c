"""The YAML: one strict model of an application, and its loader."""

from __future__ import annotations

from airflow_mlops.spec.application import ApplicationSpec
from airflow_mlops.spec.defaults import DEFAULTS_FILE
from airflow_mlops.spec.loader import (
    LoadedApplication,
    application_files,
    load_application,
    load_files,
    load_folder,
)
from airflow_mlops.spec.problems import Place, Problem, SpecFileError
from airflow_mlops.spec.schema import json_schema
from airflow_mlops.spec.values import AssetSchedule

__all__ = [
    "DEFAULTS_FILE",
    "ApplicationSpec",
    "AssetSchedule",
    "LoadedApplication",
    "Place",
    "Problem",
    "SpecFileError",
    "application_files",
    "json_schema",
    "load_application",
    "load_files",
    "load_folder",
]
