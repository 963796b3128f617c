"""``airflow-mlops schema``: the JSON schema, for completion in editors."""

from __future__ import annotations

import argparse

from airflow_mlops.cli.report import print_json
from airflow_mlops.spec import json_schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands: nothing."""
    parser.epilog = "Begin a YAML file with  # yaml-language-server: $schema=PATH  to use it in an editor."


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001
    """Print the schema."""
    print_json(json_schema())
    return 0
