"""What the model code ran with: Python, its packages, and the lock file that they were installed from."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from airflow_mlops.contract.protocol.documents import json_text
from airflow_mlops.contract.protocol.results import write_text

FILE = "environment.json"
LOCK_VARIABLE = "MLOPS_LOCK_FILE"
#: Looked for beside the model code, where the variable names none; the first one counts.
LOCK_FILES = (
    "uv.lock",
    "pylock.toml",
    "poetry.lock",
    "Pipfile.lock",
    "conda-lock.yml",
    "requirements.lock",
    "requirements.txt",
)
LOCK_LIMIT = 5 * 1024**2
"""Bytes of a lock file that is kept."""


def environment() -> dict[str, Any]:
    """Python, platform, and name → version of every installed package."""
    packages = {
        name: found.version
        for found in metadata.distributions()
        if (name := found.metadata["Name"]) and found.version
    }
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def write_environment(folder: Path) -> None:
    """Write ``environment.json``, and a copy of the lock file, into a folder that is made if need be."""
    lock = lock_file()
    content = {**environment(), "lock_file": lock.name if lock else None}
    write_text(folder / FILE, json_text(content, indent=1) + "\n")
    if lock:
        shutil.copyfile(lock, folder / lock.name)


def lock_file() -> Path | None:
    """``$MLOPS_LOCK_FILE``, or the first known one beside the model code; ``None`` without one of a sensible size."""
    named = os.environ.get(LOCK_VARIABLE)
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    beside = Path(program).parent if program else Path.cwd()
    candidates = [Path(named)] if named else [beside / name for name in LOCK_FILES]
    return next((file for file in candidates if file.is_file() and file.stat().st_size <= LOCK_LIMIT), None)
