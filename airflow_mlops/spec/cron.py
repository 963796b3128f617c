"""Cron expressions: is this text one, and if not, why."""

from __future__ import annotations

import re

_PRESETS = frozenset({"@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly"})
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _DAYS),
)
_ITEM = re.compile(
    r"(?:(?P<all>\*)|(?P<low>\w{1,3})(?:-(?P<high>\w{1,3}))?)(?:/(?P<step>\d{1,2}))?", re.ASCII
)
_LAST = re.compile(r"(?i:l[0-7])|[0-7]#[1-5]")


def cron_problem(text: str) -> str:
    """Why ``text`` is not a cron expression of five fields or a preset such as ``@daily``; empty if it is.

    :param text: numbers, ``*``, lists, ranges, steps, English names of months and weekdays, ``L`` for the
        last day of the month, and ``5#2`` or ``L5`` for the second or the last Friday.
    """
    text = text.strip()
    if text.startswith("@"):
        return "" if text in _PRESETS else f"{text} is not one of {', '.join(sorted(_PRESETS))}"
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return f"{len(fields)} fields instead of 5"
    for field, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        for item in field.split(","):
            if not _is_item(item, name, low, high, names):
                return f"{name} {item!r} is not within {low}-{high}"
    return ""


def _is_item(item: str, field: str, low: int, high: int, names: dict[str, int]) -> bool:
    if field == "day of the month" and item in {"L", "l"}:
        return True
    if field == "weekday" and _LAST.fullmatch(item):
        return True
    found = _ITEM.fullmatch(item)
    if found is None or (found["step"] is not None and int(found["step"]) == 0):
        return False
    if found["all"]:
        return True
    first = _number(found["low"], names)
    last = first if found["high"] is None else _number(found["high"], names)
    return first is not None and last is not None and low <= first <= high and low <= last <= high


def _number(text: str, names: dict[str, int]) -> int | None:
    return int(text) if text.isdigit() else names.get(text.lower())
