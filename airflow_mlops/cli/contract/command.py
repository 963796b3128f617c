"""The words of ``airflow-mlops contract check``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    check = parser.add_subparsers(dest="what", metavar="check", required=True).add_parser(
        "check", help="hold an image, or what a job left, to the contract"
    )
    check.add_argument("subject", metavar="IMAGE", help="image on this engine, or a folder that a job left")
    check.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        help="train, evaluate, test and predict on the rows there: a fetched dataset version, a job's /opt/ml, or "
        "Parquet or CSV files",
    )
    check.add_argument("--keys", type=_names, metavar="A,B", help="columns that identify a row")
    check.add_argument("--timestamp", metavar="COLUMN", help="column with the time of a row")
    check.add_argument("--targets", type=_names, metavar="COLUMN", help="column to learn")
    check.add_argument("--parameters", type=_object, metavar="JSON", help="what to train with")
    check.add_argument("--network", default="none", metavar="NAME", help="Docker network of the containers")


def run(arguments: argparse.Namespace) -> int:
    """Check; 0 when nothing breaks the contract, 1 when something does, 2 for wrong words."""
    from airflow_mlops.contract.__main__ import run as check_alone

    alone = check_alone(["check", arguments.subject])
    if alone or arguments.data is None:
        return alone
    if Path(arguments.subject).is_dir():
        print(
            f"airflow-mlops contract check: {arguments.subject} is a folder, and --data is for images. Cure: name the "
            "image.",
            file=sys.stderr,
        )
        return 2
    from airflow_mlops.cli.contract.data import find_rows
    from airflow_mlops.cli.contract.rehearsal import rehearse

    said = {"keys": arguments.keys, "timestamp": arguments.timestamp, "targets": arguments.targets}
    rows = find_rows(arguments.data, said, arguments.parameters)
    print(rehearse(arguments.subject, rows, arguments.network))
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"no JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('expected an object such as {"depth": 3}')
    return value
