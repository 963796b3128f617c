"""Which files a path, a pattern or a folder means."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from glob import escape, glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.texts.nearest import nearest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "data_files",
    "find_files",
    "fixed_parts",
    "is_parquet",
    "local_head",
    "named_parquet",
    "own_parts",
]

_MAGIC = (b"PAR1", b"PARE")
_PARQUET = (".parquet", ".parq", ".pq")


def fixed_parts(pattern: str) -> int:
    """How many parts of a path or address stand before the first wildcard; all of them where there is none."""
    parts = pattern.replace(os.sep, "/").split("/") if pattern else []
    return next((number for number, part in enumerate(parts) if has_magic(part)), len(parts))


def own_parts(pattern: str, folder: Path | None) -> int:
    """How many parts of a file's name are the fixed ones of the pattern that found it, and those of its folder."""
    if pattern.startswith("s3://"):
        return fixed_parts(pattern)
    path = Path(pattern.removeprefix("file://")).expanduser()
    above = "" if folder is None or path.is_absolute() else str(folder)
    return fixed_parts(str(path)) + (above.count(os.sep) + 1 if above else 0)


def data_files(names: Iterable[str], pattern: str, fixed: int | None = None) -> list[str]:
    """The names that are data, as Spark and Arrow see it: what begins with ``_`` or ``.`` is left out, sorted.

    Those are files that a writer has not finished, logs of table formats, checkpoints of editors and markers. Only
    what stands behind the pattern's fixed part is looked at. A folder ``_column=value`` counts, and so does a name
    that the pattern itself begins with ``_`` or ``.``.

    :param pattern: what the names were found by: a pattern, or a folder that they lie in.
    :param fixed: how many parts of each name are the pattern's own; see :func:`fixed_parts`.
    """
    before = fixed_parts(pattern) if fixed is None else fixed
    own = pattern.replace(os.sep, "/").split("/")[fixed_parts(pattern) :]
    asked = [part for part in own if part.startswith(("_", "."))]

    def hidden(part: str, *, folder: bool) -> bool:
        if not part.startswith(("_", ".")) or (folder and part.startswith("_") and "=" in part):
            return False
        return not any(fnmatchcase(part, wanted) for wanted in asked)

    def counts(name: str) -> bool:
        *folders, file = name.replace(os.sep, "/").split("/")[before:] or [""]
        return not (hidden(file, folder=False) or any(hidden(part, folder=True) for part in folders))

    return sorted(name for name in names if counts(name))


def is_parquet(name: str, head: Callable[[str], bytes]) -> bool:
    """Whether a file is one of Parquet: its content decides, and its name where the content says nothing.

    :param head: gives the first bytes of a file.
    """
    return named_parquet(name) or head(name).startswith(_MAGIC)


def named_parquet(name: str) -> bool:
    """Whether a name says that the file is one of Parquet."""
    return name.lower().endswith(_PARQUET)


def local_head(file: str, size: int = 8) -> bytes:
    """The first bytes of a local file; none of one that cannot be read."""
    try:
        with Path(file).open("rb") as source:
            return source.read(size)
    except OSError:
        return b""


def find_files(pattern: str, folder: Path | None = None) -> tuple[str, ...]:
    """Local files of a path, a pattern or a folder of Parquet files, sorted by name; see :func:`data_files`.

    :param pattern: absolute, or relative to ``folder``.
    :raises SourceError: there is none.
    """
    if "://" in pattern and not pattern.startswith("file://"):
        cure = "copy it to one of them first, for example by a feature pipeline's extract"
        if pattern.startswith("s3://"):
            cure = "an address on S3 needs AirflowSources with an aws connection"
        raise SourceError(f"{pattern} is no file: only files and s3:// addresses can be read; {cure}")
    path = Path(pattern.removeprefix("file://")).expanduser()
    below = folder is not None and not path.is_absolute()
    pattern, path = str(path), folder / path if folder is not None else path
    if path.is_file() and not any(sign in pattern for sign in "*?"):  # there may be a bracket in its name
        return (str(path),)
    if has_magic(pattern):
        # The folder is no pattern, whatever its name is.
        named = _with_folders_as_named(pattern, folder if below else None)
        wanted = f"{escape(str(folder))}{os.sep}{named}" if below else named
        # not Path.glob, which takes no absolute patterns
        found = [name for name in glob(wanted, recursive=True) if Path(name).is_file()]  # noqa: PTH207
        files = data_files(found, pattern, own_parts(pattern, folder))
    else:
        found = [str(file) for file in path.rglob("*") if file.is_file()] if path.is_dir() else []
        files = [
            name for name in data_files(found, str(path), len(path.parts)) if is_parquet(name, local_head)
        ]
    if not files:
        raise SourceError(f"no file at {path}{_neighbours(path)}")
    return tuple(files)


def _with_folders_as_named(pattern: str, folder: Path | None) -> str:
    """The pattern, in which brackets of a folder that is there by this very name are no wildcard."""
    given = Path(pattern).parts
    kept = list(given)
    for number, part in enumerate(given):
        if "*" in part or "?" in part:
            break
        here = Path(*given[: number + 1])
        if "[" in part and (folder / here if folder else here).is_dir():
            kept[number] = escape(part)
    return str(Path(*kept))


def _neighbours(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), path.root)
    try:
        names = sorted(entry.name for entry in Path(folder).iterdir())
    except OSError as error:
        return f"; {folder} cannot be read: {error.strerror}"
    missing = path.relative_to(folder).parts
    return f"; {folder} has {nearest_of(names, missing[0] if missing else '')}"
