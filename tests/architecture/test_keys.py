"""Only stores spell the keys of what the product remembers."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import airflow_mlops

PACKAGE = Path(airflow_mlops.__file__).parent
#: Folders and records below an application, as they stand in keys.
KEYS = re.compile(
    r"(^|/)(predictions|monitoring|windows|references|datasets|manifests|commits|chunks|joins|pending|checkpoints|tuning)/"
    r"|\b(meta|inputs|performance|decision|raised|prune|snapshot|study)\.json\b"
    r"|(^|/)(refs|features)/\{\}"
)
#: Who spells such a text, and why it is no key of a store. It may only get shorter.
OTHERS = {
    "assets.py": "names of assets",
    "cli/demo/story.py": "looks into the store's folder, as a person would",
    "factories/application.py": "folder of the processes of a feature pipeline",
    "factories/features.py": "the address of a table's files, for Feast",
    "hooks/feast/asof/files.py": "the snapshot beside the files that Feast names",
    "hooks/registry.py": "paths of the registry's API",
    "operators/training/tune.py": "the document of a tuning, until there is a store of tunings",
    "primitives/statistics/bins.py": "a cure in words",
}


def spelled(path: Path) -> list[str]:
    """The texts of a module that look like keys; parts of f-strings that are not known stand as ``{}``."""
    tree = ast.parse(path.read_text())
    inner, texts = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):  # a docstring
            inner.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
            texts.append("".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values))
    texts += [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner
    ]
    return [text for text in texts if KEYS.search(text)]


def modules() -> list[Path]:
    """All modules, but those of stores and of the container, whose folders are the contract's."""
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in ("stores", "contract") and "template" not in path.parts
    ]


def test_only_stores_spell_keys():
    found = {path.relative_to(PACKAGE).as_posix(): texts for path in modules() if (texts := spelled(path))}
    assert found.keys() == OTHERS.keys(), (found.keys() ^ OTHERS.keys(), found)


def test_a_key_in_another_room_is_seen(tmp_path):
    module = tmp_path / "operator.py"
    module.write_text('def key(app, window):\n    return f"{app}/predictions/{window}/meta.json"\n')
    assert spelled(module) == ["{}/predictions/{}/meta.json"]
