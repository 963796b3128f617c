"""Which commit a folder of code is at."""

from __future__ import annotations

import subprocess
from pathlib import Path

TIMEOUT = 10


def commit_of(directory: str | Path) -> str:
    """Commit of the Git repository around a folder, with ``-dirty`` behind it when files below it were changed.

    Empty when it is in no repository, or nobody can say.
    """
    commit = _git(directory, "rev-parse", "HEAD")
    if not commit:
        return ""
    changed = _git(directory, "status", "--porcelain", "--", ".")
    return f"{commit}-dirty" if changed else commit


def _git(directory: str | Path, *words: str) -> str:
    try:
        # Somebody else's folder may hold a configuration that names programs to run.
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-C", str(directory), *words],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
