"""``airflow-mlops validate``: check YAML files without Airflow."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from airflow_mlops.cli.report import UsageError, applications, from_here, print_json, problems_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="YAML file, or folder of them")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Check all files; 0 when all are good, 1 when there is a problem, 2 when there is no file."""
    try:
        loaded, errors = applications(arguments.paths)
    except UsageError as error:
        print(f"airflow-mlops validate: {error}", file=sys.stderr)
        return 2
    problems = problems_of(errors)
    if arguments.json:
        found = [{"application": one.spec.application, "file": str(from_here(one.path))} for one in loaded]
        print_json(
            {"ok": not problems, "applications": found, "problems": [one.to_dict() for one in problems]}
        )
        return 1 if problems else 0
    for one in loaded:
        print(f"OK  {from_here(one.path)}: {one.spec.application}")
    for problem in problems:
        print(problem)
    if problems:
        print(f"{_count(len(problems), 'problem')} in {_count(len(errors), 'application')}")
    return 1 if problems else 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
