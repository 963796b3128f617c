"""Errors: one tree, drawn where it is defined, and one scheme of names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import airflow_mlops
from airflow_mlops import exceptions

PACKAGE = Path(airflow_mlops.__file__).parent
#: Raised in containers, where the package's own tree is not: see airflow_mlops.contract.protocol.failures.
CONTRACT = "contract"


def classes() -> dict[str, tuple[str, list[str]]]:
    """Every exception of the package: its file and the names of its bases."""
    found: dict[str, tuple[str, list[str]]] = {}
    known = {"Exception", "BaseException", "ValueError", "RuntimeError", "OSError"}
    trees = {file: ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py")}
    while True:
        new = {
            node.name: (file.relative_to(PACKAGE).as_posix(), bases)
            for file, tree in trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            and (bases := [ast.unparse(base).rpartition(".")[2] for base in node.bases])
            and set(bases) & (known | set(found))
        }
        if new.keys() <= found.keys():
            return found
        found |= new


def test_every_name_ends_in_error():
    # A BaseException passes by whoever catches errors: it is none.
    names = {name for name, (_, bases) in classes().items() if "BaseException" not in bases}
    assert "SpecError" in names
    assert not [name for name in names if not name.endswith("Error")]


def test_the_tree_is_drawn_whole():
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        if found := re.match(r"    ([│ ]*(?:[├└]── )?)(\w+Error)\b", line):
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            drawn[found[2]] = above[depth - 1] if depth else "Exception"
    defined = {
        name: kind.__mro__[1].__name__
        for name, kind in vars(exceptions).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert drawn == defined


def test_what_is_raised_beside_the_tree_hangs_on_it():
    """A module's own error is a child of a drawn one, so that a caller catches it by what it is about."""
    drawn = set(vars(exceptions))
    beside = {
        name: (file, bases)
        for name, (file, bases) in classes().items()
        if file != "exceptions.py" and not file.startswith(CONTRACT)
    }
    #: Never leave their module, or say to a library of ours what the library understands.
    inner = {
        name
        for name, (_, bases) in beside.items()
        if set(bases) <= {"Exception", "ValueError", "RuntimeError"}
    }
    for name, (file, bases) in beside.items():
        assert name in inner or "MLOpsError" not in bases, (
            f"{file}: {name} hangs on the root. Cure: find its family"
        )
        assert name in inner or set(bases) & (drawn | set(beside)), f"{file}: {name}"


def test_no_exception_from_the_scheme_of_names():
    assert not [file for file in PACKAGE.rglob("*.py") if "N818" in file.read_text()]
