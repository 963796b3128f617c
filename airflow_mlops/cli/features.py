"""``airflow-mlops features``: questions to the feature store that is configured."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.report import UsageError, print_json

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig

    from airflow_mlops.testing.offline_store.judge import CaseResult

_OURS = "airflow_mlops.AsofOfflineStore"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    commands = parser.add_subparsers(dest="features_command", metavar="COMMAND", required=True)
    conformance = commands.add_parser(
        "conformance",
        help="ask an offline store the questions that every point-in-time join must answer rightly",
        description="Ask an offline store the questions that every point-in-time join must answer rightly. It is "
        "asked about rows of the suite's own, in files, tables and a registry that are gone afterwards.",
    )
    which = conformance.add_mutually_exclusive_group()
    which.add_argument("--repo", metavar="PATH", type=Path, help="folder of a feature_store.yaml")
    which.add_argument("--feast-conn", metavar="ID", help="Airflow connection of the feature store")
    which.add_argument(
        "--store", metavar="TYPE", default=_OURS, help="type of an offline store, with its defaults (ours)"
    )
    conformance.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print how the store answers; 1 when an answer is wrong, 2 when no store is where it was said to be."""
    from airflow_mlops.testing.offline_store.conformance import check_store, warning_about

    try:
        config = _config(arguments)
    except UsageError as error:
        print(f"airflow-mlops features conformance: {error}", file=sys.stderr)
        return 2
    known = warning_about(config)
    logging.getLogger("airflow_mlops.testing.offline_store.conformance").setLevel(
        logging.ERROR
    )  # it is printed here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of Feast and its libraries about each other
        results = check_store(config)
    store = str(config.offline_store.type)
    if arguments.json:
        print_json(
            {"store": store, "warning": known, **_counts(results), "cases": [r.to_json() for r in results]}
        )
    else:
        _print(store, known, results)
    return 1 if any(result.outcome == "fails" for result in results) else 0


def _config(arguments: argparse.Namespace) -> RepoConfig:
    from airflow_mlops.hooks.connections.find import find_connection
    from airflow_mlops.testing.offline_store.conformance import connection_config, read_config

    repo: Path | None = arguments.repo
    if repo is not None and not (repo / "feature_store.yaml").is_file():
        raise UsageError(f"{repo} has no feature_store.yaml")
    conn_id: str | None = arguments.feast_conn
    if not conn_id:
        return read_config(repo, None if repo else arguments.store)
    find_connection(conn_id, UsageError, "feast")
    return connection_config(conn_id)


def _counts(results: list[CaseResult]) -> dict[str, Any]:
    outcomes = [result.outcome for result in results]
    return {name.replace(" ", "_"): outcomes.count(name) for name in ("pass", "fails", "not supported")}


def _print(store: str, known: str, results: list[CaseResult]) -> None:
    print(f"offline store {store}")
    if known:
        print(f"warning: {known}")
    width = max(len(result.case) for result in results)
    for result in results:
        print(f"  {result.case:<{width}}  {result.outcome}")
        if result.outcome != "pass":
            print(f"    {result.about}\n    {result.detail}")
    counts = _counts(results)
    print(f"{counts['pass']} pass, {counts['fails']} fail, {counts['not_supported']} not supported")
