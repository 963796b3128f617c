"""``airflow-mlops generate``: the three-line Python file that Airflow wants beside each YAML."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from airflow_mlops.cli.report import from_here, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="folder of YAML files; those below it count too"
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if something would change"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Write the stubs; 1 when files share a name, or with ``--check`` when one is missing, stale or left over."""
    if not arguments.folder.is_dir():
        what = "is not a folder" if arguments.folder.exists() else "does not exist"
        cure = "Cure: name the folder of the YAML files."
        print(f"airflow-mlops generate: {arguments.folder} {what}. {cure}", file=sys.stderr)
        return 2
    from airflow_mlops.factories.stubs import write_stubs

    done = write_stubs(arguments.folder, check=arguments.check)
    if arguments.json:
        print_json([{"file": str(from_here(path)), "action": action} for path, action in done])
    else:
        for path, action in done:
            print(f"{action:<9}  {from_here(path)}")
        if not arguments.check and any(action == "written" for _, action in done):
            print(
                "Airflow looks for new files every [dag_processor] refresh_interval seconds (300 unless set): until "
                "then a new DAG is not there. Cure for at once: airflow dags reserialize"
            )
    stale = any(action != "unchanged" for _, action in done)
    return 1 if _twins(arguments.folder) or (arguments.check and stale) else 0


def _twins(folder: Path) -> bool:
    """Whether files of the folder share the name of an application or a registered model; says which."""
    from airflow_mlops.factories.twins import files_around, find_twins, told

    found = find_twins(files_around(folder))
    for path, others in sorted(found.items()):
        print(f"airflow-mlops generate: {told(path, others)}", file=sys.stderr)
    return bool(found)
