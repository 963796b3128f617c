"""The words of ``airflow-mlops init``, and what it writes."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template

from airflow_mlops import __version__
from airflow_mlops.exceptions import SpecError

_TEMPLATE = Path(__file__).with_name("template")
_NAME = re.compile(r"[a-z][a-z0-9_]{1,59}")
#: Files that belong to one CI system.
_CI = {"github": ".github/workflows/model.yml", "gitlab": ".gitlab-ci.yml"}
#: Packages that are pinned to what is installed here, or to this where they are not.
_PINNED = {"numpy": "2.4.6", "pyarrow": "25.0.1", "scikit-learn": "1.9.1", "pytest": "9.2.0"}
_WHEELS = "wheels"
_WHEEL = re.compile(r"airflow_mlops-[^-]+-py3-none-any\.whl")


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
    parser.add_argument(
        "--wheel",
        type=Path,
        metavar="PATH",
        help="a wheel of airflow-mlops that goes into the repository and its image, in place of the released version",
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
    wheel = _checked(arguments.wheel)
    files = render(name, arguments.registry, arguments.ci, wheel)
    if there := sorted(path for path in files if (folder / path).exists()):
        raise SpecError(
            f"{folder} has {', '.join(there)} already, and nothing is overwritten. Cure: --folder another one."
        )
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
        print(f"  {folder / path}")
    if wheel is not None:
        (folder / _WHEELS).mkdir(exist_ok=True)
        print(f"  {shutil.copy(wheel, folder / _WHEELS)}")
    print(
        f"\nNext: cd {folder}, python -m pip install -r requirements-dev.txt, make test data check try; README.md says "
        "what comes then."
    )
    return 0


def _checked(wheel: Path | None) -> Path | None:
    """The wheel, if it is one of this package."""
    if wheel is not None and not (wheel.is_file() and _WHEEL.fullmatch(wheel.name)):
        what = "is no wheel of airflow-mlops" if wheel.exists() else "does not exist"
        raise SpecError(
            f"--wheel {wheel} {what}; expected a file such as airflow_mlops-{__version__}-py3-none-any.whl. Cure: make "
            "one with `uv build --wheel` or `pip wheel --no-deps .` in a clone."
        )
    return wheel


def _pin(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _PINNED[package]


def render(application: str, registry: str, ci: str = "both", wheel: Path | None = None) -> dict[str, str]:
    """The files of the repository: path → text.

    :param wheel: a wheel of this package that lies in the repository; the released version otherwise.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    words = {
        "application": application,
        "image": application.replace("_", "-"),
        "registry": registry.rstrip("/"),
        "class_name": "".join(part.capitalize() for part in application.split("_")),
        "home": f"{application.upper()}_HOME",
        "python": python,
        "base": f"python:{python}-slim-bookworm",
        "airflow_mlops": f"airflow-mlops=={__version__}" if wheel is None else f"{_WHEELS}/{wheel.name}",
        "wheel_copy": "" if wheel is None else f"COPY {_WHEELS} /opt/code/{_WHEELS}\n",
        **{package.replace("-", "_"): _pin(package) for package in _PINNED},
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
