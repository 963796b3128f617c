"""How CSV and JSON files become rows: the one place that makes the calls of ``read_csv`` and ``read_json``.

CSV is read as text first, and the type of a column follows from all of its values, in all files. Nothing is guessed
from a sample, and nothing is dropped.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.sources.columns import check_names
from airflow_mlops.primitives.sources.text_types import DEFAULT_NULLS, columns_of
from airflow_mlops.primitives.sql.words import file_name, files_list, identifier, literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb import DuckDBPyConnection

__all__ = ["csv_rows", "json_rows", "settings_of", "text_rows"]

_FILE = "__file"
_DELIMITERS = ",;\t|"
_ALL_JSON = {
    "union_by_name": "true",
    "hive_partitioning": "false",
    "sample_size": "-1",
    "maximum_sample_files": "1000000000",
    "map_inference_threshold": "-1",
    "field_appearance_threshold": "0",
}


def text_rows(
    connection: DuckDBPyConnection,
    files: Sequence[str],
    form: str,
    settings: Mapping[str, Any] | None,
    owner: str,
) -> str:
    """What stands behind FROM to read CSV or JSON files, with the columns of all of them.

    :param form: ``csv`` or ``json``.
    :param settings: what the YAML says under that key: ``delimiter``, ``encoding``, ``header``, ``nulls``,
        ``decimal`` (of CSV), ``dates`` and ``types``.
    :param owner: who reads them, for messages.
    :raises SourceError: a line, a value or a date is not what it must be; naming the file and the cure.
    """
    read = csv_rows if form == "csv" else json_rows
    return read(connection, files, dict(settings or {}), owner)


def csv_rows(
    connection: DuckDBPyConnection, files: Sequence[str], settings: Mapping[str, Any], owner: str
) -> str:
    """CSV files as a query, see :func:`text_rows`."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for file in files:
        if found := _heading(connection, file, settings, owner):
            groups.setdefault(found, []).append(file)
    if not groups:
        raise SourceError(
            f"{owner}: {files[0]} has no line at all. Cure: write at least the names of columns"
        )
    names = list(dict.fromkeys(name for _, names in groups for name in names))
    check_names(names, owner)
    parts = [_csv_call(group, delimiter, there, settings) for (delimiter, there), group in groups.items()]
    rows = "(" + " UNION ALL BY NAME ".join(f"SELECT * FROM {part}" for part in parts) + ")"
    with _csv_errors(owner):
        chosen = columns_of(connection, rows, names, _FILE, "csv", settings, owner)
    listed = ", ".join(f"{sql} AS {identifier(name)}" for name, sql in chosen.items())
    return f"(SELECT {listed} FROM {rows})"


def _heading(
    connection: DuckDBPyConnection, file: str, settings: Mapping[str, Any], owner: str
) -> tuple[str, tuple[str, ...]] | None:
    """The delimiter of a file and the names of its columns; ``None`` of an empty one."""
    options = {"delim": literal("\x01"), "quote": "''", "escape": "''", "header": "false"}
    with _csv_errors(f"{owner}: {file}"):
        line = connection.execute(
            f"SELECT line FROM read_csv({file_name(file)}, columns={{'line': 'VARCHAR'}}, auto_detect=false, "
            f"{_options({**options, **_encoding(settings)})}) LIMIT 1"
        ).fetchone()
    if line is None or line[0] is None:
        return None
    text = str(line[0]).removeprefix("\ufeff")
    delimiter = str(settings.get("delimiter") or max(_DELIMITERS, key=lambda one: len(_split(text, one))))
    names = _split(text, delimiter)
    if settings.get("header") is False:
        return delimiter, tuple(f"column{number}" for number in range(len(names)))
    if settings.get("header") is None and all(_is_value(name) for name in names):
        raise SourceError(
            f"{owner}: {file} begins with {text[:80]!r}, which has no name of a column. Cure: write the names as the "
            "first line, or csv: {header: false}"
        )
    if "" in names:
        raise SourceError(
            f"{owner}: {file}, line 1: column {names.index('') + 1} has no name. Cure: give it one"
        )
    check_names(names, f"{owner}: {file}")
    return delimiter, tuple(names)


def _split(text: str, delimiter: str) -> list[str]:
    if len(delimiter) > 1:
        return [name.strip() for name in text.split(delimiter)]
    return [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]


def _is_value(name: str) -> bool:
    return bool(name) and not any(sign.isalpha() or sign == "_" for sign in name)


def _csv_call(files: Sequence[str], delimiter: str, names: Sequence[str], settings: Mapping[str, Any]) -> str:
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    nulls = settings.get("nulls")
    options = {
        "auto_detect": "false",
        "delim": literal(delimiter),
        "quote": literal('"'),
        "escape": literal('"'),
        "header": "false" if settings.get("header") is False else "true",
        "nullstr": "[" + ", ".join(map(literal, DEFAULT_NULLS if nulls is None else nulls)) + "]",
        "null_padding": "false",
        "strict_mode": "true",
        "hive_partitioning": "false",
        "filename": literal(_FILE),
        **_encoding(settings),
    }
    return f"read_csv({files_list(files)}, columns={{{columns}}}, {_options(options)})"


def _encoding(settings: Mapping[str, Any]) -> dict[str, str]:
    given = settings.get("encoding")
    return {"encoding": literal(str(given).lower())} if given else {}


