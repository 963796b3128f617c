"""Reading of JSON documents into records: every field is checked, and an error says which one of which document."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_mlops.exceptions import DataError

__all__ = ["Fields"]

#: Characters of a value that an error shows.
SHOWN = 80
RESTORE = "restore the document from a backup: it was written by another program, or is damaged"

_REQUIRED: Any = object()


class Fields:
    """
    The fields of one JSON object, by name and type; fields that nobody asks for are passed over.

    A field with a default may be absent or ``null``, as in documents of releases that did not write it yet.

    :param document: the parsed JSON.
    :param where: what it is and where, for errors.
    :param cure: what a person can do about a document that cannot be read.
    :raises DataError: by the constructor when the document is no object, and by each method when a required field is
        absent or a value has another type.
    """

    def __init__(self, document: Any, where: str, cure: str = RESTORE) -> None:
        self._where, self._cure = where, cure
        if not isinstance(document, Mapping):
            raise self._error("expected a JSON object", document)
        self._document: Mapping[str, Any] = document

    def __contains__(self, name: str) -> bool:
        return name in self._document

    def text(self, name: str, default: str = _REQUIRED) -> str:
        """A text."""
        value: str = self._typed(name, str, "text", default)
        return value

    def whole(self, name: str, default: int = _REQUIRED) -> int:
        """A whole number."""
        value: int = self._typed(name, int, "a whole number", default)
        return int(self._refuse(name, "a whole number", value)) if isinstance(value, bool) else value

    def number(self, name: str, default: float = _REQUIRED) -> float:
        """A number, whole or not, as it stands in the document."""
        value: float = self._typed(name, (int, float), "a number", default)
        return self._refuse(name, "a number", value) if isinstance(value, bool) else value

    def number_or_none(self, name: str) -> float | None:
        """A number; ``None`` for ``null``, which stands in documents for what is not finite."""
        return self.number(name, None)  # type: ignore[arg-type]

    def flag(self, name: str, default: bool = _REQUIRED) -> bool:
        """``true`` or ``false``."""
        value: bool = self._typed(name, bool, "true or false", default)
        return value

    def mapping(self, name: str, default: Mapping[str, Any] = _REQUIRED) -> dict[str, Any]:
        """An object."""
        return dict(self._typed(name, Mapping, "an object", default))

    def items(self, name: str, default: tuple[Any, ...] = _REQUIRED) -> tuple[Any, ...]:
        """The values of a list."""
        return tuple(self._typed(name, (list, tuple), "a list", default))

    def pair(self, name: str) -> tuple[float, float] | None:
        """Two numbers, such as an interval; ``None`` for ``null``."""
        value = self._document.get(name)
        if value is None:
            return None
        if not (isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))):
            self._refuse(name, "two numbers", value)
        return value[0], value[1]

    def times(self, name: str) -> tuple[str, str]:
        """Two times in ISO 8601, kept as they are written."""
        value = self._needed(name, "two times in ISO 8601")
        if not (isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_time, value))):
            self._refuse(name, "two times in ISO 8601", value)
        return value[0], value[1]

    def time(self, name: str) -> str:
        """A time in ISO 8601, kept as it is written."""
        value = self._needed(name, "a time in ISO 8601")
        return str(value) if _is_time(value) else str(self._refuse(name, "a time in ISO 8601", value))

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of these texts."""
        value = self._needed(name, expected := f"one of {', '.join(choices)}")
        return str(value) if value in choices else str(self._refuse(name, expected, value))

    def inner(self, name: str) -> Fields:
        """The fields of an object in this one."""
        return Fields(self._needed(name, "an object"), f"{self._where}: {name}", self._cure)

    def _typed(self, name: str, kind: type[Any] | tuple[type[Any], ...], expected: str, default: Any) -> Any:
        value = self._document.get(name)
        if value is None:
            if default is not _REQUIRED:
                return default
            value = self._needed(name, expected)
        return value if isinstance(value, kind) else self._refuse(name, expected, value)

    def _needed(self, name: str, expected: str) -> Any:
        if name not in self._document:
            raise self._error(f"{name} is missing, expected {expected}")
        return self._document[name]

    def _refuse(self, name: str, expected: str, value: Any) -> Any:
        raise self._error(f"{name}: expected {expected}", value)

    def _error(self, what: str, *got: Any) -> DataError:
        shown = "".join(f", got {_short(value)}" for value in got)
        return DataError(f"{self._where}: {what}{shown}. Cure: {self._cure}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = type(value).__name__
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
