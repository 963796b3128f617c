"""``python -m airflow_mlops.contract``: the tools of a model's repository, with the standard library alone."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops import __version__
from airflow_mlops.contract.container.supervision import become
from airflow_mlops.contract.container.supervision import run as run_command
from airflow_mlops.contract.protocol.paths import CONTRACT_VERSION, Paths
from airflow_mlops.contract.tools.announce import AnnouncementError, announce
from airflow_mlops.contract.tools.check import check_output
from airflow_mlops.contract.tools.image import check_image

if TYPE_CHECKING:
    from collections.abc import Sequence

_HELP = f"""\
airflow-mlops {__version__}: model-code contract {CONTRACT_VERSION}

  python -m airflow_mlops.contract               this text
  python -m airflow_mlops.contract check IMAGE   check an image on the local Docker Engine
  python -m airflow_mlops.contract check IMAGE --data FOLDER …
                                                 train, evaluate, test and predict in it on real rows, as
                                                 `airflow-mlops contract check` does; needs the whole package
  python -m airflow_mlops.contract check ROOT    check what a job left below the folder ROOT (its /opt/ml)
  python -m airflow_mlops.contract run -- …      run a command line as a job: bring its data where the runner cannot,
                                                 send its results, pass on SIGTERM and the exit code
  python -m airflow_mlops.contract announce APPLICATION URL [KEY=VALUE …]
                                                 tell the Airflow at URL that there is new model code; login from
                                                 AIRFLOW_TOKEN, or AIRFLOW_USER and AIRFLOW_PASSWORD

Model code is a class that inherits airflow_mlops.contract.ModelCode, and a last line main(TheClass):
the entrypoint of its image then takes one word, describe, train, evaluate, test, predict or serve.
"""


def run(words: Sequence[str]) -> int:
    """Run the command line; 0 when all is well, 1 for a broken contract, 2 for wrong words."""
    match list(words):
        case [] | ["-h" | "--help" | "help", *_]:
            print(_HELP)
            return 0
        case ["run", "--", first, *more] | ["run", first, *more] if first != "--":
            return run_command([first, *more])
        case ["check", what]:
            return _check(what)
        case ["check", *words] if any(word.startswith("--data") for word in words):
            return _check_on_rows(words)
        case ["announce", application, url, *pairs] if all("=" in pair for pair in pairs):
            return _announce(application, url, dict(pair.split("=", 1) for pair in pairs))
    print(_HELP, file=sys.stderr)
    return 2


def _check(what: str) -> int:
    folder = Path(what)
    if not folder.is_dir() and what.startswith((".", "/")):
        print(f"{what} is no folder.", file=sys.stderr)
        return 2
    problems = check_output(Paths(folder)) if folder.is_dir() else check_image(what)
    print("\n".join(problems) or f"{what}: nothing breaks contract {CONTRACT_VERSION}.")
    return 1 if problems else 0


def _check_on_rows(words: list[str]) -> int:
    """Become the command line of the whole package, if that is here."""
    missing = [name for name in ("airflow", "duckdb") if find_spec(name) is None]
    if not missing:
        become([sys.executable, "-m", "airflow_mlops.cli", "contract", "check", *words])
    print(
        f"check --data needs the whole of airflow-mlops, and {' and '.join(missing)} cannot be imported. Cure: pip "
        "install airflow-mlops, without --no-deps.",
        file=sys.stderr,
    )
    return 2


def _announce(application: str, url: str, said: dict[str, str]) -> int:
    try:
        number = announce(url, application, said)
    except AnnouncementError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Event {number} on {application}.code.")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
