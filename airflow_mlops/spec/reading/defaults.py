"""``defaults.yaml``: what all applications and feature pipelines of a folder share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from airflow_mlops.spec.reading.problems import Place, Problem
from airflow_mlops.spec.reading.syntax import Node, parse, read_text

DEFAULTS_FILE = "defaults.yaml"
#: Names of a file of defaults; a folder has one of them.
DEFAULTS_FILES = (DEFAULTS_FILE, "defaults.yml")


def defaults_files(path: Path) -> list[Path]:
    """The defaults that hold for a YAML file, the strongest last.

    They are the ``defaults.yaml`` of its own folder, of the parent, of the parent's parent and so on. The
    first folder above its own without one ends the search, so that the answer depends on nothing but the
    place of the file.
    """
    found: list[Path] = []
    own = path.absolute().parent
    for folder in (own, *own.parents):
        here = [file for file in (folder / name for name in DEFAULTS_FILES) if file.is_file()]
        found += here
        if not here and folder != own:
            break
    return found[::-1]


def read_defaults(path: Path) -> tuple[Node | None, list[Problem]]:
    """Read one ``defaults.yaml``; an empty one is fine."""
    text, problems = read_text(path)
    if problems:
        return None, problems
    node, problems = parse(text, path, may_be_empty=True)
    preferred = path.with_name(DEFAULTS_FILE)
    if path != preferred and preferred.is_file():
        what = f"stands beside {preferred.name}, and a folder has one file of defaults"
        problems.append(
            Problem(Place(path), "", what, cure=f"put all into {preferred.name}, and remove this one")
        )
    for name in ("application", "features"):
        if node is not None and name in node.value:
            place = node.value[name].key or node.place
            cure = "remove it here, and write it in each file of its own"
            what = "is the name of one file, and these are the defaults of several"
            problems = [*problems, Problem(place, name, what, cure=cure)]
    return node, problems


def merge(weak: Node, strong: Node) -> Node:
    """Mappings key by key; everything else, lists too, is replaced. Every value keeps its own place."""
    if not isinstance(weak.value, dict) or not isinstance(strong.value, dict):
        return strong
    merged = dict(weak.value)
    for key, node in strong.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return replace(strong, value=merged)
