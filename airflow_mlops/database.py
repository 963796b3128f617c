"""Where DuckDB is opened: a session that fetches no extension and can be closed to all but the files it was given.

Every query of the package runs in one of these. SQL that a user wrote is run after :func:`confine`, so that it reads
the files that were found and pinned for it, and nothing else of the worker or of the network.
"""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duckdb import DuckDBPyConnection

    from airflow_mlops.exceptions import MLOpsError

__all__ = ["CURE", "confine", "connect", "raised_outside"]

#: What to tell the author of a query that wanted more than it may have.
CURE = (
    "A query reads the files that it names in single quotes, by read_parquet, read_csv or read_json, and its tables; it "
    "reads no other file, no address and no extension. Cure: name the file in that way, or bring the data by a feature "
    "pipeline"
)
_SEALED = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
}


def connect(
    spill: Path | str | None = None,
    memory: str | None = None,
    *,
    threads: int | None = None,
    files: Iterable[Path | str] | None = None,
) -> DuckDBPyConnection:
    """A DuckDB connection in which a time without zone is UTC, and which fetches no extension.

    :param spill: folder for what does not fit into memory. The folder that it lies in may be read and written even
        after :func:`confine`.
    :param memory: how much it may hold in memory, such as ``2GB``.
    :param threads: how many it may use; as many as there are cores by default.
    :param files: all that it will ever read; it is confined to them at once.
    """
    import duckdb

    connection = duckdb.connect(config=dict(_SEALED))
    connection.execute("SET TimeZone='UTC'; SET enable_progress_bar=false")
    if memory is not None:
        connection.execute(f"SET memory_limit={_literal(memory)}")
    if threads is not None:
        connection.execute(f"SET threads={int(threads)}")
    if spill is not None:
        connection.execute(f"SET temp_directory={_literal(str(spill))}")
        connection.execute(f"SET allowed_directories=[{_literal(str(Path(spill).parent))}]")
    if files is not None:
        confine(connection, files)
    return connection


def confine(connection: DuckDBPyConnection, files: Iterable[Path | str]) -> None:
    """Let a connection read these files and its scratch folder from now on, and nothing else; for ever.

    Views and registered tables stay as they are. No setting can be changed any more.

    :param files: paths, and addresses of a registered file system.
    """
    names = dict.fromkeys(str(file) for file in files)
    # DuckDB compares what a query says, in which names with signs of a pattern are written as [*].
    names |= dict.fromkeys(re.sub(r"([\[*?])", r"[\1]", name) for name in names)
    connection.execute(f"SET allowed_paths=[{', '.join(map(_literal, names))}]")
    connection.execute("SET enable_external_access=false; SET lock_configuration=true")


def raised_outside(error: Exception) -> MLOpsError | None:
    """The error of ours that a file system in Python raised while DuckDB read by it; ``None`` for DuckDB's own.

    DuckDB hands on its name and its words, and neither its class nor whether the same call may succeed later.
    """
    from airflow_mlops import exceptions

    if type(error).__name__ != "Error" or "duckdb" not in type(error).__module__:
        return None
    said = re.match(r"(\w+): (.*?)(?:\n+At:\n|\Z)", str(error), re.DOTALL)
    if said is None:
        return None
    name, words = said[1], said[2].strip()
    if name in ("SourceError", "SourceUnavailableError", "StoreError", "StoreUnavailableError"):
        found: MLOpsError = getattr(exceptions, name)(words)
        return found
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, (ConnectionError, TimeoutError)):
        return exceptions.SourceUnavailableError(f"a file cannot be read: {words}; try again later")
    return None


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
