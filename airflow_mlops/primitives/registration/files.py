"""What a folder holds, so that it can be compared with one that was made later or elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

#: Folders that are no code: caches, environments, version control.
NO_CODE = frozenset(
    {".git", ".hg", ".venv", "__pycache__", "node_modules", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
)
#: Files and bytes of a folder of code that are read at most.
CODE_FILES, CODE_BYTES = 5_000, 64 * 1024**2


def file_digests(folder: Path, without: Collection[str] = ()) -> dict[str, str]:
    """POSIX path below ``folder`` → SHA-256 of the file, sorted; links are not followed.

    :param without: names of folders that are left out.
    """
    return {file.relative_to(folder).as_posix(): _digest(file) for file in sorted(_files(folder, without))}


def code_files(folder: Path) -> dict[str, str]:
    """Path → SHA-256 of all code in a folder; empty when there is more of it than anybody wrote by hand."""
    files = sorted(_files(folder, NO_CODE))
    if len(files) > CODE_FILES or sum(file.stat().st_size for file in files) > CODE_BYTES:
        return {}
    return file_digests(folder, NO_CODE)


def code_digest(folder: Path) -> str:
    """One SHA-256 of what :func:`code_files` gives; empty when that is."""
    files = code_files(folder)
    return digest_of(files) if files else ""


def digest_of(files: Mapping[str, str]) -> str:
    """One SHA-256 of what :func:`file_digests` gives."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What became of files that should be as their digests say, in words: ``weights.bin is missing``.

    :param expected: path → SHA-256, as :func:`file_digests` gives it; ``found`` likewise.
    """
    states = {
        "is missing": expected.keys() - found.keys(),
        "has other bytes": {path for path in expected.keys() & found.keys() if expected[path] != found[path]},
        "was not there": found.keys() - expected.keys(),
    }
    return [f"{path} {state}" for state, paths in states.items() for path in sorted(paths)]


def _digest(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _files(folder: Path, without: Collection[str]) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_symlink():
            continue
        if entry.is_dir():
            if entry.name not in without:
                yield from _files(entry, without)
        elif entry.is_file():
            yield entry
