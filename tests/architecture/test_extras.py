"""What the extras ask for, and what the lock file made of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_celery_that_breaks_its_provider():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "celery<5.7" in extras["celery"]
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    (locked,) = (each["version"] for each in packages if each["name"] == "celery")
    assert tuple(map(int, locked.split(".")[:2])) < (5, 7)
    assert "celery<5.7" in (ROOT / "docs/howto/install.md").read_text()


def test_every_extra_is_in_the_docs():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = (ROOT / "docs/howto/install.md").read_text().partition("## Extras")[2].partition("## ")[0]
    said = set(re.findall(r"`([a-z]+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
    assert set(extras) == said
