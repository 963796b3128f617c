"""The columns of a published feature table, and whether the next rows fit them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.sql.words import identifier

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

__all__ = ["arrow_type", "fit", "select_as", "sql_type", "word_of"]

#: Words of DuckDB's types → the word for it in a YAML file.
_WORDS = {
    "BOOLEAN": "bool",
    **dict.fromkeys(("TINYINT", "SMALLINT", "UTINYINT", "USMALLINT", "INTEGER"), "int32"),
    **dict.fromkeys(("UINTEGER", "BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT"), "int64"),
    "FLOAT": "float32",
    "DOUBLE": "float64",
    **dict.fromkeys(("VARCHAR", "UUID", "JSON"), "string"),
    "BLOB": "bytes",
    "DATE": "date",
    '"NULL"': "null",
    "NULL": "null",
}
_SQL = {
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "string": "VARCHAR",
    "bytes": "BLOB",
    "date": "DATE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
}
_NUMBERS = ("int32", "int64", "float32", "float64")
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


def word_of(kind: str, column: str) -> str:
    """The word for a DuckDB type: ``int64``, ``float64``, ``timestamp``, ``list[string]`` ….

    A decimal without digits behind the point is a whole number, any other one a float.

    :raises SourceError: no feature can be of this type.
    """
    if kind.endswith("]") and (listed := re.fullmatch(r"(.+)\[\d*\]", kind)):
        return f"list[{word_of(listed[1], column)}]"
    if decimal := _DECIMAL.fullmatch(kind):
        return "int64" if int(decimal[2]) == 0 and int(decimal[1]) <= 18 else "float64"
    if kind.startswith("TIMESTAMP"):
        return "timestamp"
    if kind.startswith("ENUM"):
        return "string"
    if kind not in _WORDS:
        raise SourceError(
            f"publish: column {column!r} is {kind}, which no feature can be. Cure: take it apart or cast it in the "
            f"transform, to one of {', '.join(_SQL)} or a list of one"
        )
    return _WORDS[kind]


def arrow_type(word: str) -> pa.DataType:
    """The Arrow type of a word, as it is written to Parquet."""
    import pyarrow as pa

    if word.startswith("list["):
        return pa.list_(arrow_type(word[5:-1]))
    kinds = {
        "bool": pa.bool_(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float32": pa.float32(),
        "float64": pa.float64(),
        "string": pa.string(),
        "bytes": pa.binary(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    return kinds[word]


def fit(
    connection: DuckDBPyConnection, relation: str, published: Mapping[str, str], generated: Sequence[str] = ()
) -> dict[str, str]:
    """The columns of the table after these rows: those that are published, in their order, then the new ones.

    :param relation: what stands behind FROM.
    :param published: word of each published column; empty before the first publication.
    :param generated: columns that the publication adds itself.
    :return: word of each column.
    :raises SourceError: a published column is missing, or values do not fit its type.
    """
    described = connection.execute(f"DESCRIBE FROM {relation}").fetchall()
    kinds = {str(row[0]): str(row[1]) for row in described}
    for name in (name for name in generated if name in kinds):
        raise SourceError(
            f"publish: the rows have a column {name!r}, which the publication fills itself. Cure: rename it in the "
            "transform"
        )
    columns = {name: word for name, word in published.items() if name not in generated}
    _check_present(kinds, columns)
    words = {name: word_of(kind, name) for name, kind in kinds.items()}
    for name, word in words.items():
        if name in columns:
            _check_fits(connection, relation, name, (kinds[name], word), columns[name])
        elif "null" in word:
            raise SourceError(
                f"publish: all values of column {name!r} are null, so that its type is unknown. Cure: cast it in the "
                f"transform, as {name}::DOUBLE"
            )
        else:
            columns[name] = word
            if kinds[name] != _SQL.get(word):
                _check_cast(connection, relation, name, (kinds[name], word), word)
    return columns


def select_as(columns: Mapping[str, str]) -> str:
    """Select list that casts every column to its type; a time without zone is taken as UTC by the session."""
    return ", ".join(f"{cast(name, word)} AS {identifier(name)}" for name, word in columns.items())


def cast(name: str, word: str) -> str:
    """A column as the type of a word."""
    return f"{identifier(name)}::{sql_type(word)}"


def sql_type(word: str) -> str:
    """The DuckDB type of a word."""
    return f"{sql_type(word[5:-1])}[]" if word.startswith("list[") else _SQL[word]


def _check_present(kinds: Mapping[str, str], columns: Mapping[str, str]) -> None:
    missing = [name for name in columns if name not in kinds]
    if not missing:
        return
    new = [name for name in kinds if name not in columns]
    near = difflib.get_close_matches(missing[0], new, n=1, cutoff=0.5) or new[:1]
    hint = f"; is it called {near[0]!r} now?" if near else ""
    rename = f'"{near[0]}" AS {missing[0]}' if near else f"NULL AS {missing[0]}"
    raise SourceError(
        f"publish: the rows lack the published column(s) {', '.join(missing)}; they have {', '.join(kinds)}{hint} "
        f"Cure: give it in the transform, as {rename}, or publish under another name"
    )


def _check_fits(
    connection: DuckDBPyConnection, relation: str, name: str, found: tuple[str, str], published: str
) -> None:
    """A number may come as a number of another type, as long as every value stays what it is."""
    kind, word = found
    if word == published and kind == _SQL.get(word):
        return
    if word != published and not (word in _NUMBERS and published in _NUMBERS) and "null" not in word:
        count, example = _one(
            connection,
            f"SELECT count({identifier(name)}), any_value({identifier(name)})::VARCHAR FROM {relation}",
        )
        if count:
            raise _refused(name, word, published, f"for example {str(example)[:60]!r}")
    if "null" not in word:
        _check_cast(connection, relation, name, found, published)


def _check_cast(
    connection: DuckDBPyConnection, relation: str, name: str, found: tuple[str, str], published: str
) -> None:
    kind, word = found
    # What was a decimal is rounded when it becomes a float: that is what a float is.
    if published not in _NUMBERS or (kind.startswith("DECIMAL") and published.startswith("float")):
        return
    column = identifier(name)
    changed = f"try_cast({column} AS {sql_type(published)})"
    count, example = _one(
        connection,
        f"SELECT count(*), any_value({column})::VARCHAR FROM {relation} WHERE {column} IS NOT NULL AND "
        f"({changed} IS NULL OR {changed}::{kind} IS DISTINCT FROM {column})",
    )
    if count:
        raise _refused(name, word, published, f"{count} value(s) would change, for example {example}")


def _one(connection: DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    return connection.execute(sql).fetchone() or (0, None)


def _refused(name: str, word: str, published: str, why: str) -> SourceError:
    return SourceError(
        f"publish: column {name!r} is {word} and is published as {published} ({why}). Cure: cast it in the "
        f"transform, as {name}::{sql_type(published)}, or publish under another name"
    )
