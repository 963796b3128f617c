"""Delta and Iceberg tables at one version, as views of a DuckDB connection.

They are read as Arrow datasets: columns and rows that a query does not need are not read. No table is
ever changed.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_mlops.exceptions import MLOpsError, SourceError, SourceUnavailableError
from airflow_mlops.hooks.connections.find import find_connection
from airflow_mlops.hooks.s3.client import s3_client, s3_filesystem, split_s3
from airflow_mlops.hooks.scratch import ScratchFolder, scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from duckdb import DuckDBPyConnection
    from pyarrow.fs import FileSystem

__all__ = ["open_table"]

_BATCH = 1 << 16
#: Rows of scans in files, which go with the process.
_COPIES: list[ScratchFolder] = []
_NUMBER = re.compile(r"v?(\d+)")
_LOGIN = re.compile(r"://[^/@\s]+@")


def open_table(
    connection: DuckDBPyConnection,
    name: str,
    table: Mapping[str, Any],
    folder: Path | None,
    aws_conn_id: str = "aws_default",
) -> dict[str, Any]:
    """Make a table a view of the connection.

    :param name: name of the view.
    :param table: ``{"delta": place, "version": n}`` or ``{"iceberg": place, "snapshot": n}``; without version
        or snapshot the newest one.
    :param folder: relative places are below it.
    :param aws_conn_id: Airflow connection of places on S3.
    :return: the pin: ``table_id`` and ``delta_version`` or ``iceberg_snapshot``.
    :raises SourceError: the table, its version or a file of it is gone, or a library is missing.
    """
    if "delta" in table:
        return _open_delta(connection, name, table, folder, aws_conn_id)
    return _open_iceberg(connection, name, table, folder, aws_conn_id)


def _open_delta(
    connection: DuckDBPyConnection, name: str, table: Mapping[str, Any], folder: Path | None, conn_id: str
) -> dict[str, Any]:
    from pyarrow.fs import SubTreeFileSystem

    (place, conn_id), version = _place(table["delta"], folder, conn_id), table.get("version")
    where = f"table {name!r}: Delta table {place}"
    with _missing_library(where, "delta"):
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError
    options = _delta_options(conn_id) if _on_s3(place) else None
    with _table_errors(where):
        try:
            opened = DeltaTable(place, storage_options=options)
        except TableNotFoundError as error:
            raise SourceError(
                f"{where} does not exist: check the place and the folder it is below"
            ) from error
        newest = opened.version()
        if version is not None and version > newest:
            raise SourceError(f"{where} has no version {version} yet: the newest is {newest}")
    if version is not None:
        gone = f"{where}: version {version} is gone (cleaned up; the newest is {newest})"
        with _table_errors(gone):
            opened = DeltaTable(place, version=version, storage_options=options)
    files = SubTreeFileSystem(_root(place), _file_system(place, conn_id))
    at = f"{where}: version {opened.version()}"
    with _table_errors(at):
        dataset = opened.to_pyarrow_dataset(filesystem=files)
        _check_files(at, "VACUUM", dataset.files, files)
    connection.register(name, dataset)
    return {"table_id": str(opened.metadata().id), "delta_version": opened.version()}


def _open_iceberg(
    connection: DuckDBPyConnection, name: str, table: Mapping[str, Any], folder: Path | None, conn_id: str
) -> dict[str, Any]:
    where = f"table {name!r}: Iceberg table {table['iceberg']}"
    with _missing_library(where, "iceberg"):
        import pyiceberg.table  # noqa: F401
    with _table_errors(where):
        opened = _load_iceberg(table["iceberg"], folder, conn_id, where)
        wanted = table.get("snapshot")
        current = opened.current_snapshot()
        if wanted is None and current is None:
            raise SourceError(f"{where} is empty: it has no snapshot yet")
        snapshot = opened.snapshot_by_id(wanted) if wanted is not None else current
        if snapshot is None:
            there = ", ".join(str(one.snapshot_id) for one in opened.metadata.snapshots[-5:]) or "none"
            raise SourceError(f"{where}: snapshot {wanted} is gone (expired); the newest ones are {there}")
    at = f"{where}: snapshot {snapshot.snapshot_id}"
    with _table_errors(at):
        connection.register(name, _iceberg_data(connection, opened, snapshot.snapshot_id, conn_id, at))
    return {"table_id": str(opened.metadata.table_uuid), "iceberg_snapshot": snapshot.snapshot_id}


def _load_iceberg(text: str, folder: Path | None, conn_id: str, where: str) -> Any:
    """The table of a metadata file, of a folder, or of a catalog."""
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
    from pyiceberg.table import StaticTable

    place, conn_id = _place(text, folder, conn_id)
    parts = text.split(".")
    named = len(parts) >= 3 and "/" not in text and not text.endswith(".metadata.json")
    if not named:
        metadata = place if place.endswith(".metadata.json") else _newest_metadata(place, conn_id, where)
        return StaticTable.from_metadata(metadata, _iceberg_options(conn_id) if _on_s3(place) else {})
    unknown = (
        f"{where}: catalog {parts[0]!r} cannot be opened; make an Airflow connection with the id {parts[0]!r} whose "
        "extra holds the catalog's properties as pyiceberg names them (type, uri, warehouse, …)"
    )
    with _table_errors(unknown):
        catalog = load_catalog(parts[0], **_catalog(parts[0]))
    try:
        return catalog.load_table(tuple(parts[1:]))
    except (NoSuchTableError, NoSuchNamespaceError) as error:
        raise SourceError(f"{where} does not exist in catalog {parts[0]!r}: check its name") from error


def _catalog(name: str) -> dict[str, Any]:
    """Properties of a catalog: those of the Airflow connection of its name, else pyiceberg's own."""
    try:
        connection = find_connection(name, SourceError)
    except SourceError as error:
        if error.retriable:
            raise
        return {}
    return {**({"uri": connection.host} if connection.host else {}), **connection.extra_dejson}


