"""Words of DuckDB's SQL."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

__all__ = ["identifier", "literal", "parquet"]


def identifier(name: str) -> str:
    """A quoted name."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: Any) -> str:
    """A JSON value, a time or a decimal as a literal."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, (int, Decimal)):
        return str(value)
    if isinstance(value, float):
        return f"'{value!r}'::DOUBLE"
    text = value.isoformat() if isinstance(value, (datetime, date)) else str(value)
    return "'" + text.replace("'", "''") + "'"


def parquet(paths: tuple[str, ...], **options: bool) -> str:
    """A call of ``read_parquet`` over files or patterns."""
    files = ", ".join(literal(path) for path in paths)
    return f"read_parquet({', '.join([f'[{files}]', *(f'{k}={literal(v)}' for k, v in options.items())])})"
