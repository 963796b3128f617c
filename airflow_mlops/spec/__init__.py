"""The YAML: strict models of an application and of a feature pipeline, and their loader."""

from __future__ import annotations

from airflow_mlops.spec.application import ApplicationSpec
from airflow_mlops.spec.features.pipeline import FeaturesSpec
from airflow_mlops.spec.reading.defaults import DEFAULTS_FILES, defaults_files
from airflow_mlops.spec.reading.loader import (
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
from airflow_mlops.spec.reading.problems import Place, Problem, SpecFileError
from airflow_mlops.spec.reading.schema import json_schema
from airflow_mlops.spec.reading.together import doubts
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
