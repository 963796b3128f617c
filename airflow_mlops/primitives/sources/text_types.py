"""The types of columns that are written as text, by all of their values."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.sql.words import batches, identifier, literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb import DuckDBPyConnection

__all__ = ["DEFAULT_NULLS", "columns_of"]

DEFAULT_NULLS = ("",)
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_ ]*(\([0-9, ]+\))?")
_WHOLE = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "INT",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
)
_DAY = r"\d{4}[-/]\d{1,2}[-/]\d{1,2}"
_TIME = r"[ T]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?"
_ZONE = r" ?(?:Z|[+-]\d{2}(?::?\d{2})?)"
#: A day that several orders of day, month and year may mean, and maybe a time.
_SHORT = r"(\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2}))(" + _TIME + ")?"
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_CLOCK = r"\d{1,2}:\d{2}:\d{2}(\.\d+)?"
_ORDERS = ("%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%y/%m/%d")
_TIMED = re.compile(r"%[HIMSfp]")


def columns_of(
    connection: DuckDBPyConnection,
    rows: str,
    names: Sequence[str],
    file: str,
    form: str,
    settings: Mapping[str, Any],
    owner: str,
    kinds: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Column → the SQL that makes a value of its text.

    :param rows: what stands behind FROM; its columns ``names`` are text.
    :param file: name of its column with the file.
    :param form: ``csv`` or ``json``, for messages.
    :param settings: ``dates``, ``types`` and ``decimal``.
    :param kinds: of JSON: texts stay texts there, unless ``dates`` reads them, and numbers are numbers.
    :raises SourceError: dates that two orders of day and month read, or a value that is not of its type.
    """
    types = {str(name): str(kind).strip() for name, kind in (settings.get("types") or {}).items()}
    known = {*names, *(kinds or {})}
    for name, kind in types.items():
        if name not in known or not _TYPE.fullmatch(kind):
            what = (
                f"{kind!r} is no type"
                if name in known
                else f"there is no such column; there are {', '.join(names)}"
            )
            raise SourceError(f"{owner}: {form}: types: {name}: {what}. Cure: write, for example, VARCHAR")
    found: dict[str, str] = {}
    for some in batches([name for name in names if name not in types]):
        profiles = _profiles(connection, rows, some, file, settings)
        for name, by_file in profiles.items():
            found[name] = _chosen(connection, rows, name, file, by_file, settings, owner, kinds)
    for name, kind in types.items():
        found[name] = _cast(name, kind, settings)
        _check_values(connection, rows, name, kind, file, form, settings, owner)
    return {name: found[name] for name in names}


def _value(name: str, settings: Mapping[str, Any]) -> str:
    text = f"trim({identifier(name)})"
    return f"replace({text}, ',', '.')" if settings.get("decimal") == "," else text


