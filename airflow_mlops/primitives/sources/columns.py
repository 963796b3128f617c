"""Whether the files behind a dataset have the columns they should have, of one type each."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.sql.type_names import parts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    import pyarrow as pa

    Schema = Callable[[str], Mapping[str, str]]

__all__ = [
    "check_columns",
    "check_names",
    "check_same_columns",
    "local_schema",
    "parquet_errors",
    "schema_of",
]

_LIST = re.compile(r"(?:large_|fixed_size_)?list(?:_view)?<[^:<>]*: (.+?)(?: not null)?>(?:\[\d+\])?")
_NESTED = re.compile(r"(struct|map)<(.+)>")
_SHOWN = 3
_AT_ONCE = 8


def local_schema(file: str) -> dict[str, str]:
    """Column → Arrow type of a local Parquet file.

    :raises SourceError: it is no whole Parquet file.
    """
    import pyarrow.parquet as pq

    with parquet_errors(file):
        return schema_of(pq.read_schema(file), file)


def schema_of(schema: pa.Schema, file: str) -> dict[str, str]:
    """Column → type as text, of the Arrow schema of a file.

    :raises SourceError: it has two columns of one name.
    """
    found = {str(field.name): str(field.type) for field in schema}
    if len(found) < len(schema):
        check_names(schema.names, file)
    return found


def check_names(names: Iterable[str], where: str, only: Collection[str] | None = None) -> None:
    """Make sure that no two columns are one to SQL, which knows no case.

    DuckDB would call the second one ``name_1``, or take the first for it.

    :param where: what has the columns, for the message.
    :param only: columns that matter, in any case; all by default.
    :raises SourceError: naming both.
    """
    wanted = None if only is None else {name.casefold() for name in only}
    seen: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        if folded in seen and (wanted is None or folded in wanted):
            how = "twice" if seen[folded] == name else f"and {name!r}, which differ by case only"
            raise SourceError(
                f"{where} has the column {seen[folded]!r} {how}: SQL takes both for one column, and one would be "
                "renamed or lost. Cure: give one of them another name where they are written, or in the query by AS"
            )
        seen[folded] = name


class parquet_errors:  # noqa: N801 - used like a function, and entered once a file
    """Say which file it is that cannot be read."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Translate what pyarrow says."""
        import pyarrow as pa

        if isinstance(error, (pa.ArrowException, OSError)):
            raise SourceError(
                f"{self.file} cannot be read as Parquet: {error}. It is truncated, still being written, or of "
                "another format: write it again, under another name first, and rename it when it is whole"
            ) from error


def check_columns(
    files: Iterable[str], columns: Sequence[str], owner: str, schema: Schema = local_schema
) -> None:
    """Make sure that every file has the columns, of one type in all files.

    :param owner: who needs them, for the message.
    :param schema: how to learn column → type of a file.
    :raises SourceError: naming file, missing columns and those that are there, or the file whose type differs.
    """
    schemas = _schemas(tuple(files), schema)
    _check_names(schemas, owner, columns)
    for file, there in schemas.items():
        if missing := [name for name in columns if name not in there]:
            raise SourceError(
                f"{owner}: {file} lacks the column(s) {', '.join(missing)}; "
                f"it has {', '.join(there)}. Write the file again with them"
            )
    _check_types(schemas, owner, columns)


def check_same_columns(
    files: Sequence[str],
    owner: str,
    schema: Schema = local_schema,
    only: Collection[str] | None = None,
    *,
    absent: bool = False,
) -> None:
    """Make sure that all Parquet files have the same columns of the same types, in whatever order.

    Integers of different widths are one type, and so are all texts. A column of nulls only, which has no
    type, goes with any, unless it is that of the first file, which decides for DuckDB.

    :param schema: how to learn column → type of a file.
    :param only: columns that matter; all by default.
    :param absent: whether a file may lack a column.
    :raises SourceError: naming the files that lack a column or have it in another type than most.
    """
    schemas = _schemas(tuple(files), schema)
    every = dict.fromkeys(name for there in schemas.values() for name in there)
    _check_names(schemas, owner, only)
    names = [name for name in every if only is None or name in only]
    if not absent:
        _check_presence(schemas, owner, names)
    _check_types(schemas, owner, names)


