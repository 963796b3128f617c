"""Files of one name: found when stubs are written, and told in the stubs, so that a parse need not look at other files."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import SpecError
from airflow_mlops.spec import application_files, defaults_files, stated_names

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MARK", "files_around", "find_twins", "refuse_twins", "told"]

#: Where a name may stand. What is found by it is looked at again, as YAML.
_NAMES = re.compile(
    rb"""^[ \t{,]*["']?(application|features)["']?[ \t]*:[ \t]*["']?([A-Za-z0-9_]+)""", re.MULTILINE
)
_MODELS = re.compile(rb"""\bmodel["']?[ \t]*:[ \t]*["']?([^"'#,}\s][^"'#,}\r\n]*)""")
#: Where YAML may say a name, or the key before it, in a way that the two above do not read: on another line, by an
#: anchor, a tag, an escape, or behind a mark.
_OTHERWISE = re.compile(
    rb"""(?:^["']?(?:application|features)|\bmodel)["']?[ \t]*:[ \t]*(?:[&*!|>#\r\n]|"[^"\n]*\\)"""
    rb"""|"[^"\n]*\\[xuU][^"\n]*"[ \t]*:|^[ \t]*\?[ \t]|^---[ \t]+\S|^\xef\xbb\xbf""",
    re.MULTILINE,
)
#: Folders that stand side by side in a DAG folder, each with YAML files at any depth.
_ROOTS = ("applications", "features")
#: The line of a stub whose YAML shares a name.
MARK = "# Its YAML shares a name with another one.\n"
_SHARED = {
    "application": "would build the same DAGs",
    "features": "would build the same DAGs",
    "model": "would move the champion of one registered model",
}


def find_twins(files: Iterable[Path]) -> dict[Path, set[Path]]:
    """Each file that shares the name of an application, feature pipeline or registered model, and with which others.

    Every file is read once; parsed are only those that seem to share a name, or say one in an unusual way.
    """
    candidates: dict[tuple[str, str], set[Path]] = defaultdict(set)
    defaults: dict[Path, set[str] | None] = {}
    for path in files:
        for name in _seeming_names(path, defaults):
            candidates[name].add(path)
    suspects = {path for paths in candidates.values() if len(paths) > 1 for path in paths}
    owners: dict[tuple[str, str], set[Path]] = defaultdict(set)
    for path in sorted(suspects):
        for name in stated_names(path):
            owners[name].add(path)
    found: dict[Path, set[Path]] = defaultdict(set)
    for paths in owners.values():
        for path in paths if len(paths) > 1 else ():
            found[path] |= paths - {path}
    return dict(found)


def files_around(folder: Path) -> list[Path]:
    """Every YAML file that Airflow reads together with those of a folder.

    A folder ``applications`` or ``features``, or one below them, belongs to both of these, with all that is below
    them; any other one to itself.
    """
    folder = folder.absolute()
    root = next((each for each in reversed((folder, *folder.parents)) if each.name in _ROOTS), None)
    if root is None:
        return application_files(folder)
    folders = [root.parent / name for name in _ROOTS]
    return [file for each in folders if each.is_dir() for file in application_files(each)]


def refuse_twins(path: Path, stub: Path) -> None:
    """Refuse a file that shares a name with another one, as far as its stub has reason to think so.

    :param stub: where it says :data:`MARK`, or is not there, the files around are looked at; else not one of them.
    :raises SpecError: naming both files, and what they share.
    """
    path = path.absolute()
    if not stub.is_file() or MARK in stub.read_text(errors="replace"):
        others = find_twins(files_around(path.parent)).get(path)
        if others:
            raise SpecError(told(path, others))


def told(path: Path, others: Iterable[Path]) -> str:
    """What a file shares with others, as one message."""
    mine = stated_names(path)
    other, shared = next((other, mine & stated_names(other)) for other in sorted(others))
    kind, name = min(shared)
    key = "registration.model" if kind == "model" else kind
    shown = other.name if other.parent == path.parent else str(other)
    return (
        f"{path}: {key}: {name} is also the {'registered model' if kind == 'model' else 'name'} in {shown}. "
        f"Cure: give one of them another name; both {_SHARED[kind]}."
    )


def _seeming_names(path: Path, defaults: dict[Path, set[str] | None]) -> set[tuple[str, str]]:
    try:
        content = path.read_bytes()
    except OSError:
        return set()
    if path.parent not in defaults:
        defaults[path.parent] = _of_defaults(path.parent)
    if _OTHERWISE.search(content) or defaults[path.parent] is None:
        return stated_names(path)
    names = {(kind.decode(), name.decode()) for kind, name in _NAMES.findall(content)}
    models = {name for kind, name in names if kind == "application"} | _models(content)
    return names | {("model", model) for model in models | (defaults[path.parent] or set())}


def _of_defaults(folder: Path) -> set[str] | None:
    """Models that the defaults of a folder name; ``None`` where only a parser can tell."""
    contents = [file.read_bytes() for file in defaults_files(folder / "any.yaml")]
    if any(map(_OTHERWISE.search, contents)):
        return None
    return set().union(*map(_models, contents))


def _models(content: bytes) -> set[str]:
    return {name.decode(errors="replace").strip() for name in _MODELS.findall(content)}
