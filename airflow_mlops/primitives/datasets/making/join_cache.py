"""Rows that an earlier version joined already: their name, and how they are read again.

Joined rows are named by everything that decides about them: query, window, pins of all sources, views as
compiled, rules of the join and versions of the libraries. A version that holds all of them, in whatever
splits, serves the next one that divides or checks them otherwise; no second copy is kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

from airflow_mlops.primitives.datasets.examples import ROW
from airflow_mlops.primitives.datasets.making.chunks import Rows
from airflow_mlops.primitives.datasets.making.finish import JoinedRows
from airflow_mlops.primitives.datasets.manifest import canonical_json
from airflow_mlops.primitives.sources.queries import READERS, nodes_of
from airflow_mlops.primitives.sql.words import identifier, literal, parquet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.datasets.examples import Examples, Window
    from airflow_mlops.primitives.datasets.making.request import DatasetRequest, JoinPlan
    from airflow_mlops.primitives.datasets.manifest import Manifest, Role
    from airflow_mlops.primitives.datasets.splits.rule import SplitRule

__all__ = ["StoredJoins", "StoredRows", "join_key", "number_rows", "rows_of", "stored_rows", "with_features"]

log = logging.getLogger(__name__)

_FORMAT = 1
_LIBRARIES = ("airflow-mlops", "duckdb", "pyarrow", "feast")
#: Table functions whose rows come from pinned files, or from their arguments alone.
_STEADY_TABLES = {*READERS, "range", "generate_series", "unnest", "repeat", "repeat_row"}
#: What DuckDB itself takes for steady: the one-argument form of age begins today.
_UNSTEADY = {"age", "getenv", "getvariable", "current_setting", "read_text", "read_blob"}
_CLOCKS = {
    *("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"),
    *("current_localtime", "current_localtimestamp"),
}


@dataclass(frozen=True)
class StoredRows:
    """All joined rows of an earlier version.

    :param manifest: the version.
    :param files: its chunks, as local files.
    """

    manifest: Manifest
    files: tuple[Path, ...]


class StoredJoins(Protocol):
    """Where joined rows of earlier versions are found."""

    def find(self, key: str, scratch: Path) -> StoredRows | None:
        """The rows of this name, if all of their files are still there.

        :param scratch: where files are copied to if need be.
        """
        ...


def join_key(
    connection: DuckDBPyConnection,
    request: DatasetRequest,
    examples: Examples,
    window: Window,
    pins: Sequence[Mapping[str, Any]],
    plan: JoinPlan | None,
) -> str | None:
    """Name of the joined rows; ``None`` where the same question may have another answer tomorrow."""
    if plan is None or not _repeatable(connection, request.examples.sql):
        return None
    return hashlib.sha256(
        canonical_json(
            {
                "format": _FORMAT,
                "purpose": request.purpose,
                "examples": request.examples.to_json(),
                "types": dict(examples.columns),
                "split_column": request.split_column,
                "partitions": [_partitions(file) for file in examples.files],
                "window": [window.start, window.end, window.as_of],
                "pins": [dict(pin) for pin in (*pins, *plan.pins)],
                "features": request.features,
                "references": dict(plan.references),
                "views": [dict(view) for view in plan.views],
                "semantics": plan.semantics,
                "options": dict(plan.options),
                "libraries": {name: version(name) for name in _LIBRARIES},
            }
        ).encode()
    ).hexdigest()


def stored_rows(
    connection: DuckDBPyConnection,
    examples: Examples,
    request: DatasetRequest,
    plan: JoinPlan | None,
    found: StoredRows,
) -> JoinedRows | None:
    """The rows of an earlier version as if they had just been joined; ``None`` if they are not the same ones."""
    if plan is None:
        return None
    roles = with_features(examples.roles(request.purpose, request.split_column), plan.references)
    manifest = found.manifest
    if list(roles.items()) != [(column.name, column.role) for column in manifest.columns]:
        return None
    rows = number_rows(connection, found.files, roles)
    counted = connection.execute(f"SELECT count(*) FROM {rows.examples}").fetchone()
    if counted != (manifest.rows,):
        return None
    log.info("Took %d joined rows from dataset version %s", manifest.rows, manifest.id)
    return JoinedRows(
        rows,
        roles,
        manifest.rows,
        references=plan.references,
        views=plan.views,
        semantics=plan.semantics,
        options=plan.options,
        # The join itself leaves out files that are out of reach, and so does the version.
        pins=tuple(pin for pin in manifest.sources if not str(pin["of"]).startswith(("examples", "table:"))),
    )


def rows_of(connection: DuckDBPyConnection, found: StoredRows, rule: SplitRule | None) -> JoinedRows:
    """All rows of a version, to divide them otherwise.

    A column that said the split of the version becomes no input by that, and one that says it now ceases
    to be one.

    :param rule: how they will be divided.
    :raises SpecError: a column of the rule is not there.
    """
    manifest = found.manifest
    roles: dict[str, Role] = {column.name: column.role for column in manifest.columns}
    if rule is not None and roles.get(rule.column or "") == "input":
        roles[rule.column or ""] = "split"
    return JoinedRows(
        number_rows(connection, found.files, roles),
        roles,
        manifest.rows,
        references={column.name: column.reference for column in manifest.columns if column.reference},
    )


def with_features(roles: Mapping[str, Role], references: Mapping[str, str]) -> dict[str, Role]:
    """Role of each column with the features behind the other inputs and before the targets."""
    answers: tuple[Role, ...] = ("target", "known_at")
    features: dict[str, Role] = dict.fromkeys(references, "feature")
    asked = {name: role for name, role in roles.items() if role not in answers}
    return {**asked, **features, **{name: role for name, role in roles.items() if role in answers}}


def number_rows(connection: DuckDBPyConnection, files: Sequence[Path], roles: Mapping[str, Role]) -> Rows:
    """The rows of chunks, numbered by time and keys whatever order they lie in."""
    source = parquet(tuple(str(file) for file in files))
    (timestamp,) = (name for name, role in roles.items() if role == "timestamp")
    order = [identifier(timestamp), *(identifier(name) for name, role in roles.items() if role == "key")]
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE _numbered AS SELECT file_index AS _file, file_row_number AS _at, "
        f"row_number() OVER (ORDER BY {', '.join(order)}) - 1 AS {ROW} FROM {source}"
    )
    names = ", ".join(f"c.{identifier(name)}" for name in roles)
    return Rows(
        f"(SELECT n.{ROW}, {names} FROM (SELECT *, file_index, file_row_number FROM {source}) c "
        "JOIN _numbered n ON n._file = c.file_index AND n._at = c.file_row_number)"
    )


def _repeatable(connection: DuckDBPyConnection, sql: str | None) -> bool:
    """Whether a query gives the same rows from the same files: no clock, no chance, nothing unpinned."""
    if sql is None:
        return True
    found = connection.execute(f"SELECT json_serialize_sql({literal(sql)})").fetchone()
    tree = json.loads(found[0]) if found else {"error": True}
    # The name of a file is no part of its pin.
    if tree.get("error") or "filename" in sql.lower():
        return False
    nodes = list(nodes_of(tree))
    tables = {
        str(node["function"]["function_name"]).lower()
        for node in nodes
        if node.get("type") == "TABLE_FUNCTION" and isinstance(node.get("function"), dict)
    }
    names = {str(node["function_name"]).lower() for node in nodes if node.get("function_name")}
    names |= {
        str(node["column_names"][-1]).lower() for node in nodes if node.get("class") == "COLUMN_REF"
    } & _CLOCKS
    listed = ", ".join(literal(name) for name in sorted(names)) or "''"
    unsteady = connection.execute(
        f"SELECT count(*) FROM duckdb_functions() WHERE function_name IN ({listed}) AND (stability != 'CONSISTENT' "
        "OR (function_type = 'macro' AND contains(lower(macro_definition), 'current_')))"
    ).fetchone()
    return (
        unsteady == (0,)
        and not names & (_UNSTEADY | _CLOCKS)
        and tables <= _STEADY_TABLES
        and not any(node.get("sample") for node in nodes)
    )


def _partitions(file: str) -> list[str]:
    """The folders of a file that name a value, such as ``day=2024-01-01``: DuckDB makes columns of them."""
    return [part for part in file.split("/")[:-1] if "=" in part]