def _schemas(files: Sequence[str], schema: Schema) -> dict[str, Mapping[str, str]]:
    if len(files) < 2 * _AT_ONCE:
        return {file: schema(file) for file in files}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(files, pool.map(schema, files), strict=True))


def _check_names(schemas: Mapping[str, Mapping[str, str]], owner: str, only: Collection[str] | None) -> None:
    """Of each file, and of all of them together: a name has one spelling."""
    wanted = None if only is None else {name.casefold() for name in only}
    spelled: dict[str, tuple[str, str]] = {}
    for file, there in schemas.items():
        check_names(there, f"{owner}: {file}", only)
        for name in there:
            other, where = spelled.setdefault(name.casefold(), (name, file))
            if other != name and (wanted is None or name.casefold() in wanted):
                raise SourceError(
                    f"{owner}: {where} has the column {other!r}, and {file} has {name!r}, which differs by case only: "
                    "SQL takes both for one column. Cure: write the files again with one spelling"
                )


def _check_presence(schemas: Mapping[str, Mapping[str, str]], owner: str, names: Sequence[str]) -> None:
    lacks = {file: [name for name in names if name not in there] for file, there in schemas.items()}
    lines = [
        f"{file} lacks {', '.join(missing)} (it has {', '.join(schemas[file])})"
        for file, missing in lacks.items()
        if missing
    ]
    if lines:
        raise SourceError(
            f"{owner}: {_some(lines)}. Write them with the columns of the others, or read "
            "them by a query with union_by_name=true if absent means null"
        )


def _check_types(schemas: Mapping[str, Mapping[str, str]], owner: str, names: Sequence[str]) -> None:
    lines: dict[str, list[str]] = {}
    for name in names:
        kinds = {file: there[name] for file, there in schemas.items() if name in there}
        usual = _usual(list(kinds.values()))
        first = next(iter(kinds), None)
        for file, kind in kinds.items():
            if _family(kind) != _family(usual) and (kind != "null" or file == first):
                lines.setdefault(file, []).append(f"{name} is {kind} instead of {usual}")
    if lines:
        found = [f"{file}: {', '.join(odd)}" for file, odd in lines.items()]
        raise SourceError(
            f"{owner}: column types differ between the files: {_some(found)}. Write the odd file(s) again with "
            "the type of the others: values would be lost if they were only converted"
        )


def _usual(kinds: Sequence[str]) -> str:
    """The type that most files have; the first one of equals."""
    families = Counter(_family(kind) for kind in kinds if kind != "null")
    if not families:
        return "null"
    family = families.most_common(1)[0][0]
    return next(kind for kind in kinds if _family(kind) == family)


def _family(kind: str) -> str:
    """Types between which no value can change without an error."""
    if kind.startswith("dictionary<values="):
        kind = kind.removeprefix("dictionary<values=").partition(",")[0]
    if kind.startswith(("int", "uint")):
        return "integer"
    if kind.startswith("timestamp"):
        return "instant" if "tz=" in kind else "timestamp"
    if found := _LIST.fullmatch(kind):  # writers name the items as they like
        return f"list<{_family(found[1])}>"
    if found := _NESTED.fullmatch(kind):
        return f"{found[1]}<{', '.join(map(_field, parts(found[2])))}>"
    return kind.removeprefix("large_").removesuffix("_view")


def _field(text: str) -> str:
    name, colon, kind = text.removesuffix(" not null").partition(": ")
    return f"{name}: {_family(kind)}" if colon else _family(text)


def _some(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - _SHOWN} more file(s)" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more