def _newest_metadata(place: str, conn_id: str, where: str) -> str:
    from pyarrow.fs import FileSelector

    root = _root(place)
    files = _file_system(place, conn_id).get_file_info(FileSelector(f"{root}/metadata", allow_not_found=True))
    found = [file.base_name for file in files if file.base_name.endswith(".metadata.json")]
    if not found:
        raise SourceError(
            f"{where}: no metadata/*.metadata.json in {place}; name the table's folder, its .metadata.json file, "
            "or catalog.namespace.table"
        )
    newest = max(found, key=lambda name: int(found[1]) if (found := _NUMBER.match(name)) else -1)
    return f"{place.rstrip('/')}/metadata/{newest}"


def _iceberg_data(connection: DuckDBPyConnection, table: Any, snapshot: int, conn_id: str, where: str) -> Any:
    """The rows of a snapshot, as something that DuckDB can read more than once."""
    import pyarrow.dataset as pds

    scan = table.scan(snapshot_id=snapshot)
    tasks = list(scan.plan_files())
    paths = sorted(task.file.file_path for task in tasks)
    schema = scan.projection().as_arrow()
    schemes = {urlsplit(path).scheme for path in paths}
    # What Parquet itself does not say (deleted rows, renamed columns) is for pyiceberg to work out.
    plain = (
        not any(task.delete_files for task in tasks)
        and len(table.metadata.schemas) == 1
        and "schema.name-mapping.default" not in table.metadata.properties
        and schemes <= {"", "file", "s3", "s3a"}
        and len(schemes) <= 1
    )
    if not plain:
        return _copied(connection, scan, schema)
    if not paths:
        return schema.empty_table()
    files = _file_system(paths[0], conn_id)
    roots = [_root(path) for path in paths]
    _check_files(where, "the removal of old files", roots, files)
    return pds.dataset(roots, schema=schema, filesystem=files, format="parquet")


