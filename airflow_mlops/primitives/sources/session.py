"""The DuckDB session that a dataset is made in, and what goes wrong in it."""

from __future__ import annotations

import errno
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_mlops.database import CURE, connect, raised_outside
from airflow_mlops.exceptions import DataError, SourceError
from airflow_mlops.primitives.sources.base import LocalSources, check_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_mlops.primitives.sources.base import Sources

__all__ = ["connect", "disk_errors", "source_errors"]


@contextmanager
def source_errors(
    name: str,
    files: Mapping[str, tuple[str, ...]] | None = None,
    sources: Sources | None = None,
) -> Iterator[None]:
    """Translate what DuckDB says about the user's query and files.

    :param name: the source in one line.
    :param files: files by pattern; if their columns differ, that is the error to report.
    :param sources: what they are read by.
    """
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise _no_room("the examples", error) from error
    except duckdb.Error as error:
        if _full(error):
            raise _no_room("the examples", error) from error
        if (outside := raised_outside(error)) is not None:
            raise type(outside)(f"examples: {name}: {outside}") from error
        reader = sources or LocalSources()
        for group in (files or {}).values():
            check_files(group, "examples", reader)
        cure = f". {CURE}" if isinstance(error, duckdb.PermissionException) else ""
        raise SourceError(f"examples: {name}: {error}{cure}") from error


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Say it when memory or disk are too small for what is made of the examples.

    :param what: what is being made.
    """
    import duckdb

    try:
        yield
    except (duckdb.Error, OSError) as error:
        if isinstance(error, duckdb.OutOfMemoryException) or _full(error):
            raise _no_room(what, error) from error
        raise


def _full(error: Exception) -> bool:
    """Whether an error says that the disk is full."""
    return getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)


def _no_room(what: str, error: Exception) -> DataError:
    """The error for what does not fit, with what to do about it."""
    return DataError(
        f"{what} need more memory or disk than there is: {str(error).splitlines()[0]}. Make room in the folder "
        f"for temporary files ({tempfile.gettempdir()}, or set TMPDIR), or ask for a shorter window"
    )
