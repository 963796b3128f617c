"""Reads the command line and hands over to one command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from airflow_mlops import __version__
from airflow_mlops.exceptions import MLOpsError

_COMMANDS = {
    "validate": "check YAML files; every problem with file, line and cure",
    "check": "hold a YAML against data, feature store, connections and store, without Airflow",
    "schema": "print the JSON schema of the YAML, for editors",
    "try": "provision, train, evaluate and judge on this machine; nothing is registered",
    "contract": "hold an image to the contract of model code: train, evaluate, test and predict on real rows",
    "plan": "print the DAGs and tasks that a YAML becomes",
    "generate": "write the Python file that Airflow reads beside each YAML",
    "dataset": "list, show, compare, fetch, check, rebuild and prune dataset versions",
    "assumptions": "propose rules about data from a dataset version",
    "features": "ask an offline store whether its training sets are right",
    "reproduce": "train a registered model again from its record, and compare",
    "init": "write a repository with a whole loop: YAML, model code, tests, Feast, a DAG that brings data, image, CI",
    "demo": "play the whole loop on the flights of 2013",
}
"""Command → help. Each is a module or package with ``add_arguments`` and ``run``."""
#: Where a command is that is not beside this module by its own name.
_MODULES = {
    "try": "trial",
    **{
        name: f"application.{name}"
        for name in ("validate", "check", "schema", "plan", "generate", "assumptions")
    },
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param argv: words after the program's name; those of the process by default.
    :return: exit code: 0 good, 1 problems, 2 wrong usage, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(words)
    try:
        arguments = parser.parse_args(words)
    except SystemExit as wish:  # argparse has said all there is to say
        return wish.code if isinstance(wish.code, int) else 2
    try:
        code: int = _module(arguments.command).run(arguments)
        sys.stdout.flush()
        return code
    except MLOpsError as error:
        print(f"airflow-mlops {arguments.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airflow-mlops", description="One YAML file per machine-learning application."
    )
    parser.add_argument("--version", action="version", version=f"airflow-mlops {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name in words:  # the others need not be imported to be listed
            _module(name).add_arguments(command)
    return parser


def _module(command: str) -> ModuleType:
    return import_module(f"airflow_mlops.cli.{_MODULES.get(command, command)}")
