"""``airflow-mlops assumptions suggest``: rules that a dataset version keeps today, as YAML to start from."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.report import UsageError, print_json
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from airflow_mlops.stores.datasets.versions import DatasetStore

#: What YAML reads as something else, or not at all, where it is not escaped.
_UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NO_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    commands = parser.add_subparsers(dest="tool", metavar="TOOL", required=True)
    suggest = commands.add_parser(
        "suggest",
        help="propose rules from a dataset version",
        description="Propose rules that a dataset version keeps today, with room for tomorrow. Judge them: what is "
        "rare is not in the data yet, and what is wrong may be.",
    )
    suggest.add_argument(
        "dataset",
        metavar="DATASET",
        nargs="?",
        default="latest",
        help="id of a version, its beginning, or a reference (default: latest)",
    )
    suggest.add_argument(
        "--file", type=Path, metavar="YAML", help="the application's file, for store and name"
    )
    suggest.add_argument("--store", metavar="URI", help="the artifact store")
    suggest.add_argument("--application", metavar="NAME", help="the application")
    suggest.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the rules; 2 when the command line does not say of what."""
    try:
        store, application = _where(arguments)
    except UsageError as error:
        print(f"airflow-mlops assumptions: {error}", file=sys.stderr)
        return 2
    from airflow_mlops.hooks.store.open import open_store
    from airflow_mlops.stores.datasets.versions import DatasetStore

    datasets = DatasetStore(open_store(store), application)
    dataset_id = datasets.find(arguments.dataset)
    rules = _suggest(datasets, dataset_id)
    if arguments.json:
        print_json({"dataset_id": dataset_id, "application": application, "assumptions": rules})
    else:
        print(
            f"# {len(rules)} rules that dataset {dataset_id[:12]} of {application} keeps; below provisioning:"
        )
        print(as_yaml(rules), end="")
    return 0


def as_yaml(rules: list[dict[str, Any]]) -> str:
    """Rules as the key ``assumptions``, one line each."""
    return "\n".join(["assumptions:", *(f"  - {_flow(rule)}" for rule in rules)]) + "\n"


def _flow(value: Any) -> str:
    """A value on one line. Every reader of YAML must see the same in it: what might be no text stands in quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _NO_WORDS:
        return value
    return _UNPRINTABLE.sub(lambda sign: f"\\u{ord(sign[0]):04x}", json_text(value, ensure_ascii=False))


def _suggest(datasets: DatasetStore, dataset_id: str) -> list[dict[str, Any]]:
    from airflow_mlops.primitives.assumptions.suggest import suggest_rules
    from airflow_mlops.primitives.datasets.making.stored import open_version
    from airflow_mlops.primitives.sources.session import connect

    with scratch_folder() as scratch:
        home = Path(scratch)
        with connect(home / "spill", "2GB") as connection:
            version = open_version(
                connection,
                datasets.manifest(dataset_id),
                lambda split: datasets.paths(dataset_id, split, home),
            )
            return suggest_rules(
                connection,
                version.relation,
                version.files,
                version.columns,
                order=version.order,
                context=version.context(),
            )


def _where(arguments: argparse.Namespace) -> tuple[str, str]:
    """Store and name of the application."""
    if arguments.file is not None:
        if not arguments.file.is_file():
            raise UsageError(f"{arguments.file} does not exist. Cure: name the YAML file of an application.")
        from airflow_mlops.spec import load_application

        spec = load_application(arguments.file)
        return arguments.store or spec.store, arguments.application or spec.application
    if not (arguments.store and arguments.application):
        raise UsageError("no dataset named. Cure: give --store URI and --application NAME, or --file YAML.")
    return arguments.store, arguments.application