def _copied(connection: DuckDBPyConnection, scan: Any, schema: Any) -> Any:
    """The rows of a scan in a file where the connection spills, which goes with it."""
    import pyarrow.dataset as pds
    import pyarrow.parquet as pq

    found = connection.execute("SELECT current_setting('temp_directory')").fetchone()
    folder = scratch_folder(found[0] if found and found[0] else None)
    _COPIES.append(folder)
    name = Path(folder.name, "scan.parquet")
    with pq.ParquetWriter(name, schema) as writer:
        for batch in scan.to_arrow_batch_reader():
            writer.write_batch(batch.cast(schema))
    return pds.dataset(name, format="parquet")


def _check_files(where: str, by: str, files: Sequence[str], system: FileSystem) -> None:
    """Make sure that all files of a version are still there."""
    from pyarrow.fs import FileType

    gone = [info.path for info in system.get_file_info(list(files)) if info.type == FileType.NotFound]
    if gone:
        raise SourceError(
            f"{where} cannot be read any more: {len(gone)} of its {len(files)} file(s) were deleted by {by}, first "
            f"{gone[0]}. Keep versions as long as datasets are rebuilt from them"
        )


def _place(text: str, folder: Path | None, conn_id: str) -> tuple[str, str]:
    """Absolute path or address, and the connection that opens it."""
    if text.startswith("s3://"):
        place = split_s3(text, conn_id)
        return place.url, place.conn_id
    if "://" in text:
        return text.removeprefix("file://"), conn_id
    path = Path(text).expanduser()
    return str(path if path.is_absolute() or folder is None else folder / path), conn_id


def _on_s3(place: str) -> bool:
    return place.startswith(("s3://", "s3a://"))


def _root(place: str) -> str:
    """A place as a pyarrow file system names it."""
    parts = urlsplit(place)
    if parts.scheme in ("s3", "s3a"):
        return f"{parts.netloc}{parts.path}".rstrip("/")
    return unquote(parts.path) if parts.scheme == "file" else place


def _file_system(place: str, conn_id: str) -> FileSystem:
    from pyarrow.fs import LocalFileSystem

    if _on_s3(place):
        return s3_filesystem(conn_id)
    return LocalFileSystem()


def _keys(conn_id: str) -> dict[str, str]:
    """Endpoint, region and what signs, by the names of ``AWS_…`` variables."""
    client = s3_client(conn_id, SourceError)
    credentials = client._request_signer._credentials  # noqa: SLF001 - the only way to the resolved ones
    given = credentials.get_frozen_credentials() if credentials else None
    found = {
        "ENDPOINT_URL": client.meta.endpoint_url,
        "REGION": client.meta.region_name,
        "ACCESS_KEY_ID": given and given.access_key,
        "SECRET_ACCESS_KEY": given and given.secret_key,
        "SESSION_TOKEN": given and given.token,
    }
    return {key: str(value) for key, value in found.items() if value}


def _delta_options(conn_id: str) -> dict[str, str]:
    keys = _keys(conn_id)
    plain = keys.get("ENDPOINT_URL", "").startswith("http://")
    return {f"AWS_{key}": value for key, value in keys.items()} | (
        {"AWS_ALLOW_HTTP": "true"} if plain else {}
    )


def _iceberg_options(conn_id: str) -> dict[str, str]:
    names = {"ENDPOINT_URL": "endpoint"}
    return {
        f"s3.{names.get(key, key.lower().replace('_', '-'))}": value for key, value in _keys(conn_id).items()
    }


@contextmanager
def _missing_library(where: str, extra: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise SourceError(
            f"{where} needs a library that is not installed on this worker ({error.name}); run "
            f"pip install 'airflow-mlops[{extra}]'"
        ) from error


@contextmanager
def _table_errors(where: str) -> Iterator[None]:
    """Translate what deltalake, pyiceberg and pyarrow raise."""
    try:
        yield
    except MLOpsError:
        raise
    except Exception as error:  # both libraries raise ValueError, OSError and errors without a common root
        text = _LOGIN.sub("://…@", str(error).split("\n", 1)[0])[:300]
        busy = re.search(r"AWS Error NETWORK|error sending request|timed out|50[0234] ", text)
        kind = SourceUnavailableError if busy else SourceError
        raise kind(f"{where}: {type(error).__name__}: {text}") from error
