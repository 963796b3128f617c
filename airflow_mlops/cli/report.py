"""How commands say what they found, to people and to programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_mlops.exceptions import CommandError
from airflow_mlops.primitives.texts.documents import json_text
from airflow_mlops.spec import (
    DEFAULTS_FILES,
    LoadedFile,
    Problem,
    SpecFileError,
    application_files,
    load_files,
)


class UsageError(CommandError):
    """The command line names something that is not there."""


def yaml_files(paths: Iterable[Path]) -> tuple[list[LoadedFile], list[SpecFileError]]:
    """Load the applications and feature pipelines that a command line names.

    :param paths: files and folders; a file of defaults stands for all files that it may touch.
    :raises UsageError: a path does not exist, or there is no YAML file in it.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist. Cure: name YAML files, or folders of them.")
        folder = path.parent if path.name in DEFAULTS_FILES else path
        found = application_files(folder) if folder.is_dir() else [path.absolute()]
        if not found:
            raise UsageError(
                f"{folder} has no YAML file in it. Cure: name the folder of applications or feature pipelines."
            )
        files.update(dict.fromkeys(found))
    return load_files(files)


def problems_of(errors: Iterable[SpecFileError]) -> list[Problem]:
    """All problems with paths as seen from here, each once although a defaults file is read for many."""
    return seen_from_here(dict.fromkeys(problem for error in errors for problem in error.problems))


def seen_from_here(problems: Iterable[Problem]) -> list[Problem]:
    """The problems with paths relative to the working directory."""
    return [
        replace(problem, place=replace(problem.place, file=from_here(problem.place.file)))
        for problem in problems
    ]


def from_here(path: Path) -> Path:
    """The path relative to the working directory if it is below, for reading and clicking."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json_text(value, indent=2, ensure_ascii=False))
