"""Splitting examples by time, and cutting the splits into files by calendar month."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import DataError, SpecError
from airflow_mlops.spec.values import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Piece",
    "Split",
    "TimeSplit",
    "cut_by_month",
    "iso",
    "parse_split",
    "parse_time",
    "split_by_time",
    "whole",
]

SPLITS = ("train", "validation", "test")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Split:
    """One split: the examples after ``after``, up to and including ``until``.

    :param name: its name.
    :param after: microseconds since 1970 UTC; ``None`` for no bound.
    :param until: likewise.
    :param first: number of its first row, rows being counted in order of time.
    :param stop: number of the row behind its last one.
    """

    name: str
    after: int | None
    until: int | None
    first: int
    stop: int

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return self.stop - self.first


@dataclass(frozen=True)
class TimeSplit:
    """A split rule and what it gave.

    :param rule: the rule as JSON values.
    :param splits: the splits in order of time; none is empty.
    :param dropped: rows that fell into a gap.
    """

    rule: Mapping[str, Any]
    splits: tuple[Split, ...]
    dropped: int = 0

    def to_json(self) -> dict[str, Any]:
        """Rule, bounds and dropped rows as JSON values."""
        bounds = {s.name: [_iso_or_none(s.after), _iso_or_none(s.until)] for s in self.splits}
        return {**self.rule, "bounds": bounds, "dropped": self.dropped}


@dataclass(frozen=True)
class Piece:
    """The rows of one split within one calendar month (UTC).

    :param split: name of the split.
    :param first: number of its first row.
    :param stop: number of the row behind its last one.
    """

    split: str
    first: int
    stop: int


def split_by_time(
    times: Sequence[int], counts: Sequence[int], shares: Mapping[str, float], gap: timedelta
) -> TimeSplit:
    """Cut examples into train, validation and test, the oldest first.

    A bound lies between two distinct times, where the rows before it come nearest to the share that
    was asked for; so equal times are never torn apart. Examples within ``gap`` after a bound are
    dropped, for targets or features that reach over it.

    :param times: distinct times of the examples, ascending, in microseconds since 1970 UTC.
    :param counts: how many examples each time has.
    :param shares: share of rows by split name; they sum to 1, a share of 0 leaves its split out.
    :param gap: how much time to leave out after each bound.
    :raises SpecError: unknown split, or shares that do not sum to 1.
    :raises DataError: a split would be empty.
    """
    names = _checked_names(shares)
    ends = list(accumulate(counts))
    total = ends[-1] if ends else 0
    pause = gap // timedelta(microseconds=1)
    splits: list[Split] = []
    after, asked, taken = None, 0.0, 0
    for name in names:
        asked += shares[name]
        last = name == names[-1]
        at = len(times) - 1 if last else _nearest(ends, asked * total)
        begin = 0 if after is None else bisect_right(times, after)
        if at < begin:
            raise _empty(name, shares, gap, total, len(times))
        first = ends[begin - 1] if begin else 0
        splits.append(Split(name, after, None if last else times[at], first, ends[at]))
        taken += ends[at] - first
        after = times[at] + pause
    rule = {
        "by": "time",
        "shares": {name: shares[name] for name in names},
        "gap_seconds": gap.total_seconds(),
    }
    return TimeSplit(rule=rule, splits=tuple(splits), dropped=total - taken)


def parse_split(rule: Mapping[str, Any] | None) -> tuple[dict[str, float], timedelta]:
    """Shares and gap of a split as a YAML file states it; no shares for no rule.

    :raises SpecError: another kind of split, or something that is no gap.
    """
    given = dict(rule or {})
    if given.pop("by", "time") != "time":
        raise SpecError(f"split: by {rule['by'] if rule else ''!r} is unknown, expected time")
    gap = given.pop("gap", None) or timedelta(0)
    try:
        gap = duration(gap)
    except ValueError as error:
        raise SpecError(f"split: gap {gap!r} {error}; expected such as 0s, 12h or 7d") from error
    return given, gap


def whole(name: str, rows: int) -> TimeSplit:
    """All rows in one split."""
    return TimeSplit(rule={"by": None}, splits=(Split(name, None, None, 0, rows),))


def cut_by_month(times: Sequence[int], counts: Sequence[int], split: TimeSplit) -> list[Piece]:
    """Cut every split where a calendar month (UTC) begins, so that versions share untouched months."""
    ends = list(accumulate(counts))
    pieces: list[Piece] = []
    for part in split.splits:
        first = part.first
        while first < part.stop:
            month_end = _next_month(times[bisect_right(ends, first)])
            at = _first_at_least(times, month_end)
            stop = min(ends[at - 1], part.stop)
            pieces.append(Piece(part.name, first, stop))
            first = stop
    return pieces


def iso(microseconds: int) -> str:
    """A time in microseconds since 1970 as ISO 8601 UTC."""
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat()


def parse_time(text: str | datetime) -> int:
    """ISO 8601 to microseconds since 1970; a time without zone is UTC.

    :raises DataError: it is not a time.
    """
    try:
        moment = text if isinstance(text, datetime) else datetime.fromisoformat(str(text).strip())
    except ValueError as error:
        raise DataError(
            f"{text!r} is no time: expected ISO 8601 such as 2013-07-01T00:00:00+00:00"
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _checked_names(shares: Mapping[str, float]) -> list[str]:
    if unknown := [name for name in shares if name not in SPLITS]:
        raise SpecError(f"split: unknown name(s) {', '.join(unknown)}; known are {', '.join(SPLITS)}")
    if any(not 0 <= share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise SpecError(f"split: shares must lie in [0, 1] and sum to 1, got {dict(shares)}")
    return [name for name in SPLITS if shares.get(name)]


def _nearest(ends: Sequence[int], rows: float) -> int:
    """Index of the distinct time after which the number of rows is nearest; the earlier of equals."""
    at = bisect_right(ends, rows)
    if at == 0:
        return 0
    if at == len(ends) or rows - ends[at - 1] <= ends[at] - rows:
        return at - 1
    return at


def _first_at_least(times: Sequence[int], moment: int) -> int:
    return bisect_right(times, moment - 1)


def _next_month(microseconds: int) -> int:
    moment = _EPOCH + timedelta(microseconds=microseconds)
    year, month = (moment.year + 1, 1) if moment.month == 12 else (moment.year, moment.month + 1)
    return (datetime(year, month, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def _iso_or_none(microseconds: int | None) -> str | None:
    return None if microseconds is None else iso(microseconds)


def _empty(name: str, shares: Mapping[str, float], gap: timedelta, rows: int, distinct: int) -> DataError:
    return DataError(
        f"split {name!r} would be empty: {rows} example(s) at {distinct} distinct time(s), "
        f"shares {dict(shares)}, gap {gap}; widen the window, shrink the gap, or give the split a larger share"
    )