def _measures(name: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """What is counted of a column: how many of its values fit each type."""
    text, number = f"trim({identifier(name)})", _value(name, settings)

    def fits(expression: str, value: str = text) -> str:
        return f"regexp_full_match({value}, {literal(expression)})"

    day, order = f"replace({text}, '/', '-')", [_in_order(text, one) for one in _ORDERS]
    whole = fits(r"[+-]?\d+")
    readings = f"list_distinct([{', '.join(order)}])"
    dates = settings.get("dates")
    return {
        "all": f"{identifier(name)} IS NOT NULL",
        "whole": whole,
        "code": fits(r"[+-]?0\d+"),
        "long": f"{whole} AND TRY_CAST({text} AS BIGINT) IS NULL",
        "endless": f"{whole} AND TRY_CAST({text} AS DECIMAL(38,0)) IS NULL",
        "number": f"{fits(_NUMBER, number)} OR lower({text}) IN "
        "('nan', 'inf', '-inf', 'infinity', '-infinity')",
        "truth": f"lower({text}) IN ('true', 'false')",
        "day": f"{fits(_DAY)} AND TRY_CAST({day} AS DATE) IS NOT NULL",
        "time": f"{fits(f'{_DAY}({_TIME})?')} AND TRY_CAST({day} AS TIMESTAMP) IS NOT NULL",
        "instant": f"{fits(f'{_DAY}{_TIME}{_ZONE}')} AND TRY_CAST({day} AS TIMESTAMPTZ) IS NOT NULL",
        "clock": f"{fits(_CLOCK)} AND TRY_CAST({text} AS TIME) IS NOT NULL",
        "short": fits(_SHORT),
        "timed": fits(_SHORT.removesuffix("?")),
        **{one: f"{value} IS NOT NULL" for one, value in zip(_ORDERS, order, strict=True)},
        "several": f"len(list_filter({readings}, lambda x: x IS NOT NULL)) > 1",
        "dates": f"try_strptime({text}, {literal(dates)}) IS NOT NULL" if dates else "FALSE",
    }


def _in_order(text: str, order: str) -> str:
    year = r"\d{4}" if "Y" in order else r"\d{2}"
    shape = "[-/.]".join(year if sign in "Yy" else r"\d{1,2}" for sign in order if sign.isalpha())
    day = f"regexp_extract({text}, {literal(_SHORT)}, 1)"
    whole = f"regexp_full_match({day}, {literal(shape)})"
    return (
        f"CASE WHEN {whole} THEN try_strptime(regexp_replace({day}, '[-.]', '/', 'g'), {literal(order)}) END"
    )


def _profiles(
    connection: DuckDBPyConnection, rows: str, names: Sequence[str], file: str, settings: Mapping[str, Any]
) -> dict[str, dict[str, Counter[str]]]:
    """Column → file → how many of its values fit what."""
    keys = list(_measures(names[0], settings)) if names else []
    asked = [f"count(*) FILTER ({one})" for name in names for one in _measures(name, settings).values()]
    found = connection.execute(
        f"SELECT {file}, {', '.join(asked)} FROM {rows} GROUP BY ALL ORDER BY 1"
    ).fetchall()
    profiles: dict[str, dict[str, Counter[str]]] = {name: {} for name in names}
    for row in found:
        for number, name in enumerate(names):
            counted = row[1 + number * len(keys) : 1 + (number + 1) * len(keys)]
            profiles[name][str(row[0])] = Counter(dict(zip(keys, counted, strict=True)))
    return profiles


def _kind(profile: Mapping[str, int], *, json: bool = False) -> str:  # noqa: PLR0911 - one a type
    """The type of all values together; one of ``_ORDERS`` for days of such an order, ``dates`` for those of the YAML."""
    if not profile.get("all"):
        return "VARCHAR"

    def every(key: str) -> bool:
        return profile[key] == profile["all"]

    if every("dates"):
        return "dates"
    if json and not every("number"):
        return "VARCHAR"
    if every("whole") and profile["long"]:
        return "VARCHAR" if profile["endless"] or profile["code"] else "DECIMAL(38,0)"
    if json:
        return "DOUBLE"
    if every("whole"):
        return "VARCHAR" if profile["code"] else "BIGINT"
    for key, kind in (
        ("number", "DOUBLE"),
        ("truth", "BOOLEAN"),
        ("day", "DATE"),
        ("time", "TIMESTAMP"),
        ("instant", "TIMESTAMPTZ"),
        ("clock", "TIME"),
    ):
        if every(key):
            return kind
    return next((order for order in _ORDERS if every(order)), "VARCHAR")


def _chosen(
    connection: DuckDBPyConnection,
    rows: str,
    name: str,
    file: str,
    by_file: Mapping[str, Counter[str]],
    settings: Mapping[str, Any],
    owner: str,
    kinds: Mapping[str, str] | None,
) -> str:
    if kinds is not None and kinds[name] == "VARCHAR":
        total = sum(by_file.values(), Counter())
        return _cast(
            name, "dates" if total["all"] and total["dates"] == total["all"] else "VARCHAR", settings
        )
    total = sum(by_file.values(), Counter())
    kind = _kind(total, json=kinds is not None)
    if kinds is None:
        _check_order(connection, rows, name, file, kind, total, owner)
        if kind == "VARCHAR" and total["whole"] < total["all"]:
            _check_files(connection, rows, name, file, by_file, settings, owner)
    timed = kind in _ORDERS and total["timed"] > 0
    return _cast(name, kind, settings, timed=timed)


def _check_order(
    connection: DuckDBPyConnection,
    rows: str,
    name: str,
    file: str,
    kind: str,
    total: Mapping[str, int],
    owner: str,
) -> None:
    """Refuse days that two orders read: 01/02 is in January or in February.

    :raises SourceError: naming one.
    """
    if kind == "dates":
        return
    orders = [one for one in _ORDERS if total["all"] and total[one] == total["all"]]
    if not total["short"] or total["short"] < total["all"] or (len(orders) < 2 and kind != "VARCHAR"):
        return
    if len(orders) == 0 and not any(total[one] for one in _ORDERS):
        return  # no days at all
    if len(orders) >= 2 and not total["several"]:
        return  # all orders say the same
    text = f"trim({identifier(name)})"
    seen = connection.execute(
        f"SELECT {text}, {file} FROM {rows} WHERE {identifier(name)} IS NOT NULL "
        f"ORDER BY {_measures(name, {})['several']} DESC LIMIT 1"
    ).fetchone() or ("", "")
    what = f"is {' or '.join(orders)}" if orders else "has other days that need another order"
    raise SourceError(
        f"{owner}: {seen[1]} has {seen[0]!r} in column {name!r}, which {what}: nothing tells which part is the "
        "day. Cure: say the order, as csv: {dates: '%d/%m/%Y'}, or keep texts, as csv: {types: {"
        f"{name}: VARCHAR}}}}"
    )


def _check_files(
    connection: DuckDBPyConnection,
    rows: str,
    name: str,
    file: str,
    by_file: Mapping[str, Counter[str]],
    settings: Mapping[str, Any],
    owner: str,
) -> None:
    """Refuse a column that is text because of some files only: one wrong value would change the type of all rows.

    :raises SourceError: naming the file and the value.
    """
    kinds = {where: _kind(profile) for where, profile in by_file.items() if profile["all"]}
    usual = Counter(kind for kind in kinds.values() if kind != "VARCHAR").most_common(1)
    if not usual or "VARCHAR" not in kinds.values():
        if len(set(kinds.values())) > 1:
            shown = "; ".join(f"{where}: {kind}" for where, kind in list(kinds.items())[:3])
            raise SourceError(
                f"{owner}: column {name!r} is not of one type in all files: {shown}. Cure: write the files again, or "
                f"name its type, as csv: {{types: {{{name}: VARCHAR}}}}"
            )
        return
    kind = usual[0][0]
    there = next(where for where, one in kinds.items() if one == kind)
    odd_files = ", ".join(literal(where) for where, one in kinds.items() if one == "VARCHAR")
    made = _cast(name, kind, settings, safe=True)
    odd = connection.execute(
        f"SELECT {identifier(name)}, {file} FROM {rows} WHERE {file} IN ({odd_files}) AND {identifier(name)} IS NOT NULL "
        f"AND {made} IS NULL LIMIT 1"
    ).fetchone()
    if odd is not None:
        raise SourceError(
            f"{owner}: {odd[1]} has {str(odd[0])[:60]!r} in column {name!r}, which is {kind} in {there}. Cure: correct "
            f"that value; or say that it means no value, as csv: {{nulls: ['', NA]}}; or that all are texts, as "
            f"csv: {{types: {{{name}: VARCHAR}}}}"
        )


def _cast(  # noqa: PLR0911 - one a type
    name: str, kind: str, settings: Mapping[str, Any], *, timed: bool = False, safe: bool = False
) -> str:
    """The SQL that makes a value; NULL of what is none with ``safe``."""
    cast, text = "TRY_CAST" if safe else "CAST", f"trim({identifier(name)})"
    dates = settings.get("dates")
    upper = kind.upper()
    if kind == "dates" or (dates and upper.startswith(("DATE", "TIMESTAMP"))):
        parsed = f"{'try_' if safe else ''}strptime({text}, {literal(dates)})"
        target = ("TIMESTAMP" if _TIMED.search(str(dates)) else "DATE") if kind == "dates" else kind
        return f"{cast}({parsed} AS {target})"
    if kind in _ORDERS:
        day = _in_order(text, kind)
        if not timed:
            return f"{cast}({day} AS DATE)"
        clock = f"nullif(trim(regexp_extract({text}, {literal(_SHORT)}, 2), ' T'), '')"
        return f"(CAST({day} AS DATE) + coalesce({cast}({clock} AS TIME), TIME '00:00:00'))"
    if upper == "VARCHAR":
        return identifier(name)
    if upper.startswith(("DATE", "TIMESTAMP")):
        return f"{cast}(replace({text}, '/', '-') AS {kind})"
    if upper in _WHOLE and safe:
        return f"CASE WHEN regexp_full_match({text}, '[+-]?[0-9]+') THEN TRY_CAST({text} AS {kind}) END"
    return f"{cast}({_value(name, settings)} AS {kind})"


def _check_values(
    connection: DuckDBPyConnection,
    rows: str,
    name: str,
    kind: str,
    file: str,
    form: str,
    settings: Mapping[str, Any],
    owner: str,
) -> None:
    """Make sure that every value of a column is of the type that the YAML gives it.

    :raises SourceError: naming the file and the value.
    """
    safe = _cast(name, kind, settings, safe=True)
    odd = connection.execute(
        f"SELECT {identifier(name)}, {file} FROM {rows} WHERE {identifier(name)} IS NOT NULL AND {safe} IS NULL LIMIT 1"
    ).fetchone()
    if odd is not None:
        raise SourceError(
            f"{owner}: {odd[1]} has {str(odd[0])[:60]!r} in column {name!r}, which {form}: types says is {kind}. Cure: "
            f"correct that value, or say in {form}: types (or, of CSV, nulls) what it is"
        )
