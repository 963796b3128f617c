"""The public names: what users import, and what docs, examples and configurations may say."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import airflow_mlops
from tests.fixtures.markdown import ROOT

FACES = ("", ".factories", ".hooks", ".operators", ".sensors", ".testing", ".triggers")
#: What a user's files may import; everything else may move.
PUBLIC = {f"airflow_mlops{face}" for face in FACES} | {
    "airflow_mlops.contract",
    "airflow_mlops.contract.testing",
}
PACKAGE = Path(airflow_mlops.__file__).parent


def names(face: str) -> list[str]:
    return import_module(f"airflow_mlops{face}").__all__


@pytest.mark.parametrize("face", FACES)
def test_every_name_is_there(face):
    module = import_module(f"airflow_mlops{face}")
    for name in module.__all__:
        assert getattr(module, name).__name__ == name


@pytest.mark.parametrize("face", FACES)
def test_type_checkers_see_the_same_names(face):
    tree = ast.parse(Path(import_module(f"airflow_mlops{face}").__file__).read_text())
    seen = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("airflow_mlops")
        for alias in node.names
    } | {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(names(face)) <= seen


@pytest.mark.parametrize(("face", "kind"), [(".operators", "Operator"), (".sensors", "Sensor")])
def test_every_class_of_the_kind_is_public(face, kind):
    defined = {
        node.name
        for file in (PACKAGE / face[1:]).rglob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef) and re.fullmatch(rf"[A-Z]\w+{kind}", node.name)
    }
    assert defined
    assert defined == {name for name in names(face) if name.endswith(kind)}


def test_a_name_that_is_not_there_is_told():
    with pytest.raises(AttributeError, match=r"'TrainOperator' is not a public name .* TrainModelOperator"):
        import_module("airflow_mlops.operators").TrainOperator  # noqa: B018


@pytest.mark.parametrize("face", FACES)
def test_a_face_loads_nothing_that_is_not_asked_for(face):
    code = f"""
import json, sys, airflow.sdk
before = set(sys.modules)
import airflow_mlops{face}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    new = json.loads(done.stdout.splitlines()[-1])
    if face == ".factories":  # the DAGs of a file are at hand: tests/architecture/test_imports.py
        return
    assert set(new) <= {"__future__", "airflow_mlops", f"airflow_mlops{face}"}


def user_files() -> list[Path]:
    """Docs, examples and templates: what a user reads and copies."""
    folders = ("docs", "examples", "dags", "airflow_mlops/cli/init/template")
    found = [ROOT / "README.md"]
    for folder in folders:
        found += [
            file
            for file in (ROOT / folder).rglob("*")
            if file.suffix in (".md", ".py", ".yaml", ".tmpl", ".ipynb")
        ]
    return [file for file in found if "adr" not in file.parts and ".venv" not in file.parts]


def said() -> list[tuple[str, str]]:
    """Every module and every name that these files import, and every class that a configuration names."""
    found = set()
    for file in user_files():
        text = file.read_text().replace("\\n", "\n")
        where = str(file.relative_to(ROOT))
        imported = re.findall(r"from (airflow_mlops[\w.]*) import (\([^)]*\)|[\w ,]+)", text)
        for module, listed in imported:
            for name in re.findall(r"\w+", listed):
                found.add((where, f"{module}:{name}"))
        for module in re.findall(r"^\s*import (airflow_mlops[\w.]*)", text, re.MULTILINE):
            found.add((where, f"{module}:__name__"))
        for path in re.findall(r"\bairflow_mlops(?:\.\w+)*\.[A-Z]\w+", text):
            module, _, name = path.rpartition(".")
            found.add((where, f"{module}:{name}"))
    return sorted(found)


@pytest.mark.parametrize(("file", "path"), said())
def test_what_a_user_reads_is_public_and_there(file, path):
    module, _, name = path.partition(":")
    assert module in PUBLIC, f"{file} names {module}. Cure: import {name} from one of {sorted(PUBLIC)}"
    assert hasattr(import_module(module), name)


def test_it_sees_what_users_read():
    files = {file for file, _ in said()}
    assert {"docs/operators.md", "docs/howto/feast.md", "dags/mlops.py"} <= files
