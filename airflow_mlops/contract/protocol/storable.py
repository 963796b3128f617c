"""
Text from outside, made such that every database, tracking server and log can keep it.

PostgreSQL refuses a zero byte in JSON, UTF-8 has no lone surrogates, an escape sequence rewrites a terminal, and a text
of megabytes blocks whatever has to show it. What cannot be kept as it is stands there in visible form.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["storable", "storable_text"]

#: Characters of one text, and of the JSON of a whole value.
TEXT_LIMIT, SIZE_LIMIT = 4_000, 64 * 1024
#: Levels of lists and objects inside each other.
DEPTH_LIMIT = 20
#: Characters of a key of an object.
KEY_LIMIT = 200
#: Bits of a whole number: beyond it is no float either.
_BITS = 1_024
#: Control characters, except tab and line breaks, and halves of characters.
_UNKEPT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def storable_text(text: str, limit: int = TEXT_LIMIT) -> str:
    r"""A text with control characters and lone surrogates spelled out (``\x00``, ``\ud800``), cut visibly.

    Two different texts stay different: a cut one ends with its length and digest.

    :param limit: characters at most.
    """
    if len(text) > limit:
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
        note = f"… ({len(text)} characters, sha256 {digest})"
        return f"{storable_text(text[: max(limit // 2, limit - 200)], limit * 6)[: limit - len(note)]}{note}"
    kept = _UNKEPT.sub(_spelled, text)
    return kept if len(kept) <= limit else storable_text(kept, limit)


def storable(value: Any, *, text: int = TEXT_LIMIT, size: int | None = SIZE_LIMIT) -> Any:
    """A JSON value that every system keeps; doing it again changes nothing.

    Numbers that JSON does not know become text. Of a value that is too large as a whole, its largest entries are
    replaced by a sentence that says so.

    :param text: characters of one text at most.
    :param size: characters of the whole as JSON at most; ``None`` where something else has bounded it.
    """
    kept = _kept(value, text, 0)
    return kept if size is None else _fitting(kept, size)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


def _kept(value: Any, text: int, depth: int) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return _number(value)
    if isinstance(value, (Mapping, list, tuple)) and depth >= DEPTH_LIMIT:
        return f"set aside: more than {DEPTH_LIMIT} levels deep"
    if isinstance(value, Mapping):
        return {
            storable_text(str(key), KEY_LIMIT): _kept(item, text, depth + 1) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_kept(item, text, depth + 1) for item in value]
    return storable_text(str(value), text)


def _number(value: float | bool | None) -> float | bool | str | None:
    if isinstance(value, int) and value.bit_length() > _BITS:
        return f"a whole number of {value.bit_length()} bits"
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _fitting(value: Any, size: int) -> Any:
    total = _size(value)
    if total <= size:
        return value
    if isinstance(value, Mapping):
        return _fitting_entries(value, total, size)
    note = f"set aside: {total} characters of JSON, at most {size} are kept"
    if isinstance(value, list):
        kept, left = [], size - len(note) - 4
        for item in value:
            left -= _size(item) + 2
            if left < 0:
                break
            kept.append(item)
        return [*kept, note]
    return note


def _fitting_entries(value: Mapping[str, Any], total: int, size: int) -> dict[str, Any]:
    kept, left = dict(value), total
    for key in sorted(kept, key=lambda name: -_size(kept[name])):
        if left <= size:
            return kept
        taken = _size(kept[key])
        note = f"set aside: {taken} characters of JSON"
        if taken <= len(note) + 2:
            break
        kept[key] = note
        left -= taken - len(note) - 2
    if left <= size:
        return kept
    # Too many entries, small as they are: the first ones stay.
    shown: dict[str, Any] = {}
    left = size - 100
    for key, item in kept.items():
        left -= _size(key) + _size(item) + 4
        if left < 0:
            break
        shown[key] = item
    return {**shown, "set_aside": f"{len(kept) - len(shown)} more entries"}


def _size(value: Any) -> int:
    return len(json.dumps(value, allow_nan=False))
