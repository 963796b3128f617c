"""The YAML: strict models of an application and of a feature pipeline, and their loader."""

from __future__ import annotations

from airflow_mlops.spec.application import ApplicationSpec
from airflow_mlops.spec.defaults import DEFAULTS_FILES, defaults_files
from airflow_mlops.spec.features import FeaturesSpec
from airflow_mlops.spec.loader import (
    LoadedFile,
    Spec,
    application_files,
    load_application,
    load_features,
    load_files,
    load_folder,
    load_spec,
    name_problems,
    stated_names,
)
from airflow_mlops.spec.problems import Place, Problem, SpecFileError
from airflow_mlops.spec.schema import json_schema
from airflow_mlops.spec.together import doubts
from airflow_mlops.spec.values import AssetSchedule

__all__ = [
    "DEFAULTS_FILES",
    "ApplicationSpec",
    "AssetSchedule",
    "FeaturesSpec",
    "LoadedFile",
    "Place",
    "Problem",
    "Spec",
    "SpecFileError",
    "application_files",
    "defaults_files",
    "doubts",
    "json_schema",
    "load_application",
    "load_features",
    "load_files",
    "load_folder",
    "load_spec",
    "name_problems",
    "stated_names",
]
