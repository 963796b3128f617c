"""``airflow-mlops validate``: check YAML files without Airflow."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.cli.report import (
    UsageError,
    from_here,
    print_json,
    problems_of,
    seen_from_here,
    yaml_files,
)
from airflow_mlops.spec import doubts

if TYPE_CHECKING:
    from airflow_mlops.spec import LoadedFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="YAML file, or folder of them")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Check all files; 0 when all are good, 1 when there is a problem, 2 when there is no file."""
    try:
        loaded, errors = yaml_files(arguments.paths)
    except UsageError as error:
        print(f"airflow-mlops validate: {error}", file=sys.stderr)
        return 2
    problems, warnings = problems_of(errors), seen_from_here(doubts(loaded))
    if arguments.json:
        print_json(
            {
                "ok": not problems,
                "applications": _found(loaded, "application"),
                "features": _found(loaded, "features"),
                "problems": [one.to_dict() for one in problems],
                "warnings": [one.to_dict() for one in warnings],
            }
        )
        return 1 if problems else 0
    for one in loaded:
        print(f"OK  {from_here(one.path)}: {one.name}{' (features)' if one.kind == 'features' else ''}")
    for warning in warnings:
        print(f"warning: {warning}")
    for problem in problems:
        print(problem)
    if problems:
        print(f"{_count(len(problems), 'problem')} in {_count(len(errors), 'file')}")
    return 1 if problems else 0


def _found(loaded: list[LoadedFile], kind: str) -> list[dict[str, str]]:
    return [{kind: one.name, "file": str(from_here(one.path))} for one in loaded if one.kind == kind]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
