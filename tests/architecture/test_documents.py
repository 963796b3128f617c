"""Every JSON document of ours is written by one function, which lets no NaN and no Infinity through."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "airflow_mlops"
#: No documents: the one function itself, spellings of secrets, and values that only a digest sees.
OTHERS = {
    "contract/protocol/documents.py",
    "hooks/connections/secrets.py",
    "primitives/texts/secrets.py",
    "primitives/datasets/digest.py",
}


def test_no_other_function_writes_json_that_may_hold_nan():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name in OTHERS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump")):
                continue
            if not any(keyword.arg == "allow_nan" for keyword in node.keywords):
                found.append(f"{name}:{node.lineno}")
    assert not found, (
        f"{', '.join(found)} may write NaN, which no JSON reader must take. Cure: json_text of primitives/documents.py"
    )
