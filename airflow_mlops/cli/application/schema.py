"""``airflow-mlops schema``: the JSON schema, for completion in editors, or the reference of the YAML."""

from __future__ import annotations

import argparse

from airflow_mlops.cli.report import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--features", action="store_true", help="that of a feature pipeline instead of an application"
    )
    which.add_argument("--markdown", action="store_true", help="print the reference of all keys instead")
    parser.epilog = "Begin a YAML file with  # yaml-language-server: $schema=PATH  to use it in an editor."


def run(arguments: argparse.Namespace) -> int:
    """Print the schema, or the reference."""
    if arguments.markdown:
        from airflow_mlops.spec.reading.reference import markdown

        print(markdown(), end="")
        return 0
    from airflow_mlops.spec import json_schema

    print_json(json_schema("features" if arguments.features else "application"))
    return 0
