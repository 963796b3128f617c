"""Names of types: DuckDB's, Arrow's and the usual ones of SQL, which mean the same."""

from __future__ import annotations

import re

__all__ = ["parts", "same_type"]

_NAMES = {
    "float64": "double",
    "float8": "double",
    "double precision": "double",
    "float": "float32",
    "float4": "float32",
    "real": "float32",
    "bigint": "int64",
    "long": "int64",
    "integer": "int32",
    "int": "int32",
    "smallint": "int16",
    "short": "int16",
    "tinyint": "int8",
    "ubigint": "uint64",
    "uinteger": "uint32",
    "usmallint": "uint16",
    "utinyint": "uint8",
    "varchar": "string",
    "char": "string",
    "bpchar": "string",
    "text": "string",
    "str": "string",
    "large_string": "string",
    "string_view": "string",
    "boolean": "bool",
    "logical": "bool",
    "blob": "binary",
    "bytea": "binary",
    "varbinary": "binary",
    "large_binary": "binary",
    "date32": "date",
    "date32[day]": "date",
    "time": "time64[us]",
    "datetime": "timestamp",
    "timestamp[us]": "timestamp",
    "timestamp with time zone": "timestamptz",
    "timestamp[us, tz=utc]": "timestamptz",
}
_LIST = re.compile(r"(?:large_)?list<(?:\w+: )?(.+?)(?: not null)?>")
_DECIMAL = re.compile(r"(?:decimal(?:32|64|128|256)?|numeric)\( ?(\d+) ?(?:, ?(\d+) ?)?\)")
_NESTED = re.compile(r"(struct|map)[(<](.+)[)>]")
_FIELD = re.compile(r"(\"[^\"]+\"|\w+):? (.+?)(?: not null)?")


def same_type(one: str, other: str) -> bool:
    """Whether two names mean one type.

    :param one: such as ``list<element: double>`` or ``decimal128(10, 2)``, as Arrow says it.
    :param other: such as ``DOUBLE[]`` or ``DECIMAL(10,2)``, as DuckDB says it; each may be either.
    """
    return _canonical(one) == _canonical(other)


def _canonical(name: str) -> str:
    name = " ".join(name.strip().lower().split())
    if name.endswith("[]"):
        return f"list<{_canonical(name[:-2])}>"
    if found := _LIST.fullmatch(name):
        return f"list<{_canonical(found[1])}>"
    if found := _DECIMAL.fullmatch(name):
        return f"decimal({found[1]},{found[2] or 0})"
    if found := _NESTED.fullmatch(name):
        fields = [_field(part) if found[1] == "struct" else _canonical(part) for part in parts(found[2])]
        return f"{found[1]}<{', '.join(fields)}>"
    return _NAMES.get(name, name)


def _field(text: str) -> str:
    found = _FIELD.fullmatch(text)
    return text if found is None else f"{found[1].strip(chr(34))}: {_canonical(found[2])}"


def parts(text: str) -> list[str]:
    """Split at the commas that stand in no brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "(<[") - (sign in ")>]")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]
