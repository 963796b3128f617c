"""JSON that every reader takes: it knows no NaN and no Infinity, and PostgreSQL refuses a document with one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["finite", "json_text"]


def json_text(value: Any, **options: Any) -> str:
    """A value as JSON; a number that is not finite becomes ``null``. All documents are written by it.

    :param options: of :func:`json.dumps`.
    :raises TypeError: something in it is no JSON value.
    """
    return json.dumps(finite(value), allow_nan=False, **options)


def finite(value: Any) -> Any:
    """A JSON value with ``None`` in place of each NaN and Infinity, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_name(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def _name(key: Any) -> Any:
    return str(key) if isinstance(key, float) and not math.isfinite(key) else key