def _options(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


_SETTINGS = {
    "delim": "delimiter",
    "sep": "delimiter",
    "delimiter": "delimiter",
    "header": "header",
    "nullstr": "nulls",
    "encoding": "encoding",
    "dateformat": "dates",
    "decimal_separator": "decimal",
}
_MEANT_ANYWAY = ("sample_size", "union_by_name", "auto_detect", "hive_partitioning")


def settings_of(form: str, options: Mapping[str, str]) -> dict[str, Any] | None:
    """The options of a reader in a query as settings; ``None`` where they say more than that."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        text = value.strip()
        key = _SETTINGS.get(name) if form == "csv" else "dates" if name == "dateformat" else None
        if name in _MEANT_ANYWAY and text.strip("'").lower() not in ("false", "0", "f"):
            continue
        if key == "header" and text.strip("'").lower() in ("true", "false"):
            found[key] = text.strip("'").lower() == "true"
        elif (
            key not in (None, "header")
            and len(text) > 2
            and text[0] == text[-1] == "'"
            and "'" not in text[1:-1]
        ):
            found[key] = [text[1:-1]] if key == "nulls" else text[1:-1].replace("\\t", "\t")
        else:
            return None
    return found


class _csv_errors:  # noqa: N801 - used like a function
    """Say it in the words of the YAML when a line is not as the first one says, or is of another encoding."""

    def __init__(self, owner: str) -> None:
        self.owner = owner

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Translate what DuckDB says."""
        import duckdb

        if not isinstance(error, (duckdb.InvalidInputException, duckdb.ConversionException)):
            return
        said = [part.strip() for part in str(error).splitlines() if part.strip()]
        kept = [part for part in said if not part.startswith(("Possible", "*")) and "=" not in part]
        file = next((part.partition("=")[2].strip() for part in said if part.startswith("file")), "")
        text = f"{self.owner}: {file + ': ' if file else ''}{'; '.join(kept)[:500]}. Cure: "
        if "unicode" in str(error) or "utf-8" in str(error).lower():
            raise SourceError(text + "name its encoding, as csv: {encoding: latin-1}") from error
        raise SourceError(
            text
            + "give the line as many fields as the first one, quote texts that hold the delimiter, or name the "
            "delimiter, as csv: {delimiter: ';'}"
        ) from error


def json_rows(
    connection: DuckDBPyConnection, files: Sequence[str], settings: Mapping[str, Any], owner: str
) -> str:
    """JSON files as a query, see :func:`text_rows`."""
    listed = files_list(files)
    described = connection.execute(
        f"DESCRIBE SELECT * FROM read_json({listed}, {_options(_ALL_JSON)})"
    ).fetchall()
    kinds = {str(row[0]): str(row[1]) for row in described}
    if kinds == {"json": "JSON"}:  # no rows at all, or rows that are no objects
        return f"read_json({listed}, {_options(_ALL_JSON)})"
    check_names(kinds, owner)
    # Parquet knows no whole number of 128 bits; DuckDB would write a float.
    kinds = {name: kind.replace("HUGEINT", "DECIMAL(38,0)") for name, kind in kinds.items()}
    given = set(settings.get("types") or {})
    _check_json(
        connection,
        files,
        [n for n, kind in kinds.items() if kind in ("VARCHAR", "JSON") and n not in given],
        owner,
    )
    texts = {name for name, kind in kinds.items() if kind in ("DOUBLE", "VARCHAR")}
    texts |= given & kinds.keys()
    read = {name: "VARCHAR" if name in texts else kind for name, kind in kinds.items()}
    columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in read.items())
    options = {"hive_partitioning": "false", "filename": literal(_FILE)}
    rows = f"(SELECT * FROM read_json({listed}, columns={{{columns}}}, {_options(options)}))"
    chosen = columns_of(
        connection, rows, [name for name in kinds if name in texts], _FILE, "json", settings, owner, kinds
    )
    made = ", ".join(f"{chosen.get(name, identifier(name))} AS {identifier(name)}" for name in kinds)
    return f"(SELECT {made} FROM {rows})"


def _check_json(
    connection: DuckDBPyConnection, files: Sequence[str], names: Sequence[str], owner: str
) -> None:
    """Make sure that no column is text in some of the files and something else in the others.

    All of them together would be text: one wrong value in one file changes the type of all rows.

    :raises SourceError: naming the file and the column.
    """
    if len(files) < 2 or not names:
        return
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    for file in files:
        call = f"read_json({file_name(file)}, {_options(_ALL_JSON)})"
        for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {call}").fetchall():
            if str(name) in found:
                found[str(name)][file] = str(kind)
    for name, kinds in found.items():
        other = next((file for file, kind in kinds.items() if kind not in ("VARCHAR", "JSON")), None)
        if other is None:
            continue
        for file in (file for file, kind in kinds.items() if kind == "VARCHAR"):
            call = f"read_json({file_name(file)}, {_options(_ALL_JSON)})"
            odd = connection.execute(
                f"SELECT {identifier(name)} FROM {call} WHERE {identifier(name)} IS NOT NULL AND "
                f"TRY_CAST({identifier(name)} AS {kinds[other]}) IS NULL LIMIT 1"
            ).fetchone()
            if odd is not None:
                raise SourceError(
                    f"{owner}: {file} has {str(odd[0])[:60]!r} in column {name!r}, which is {kinds[other]} in {other}. "
                    f"Cure: correct that value, or make all of them texts, as json: {{types: {{{name}: VARCHAR}}}}"
                )
