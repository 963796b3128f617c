"""
The Python file that Airflow wants beside each YAML.

Airflow looks for Python files and reports import errors by file. One stub a YAML therefore gives each
application an error of its own, and keeps the others alive.
"""

from __future__ import annotations

import os
import tempfile
from os.path import normpath
from pathlib import Path
from typing import Literal

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories.twins import MARK, files_around, find_twins
from airflow_mlops.spec import application_files, name_problems

Action = Literal["written", "removed", "unchanged", "missing"]

_MARK = "# Airflow DAGs of the YAML beside this file, written by `airflow-mlops generate`."
_STUB = """from airflow_mlops.factories import application_dags

globals().update(application_dags(__file__))
"""


def write_stubs(folder: str | Path, *, check: bool = False) -> list[tuple[Path, Action]]:
    """Write a stub beside each YAML of a folder and the folders below, and remove those whose YAML is gone.

    :param folder: folder of YAML files: applications, feature pipelines, or both.
    :param check: change nothing; stubs to be written are ``missing``, those to be removed ``removed``.
    :returns: each stub and what was done to it. A Python file of that name that is no stub is an error. The stub of a
        file that shares the name of another's application or registered model says so, and gives no DAG.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SpecError(f"{folder} is no folder. Cure: name the folder with the YAML files.")
    root = Path(normpath(folder.absolute()))
    twins, yamls = find_twins(files_around(root)), application_files(folder)
    wanted = {
        folder / path.relative_to(root).with_suffix(".py"): f"{_MARK}\n{MARK if path in twins else ''}{_STUB}"
        for path in yamls
    }
    done: list[tuple[Path, Action]] = []
    foreign = [SpecError(str(problem)) for path in yamls for problem in name_problems(path)]
    for stub, text in sorted(wanted.items()):
        try:
            done.append((stub, _ensure(stub, text, check=check)))
        except SpecError as error:
            foreign.append(error)  # the other applications need their stubs all the same
    for stub in sorted(_visible(folder)):
        if stub not in wanted and stub.read_text(errors="replace").startswith(_MARK):
            if not check:
                stub.unlink(missing_ok=True)
            done.append((stub, "removed"))
    if foreign:
        raise SpecError("\n".join(map(str, foreign)))
    return done


def ensure_stubs(folder: str | Path) -> None:
    """Write missing stubs when the folder can be written to; what the loader ``mlops.py`` calls.

    :raises SpecError: when the folder is read-only and a stub is missing, naming it and the cure.
    """
    try:
        write_stubs(folder)
    except OSError as error:
        missing = [path.name for path, action in write_stubs(folder, check=True) if action != "unchanged"]
        if missing:
            raise SpecError(
                f"{folder} cannot be written to ({error.strerror}), and these stubs are missing or stale: "
                f"{', '.join(missing)}. Cure: run `airflow-mlops generate` where the folder is made, and commit them."
            ) from error


def _visible(folder: Path) -> list[Path]:
    """Python files at any depth; folders that begin with a dot or an underscore are somebody else's."""
    return [
        path
        for path in folder.rglob("*.py")
        if not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts[:-1])
    ]


def _ensure(stub: Path, text: str, *, check: bool) -> Action:
    existing = stub.read_text(errors="replace") if stub.exists() else None
    if existing == text:
        return "unchanged"
    if existing is not None and not existing.startswith(_MARK):
        raise SpecError(f"{stub} is no stub of airflow-mlops. Cure: rename it or the YAML beside it.")
    if check:
        return "missing"
    handle, temporary = tempfile.mkstemp(dir=stub.parent, prefix=f".{stub.stem}-", suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        file.write(text)
        os.fchmod(handle, 0o644)
    Path(temporary).replace(stub)
    return "written"
