"""``python -m airflow_mlops.contract [check ROOT]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops import __version__
from airflow_mlops.contract.check import check_output
from airflow_mlops.contract.paths import CONTRACT_VERSION, Paths

if TYPE_CHECKING:
    from collections.abc import Sequence

_HELP = f"""\
airflow-mlops {__version__}: model-code contract {CONTRACT_VERSION}

  python -m airflow_mlops.contract              this text
  python -m airflow_mlops.contract check ROOT   check what a job left below ROOT (its /opt/ml)

Model code is a class that inherits airflow_mlops.contract.ModelCode, and a last line main(TheClass):
the entrypoint of its image then takes one word, describe, train, evaluate, test, predict or serve.
"""


def run(words: Sequence[str]) -> int:
    """Run the command line; 0 when all is well, 1 for a broken contract, 2 for wrong words."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(_HELP)
        return 0
    if len(words) != 2 or words[0] != "check":
        print(_HELP, file=sys.stderr)
        return 2
    root = Path(words[1])
    if not root.is_dir():
        print(f"{root} is no folder.", file=sys.stderr)
        return 2
    problems = check_output(Paths(root))
    print("\n".join(problems) or f"{root}: nothing breaks contract {CONTRACT_VERSION}.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
