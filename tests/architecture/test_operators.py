"""``docs/operators.md`` names every operator and sensor as it is, and its examples are DAGs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from airflow.sdk import DAG

import airflow_mlops
from tests.fixtures.markdown import ROOT, blocks

PACKAGE = Path(airflow_mlops.__file__).parent
PAGE = ROOT / "docs/operators.md"


def public_classes() -> dict[str, ast.ClassDef]:
    """Every operator and sensor."""
    files = sorted([*(PACKAGE / "operators").rglob("*.py"), *(PACKAGE / "sensors").rglob("*.py")])
    return {
        node.name: node
        for file in files
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef) and re.fullmatch(r"[A-Z]\w+(Operator|Sensor)", node.name)
    }


CLASSES = public_classes()


def row(name: str) -> str:
    """The line of the page that says what a class is: docstring and signature, and nothing else."""
    node = CLASSES[name]
    about = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()).replace("``", "`")
    return f"| `{name}` | {about} | {arguments(node)} |"


def arguments(node: ast.ClassDef) -> str:
    required, optional = [], []
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            for argument, default in zip(method.args.kwonlyargs, method.args.kw_defaults, strict=True):
                (optional if default else required).append(f"`{argument.arg}`")
    parts = [" ".join(required)] if required else []
    parts += [f"*optional* {' '.join(optional)}"] if optional else []
    parts += [
        f"those of `{base.id}`" for base in node.bases if isinstance(base, ast.Name) and base.id in CLASSES
    ]
    return "; ".join(parts)


@pytest.mark.parametrize("name", CLASSES)
def test_the_page_says_what_it_is(name):
    assert row(name) in PAGE.read_text(), f"Cure: in docs/operators.md, write\n{row(name)}"


def test_the_page_names_nothing_else():
    assert sorted(re.findall(r"^\| `(\w+)` \| ", PAGE.read_text(), re.MULTILINE)) == sorted(CLASSES)


def examples() -> list[dict[str, object]]:
    """What each example defines; what it imports it uses."""
    found = []
    for text in [block.text for block in blocks(PAGE) if block.language == "python"]:
        names: dict[str, object] = {}
        exec(compile(text, str(PAGE), "exec"), names)  # as Airflow does with a DAG file
        dags = [value for value in names.values() if isinstance(value, DAG)]
        used = {type(task).__name__ for dag in dags for task in dag.tasks}
        assert {name for name in names if name in CLASSES} == used
        found.append(names)
    return found


def test_the_examples_are_dags():
    dag, *others = [dag for names in examples() for dag in names.values() if isinstance(dag, DAG)]
    assert len(others) == 2
    assert {task.task_id: task.upstream_task_ids for task in dag.tasks} == {
        "fresh": set(),
        "provision": {"fresh"},
        "validate": {"provision"},
        "folds": {"provision", "validate"},
    }
