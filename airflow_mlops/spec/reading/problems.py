"""What is wrong with a YAML file: every problem with its place and its cure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.exceptions import SpecError

_LOGIN = re.compile(r"://[^/\s]+@")


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file; lines and columns count from one, and 0 stands for the whole file."""

    file: Path
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else str(self.file)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a YAML file.

    :param place: file, line and column.
    :param key: key path such as ``training.resources.memory``; empty for the whole file.
    :param what: what is wrong, as a clause that goes on after the key.
    :param expected: what would be right.
    :param got: what is there.
    :param nearest: the known key or word that was probably meant.
    :param cure: what to do.
    """

    place: Place
    key: str
    what: str
    expected: str = ""
    got: str = ""
    nearest: str = ""
    cure: str = ""

    def __str__(self) -> str:
        head = f"{self.place}: {self.key} {self.what}" if self.key else f"{self.place}: the file {self.what}"
        rows = {
            "expected": self.expected,
            "got": self.got,
            "nearest": self.nearest,
            "cure": self.cure,
        }
        return "\n".join([head, *(f"    {name + ':':<10}{text}" for name, text in rows.items() if text)])

    def to_dict(self) -> dict[str, Any]:
        """The problem as JSON values."""
        return {
            "file": str(self.place.file),
            "line": self.place.line,
            "column": self.place.column,
            "key": self.key,
            "what": self.what,
            "expected": self.expected,
            "got": self.got,
            "nearest": self.nearest,
            "cure": self.cure,
        }


class SpecFileError(SpecError):
    """Everything that is wrong with one application's YAML.

    :param path: the application's file; a problem may stand in its ``defaults.yaml``.
    :param problems: at least one, in the order of the file.
    """

    def __init__(self, path: Path, problems: list[Problem] | tuple[Problem, ...]) -> None:
        ordered = sorted(set(problems), key=lambda problem: (problem.place.file != path, *_order(problem)))
        self.path = path
        self.problems: tuple[Problem, ...] = tuple(ordered)
        count = "1 problem" if len(ordered) == 1 else f"{len(ordered)} problems"
        super().__init__(f"{count} in {path}\n" + "\n".join(map(str, ordered)))

    def __reduce__(self) -> tuple[type[SpecFileError], tuple[Path, tuple[Problem, ...]]]:
        return type(self), (self.path, self.problems)


def _order(problem: Problem) -> tuple[str, int, int, str]:
    return str(problem.place.file), problem.place.line, problem.place.column, problem.key


def dotted(path: tuple[str | int, ...]) -> str:
    """A key path as people write it: ``provisioning.examples.keys[0]``."""
    text = ""
    for part in path:
        word = f"[{part}]" if isinstance(part, int) else part
        text += word if word.startswith("[") or not text else f".{word}"
    return text


def describe(value: Any) -> str:
    """A value in a few words: what a person typed, cut to one line."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"the text {_cut(value)!r}"
        case dict():
            return f"a mapping of {_cut(', '.join(map(str, value)))}" if value else "an empty mapping"
        case list():
            return f"the list [{_cut(', '.join(map(str, value)))}]"
        case _:
            return f"the number {value}"


def _cut(text: str) -> str:
    # A report is read by many: a login in an address is not among what it shows.
    text = _LOGIN.sub("://…@", text)
    return text if len(text) <= 60 else text[:57] + "..."
