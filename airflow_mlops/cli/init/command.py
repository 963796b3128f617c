"""The words of ``airflow-mlops init``, and what it writes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from string import Template

from airflow_mlops import __version__
from airflow_mlops.exceptions import SpecError

_TEMPLATE = Path(__file__).with_name("template")
_NAME = re.compile(r"[a-z][a-z0-9_]{1,59}")
#: Files that belong to one CI system.
_CI = {"github": ".github/workflows/model.yml", "gitlab": ".gitlab-ci.yml"}


class _Words(Template):
    """Placeholders as ``%name%``: dollars and braces belong to shells, YAML and Python."""

    delimiter = "%"
    pattern = r"""
    %(?:
      (?P<escaped>(?!)) |
      (?P<named>[a-z_]+)% |
      (?P<braced>(?!)) |
      (?P<invalid>(?!))
    )
    """  # type: ignore[assignment]  # typeshed wants a compiled one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Words of the command."""
    parser.add_argument("application", help="its name: lower case, digits and underscores, as house_price")
    parser.add_argument("--folder", type=Path, help="where; by default a new folder of the name")
    parser.add_argument(
        "--registry", default="registry.example.com", help="where CI pushes the image; default: %(default)s"
    )
    parser.add_argument(
        "--ci", choices=["github", "gitlab", "both", "none"], default="both", help="default: %(default)s"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the repository; nothing that is there is touched.

    :raises SpecError: a name that no application may have, or files that are there already.
    """
    name = arguments.application
    if not _NAME.fullmatch(name):
        raise SpecError(
            f"An application's name must be lower-case letters, digits and underscores, beginning with a letter; got "
            f"{name!r}."
        )
    folder = arguments.folder or Path(name)
    files = render(name, arguments.registry, arguments.ci)
    if there := sorted(path for path in files if (folder / path).exists()):
        raise SpecError(
            f"{folder} has {', '.join(there)} already, and nothing is overwritten. Cure: --folder another one."
        )
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
        print(f"  {folder / path}")
    print(
        f"\nNext: cd {folder}, pip install -r requirements-dev.txt, pytest; README.md says what comes then."
    )
    return 0


def render(application: str, registry: str, ci: str = "both") -> dict[str, str]:
    """The files of the repository: path → text."""
    words = {
        "application": application,
        "image": application.replace("_", "-"),
        "registry": registry.rstrip("/"),
        "class_name": "".join(part.capitalize() for part in application.split("_")),
        "version": __version__,
    }
    unwanted = {path for system, path in _CI.items() if ci not in (system, "both")}
    files = {}
    for source in sorted(_TEMPLATE.rglob("*.tmpl")):
        path = source.relative_to(_TEMPLATE).as_posix().removesuffix(".tmpl")
        if path not in unwanted:
            files[path.replace("application_name", application)] = _Words(
                source.read_text(encoding="utf-8")
            ).substitute(words)
    return files
