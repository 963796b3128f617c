"""Values as text: one spelling for equal values, whichever type a source gave them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Any

__all__ = ["Spellings", "spelled"]

_NUMBER = re.compile(r"[+-]?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_MIDNIGHT = re.compile(r"(\d{4}-\d\d-\d\d)[T ]00:00:00(?:\.0+)?(?:Z|\+00:00)?", re.ASCII)
_BOOLEANS = {"true": "1", "false": "0"}


def spelled(value: Any) -> str:
    """The text of a value as the data show it: ``true``, ``7`` for 7.0, ``0.1``, ``2013-01-01``.

    Beyond 2^53 a float is no certain whole number: 1e300 stays 1e+300.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) <= 2**53 else repr(value)
    return str(value)


class Spellings:
    """Known texts, found again by another spelling of the same value.

    Numbers are the same up to what a float of 32 bits keeps, whole ones exactly; a date is its midnight. Two known
    texts of one value are kept apart.

    :param texts: what is known.
    :param booleans: ``true`` and ``false`` are 1 and 0.
    """

    def __init__(self, texts: Iterable[str], *, booleans: bool = False) -> None:
        self._booleans = booleans
        self._texts = frozenset(texts)
        self._known: dict[str, str | None] = {}
        for text in self._texts:
            key = self._key(text)
            self._known[key] = None if key in self._known else text

    def find(self, text: str) -> str:
        """The known text of the same value, or else the text itself."""
        if text in self._texts:
            return text
        found = self._known.get(self._key(text))
        return text if found is None else found

    def _key(self, text: str) -> str:
        low = text.strip().lower()
        if low in _BOOLEANS:
            return _BOOLEANS[low] if self._booleans else low
        if _NUMBER.fullmatch(low):
            return _number(low)
        midnight = _MIDNIGHT.fullmatch(text)
        return midnight[1] if midnight else text


def _number(text: str) -> str:
    if text.lstrip("+-").isdigit():
        return str(int(text)) if len(text) <= 40 else text
    number = float(text)
    if number.is_integer() and abs(number) <= 2**53:
        return str(int(number))
    try:
        single: float = struct.unpack("f", struct.pack("f", number))[0]
    except OverflowError:
        return repr(number)
    return repr(single or number)
