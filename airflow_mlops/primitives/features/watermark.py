"""How far a source has been read, and the window of it that is read next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, cast

from airflow_mlops.exceptions import SourceError, SpecError

__all__ = [
    "Kind",
    "ReadWindow",
    "Watermark",
    "advanced",
    "bound",
    "kind_of",
    "kind_of_type",
    "plain",
    "plan_window",
    "time_read",
]

Kind = Literal["timestamp", "naive", "date", "integer", "text"]
Value = datetime | date | int | str

_TIMES = ("timestamp", "naive", "date")
_INTEGERS = [
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
    "INT64",
    "INT32",
]


@dataclass(frozen=True)
class Watermark:
    """The greatest value of a column that was read so far.

    :param column: the column.
    :param kind: what its values are; ``naive`` is a time without zone, taken as UTC.
    :param value: ISO 8601 (times in UTC), a whole number, or text.
    """

    column: str
    kind: Kind
    value: str | int

    @classmethod
    def from_json(cls, value: Any) -> Watermark | None:
        """Read what :meth:`to_json` gave; ``None`` from ``None``."""
        if value is None:
            return None
        return cls(str(value["column"]), cast("Kind", value["kind"]), value["value"])

    def to_json(self) -> dict[str, Any]:
        """The watermark as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ReadWindow:
    """What one run reads: rows of ``column`` from ``after`` up to and including ``until``.

    The lower end is read again: another row of the same moment may have come meanwhile, and a row that is
    published already is not published twice.

    :param column: the watermark column; ``None`` when everything is read every time.
    :param kind: what its values are; ``None`` when that is not known before reading.
    :param after: lower end as in :class:`Watermark`; ``None`` for no bound.
    :param until: upper end; ``None`` for no bound.
    :param moves: whether what is read joins up with what was read before, so that the watermark may move.
    :param backfill: whether somebody asked for this window: what lies in it behind the watermark is history,
        and not late.
    """

    column: str | None = None
    kind: Kind | None = None
    after: str | int | None = None
    until: str | int | None = None
    moves: bool = True
    backfill: bool = False

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ReadWindow:
        """Read what :meth:`to_json` gave."""
        given = {name: value[name] for name in ("column", "kind", "after", "until", "moves")}
        return cls(**given, backfill=value.get("backfill", False))

    def to_json(self) -> dict[str, Any]:
        """The window as JSON values."""
        return asdict(self)

    @property
    def empty(self) -> bool:
        """Whether nothing can lie in it."""
        if self.kind is None or self.after is None or self.until is None:
            return False
        after, until = (bound(self.kind, end) for end in (self.after, self.until))
        return bool(after > until)  # type: ignore[operator]


def plan_window(
    column: str | None,
    kind: Kind | None,
    previous: Watermark | None,
    *,
    late: timedelta = timedelta(0),
    start: str | int | None = None,
    end: str | int | None = None,
    now: datetime,
    newest: Value | None = None,
) -> ReadWindow:
    """Settle what is read next.

    Times are never read beyond ``now``: a row with a time to come is left for the run after that time,
    and cannot move the watermark past rows that come before it.

    :param kind: what the column holds; the previous watermark's or a time when it is not known yet.
    :param previous: how far earlier runs have read, if they read by this column.
    :param late: how far behind the watermark rows may still arrive; those are read again.
    :param start: explicit lower end, as in a backfill.
    :param end: explicit upper end.
    :param newest: greatest value in the source, where times do not tell how far it reaches.
    :raises SpecError: an end is not of the column's kind, or ``late`` is given for a column without time.
    """
    if column is None:
        return ReadWindow()
    previous = _comparable(previous, column, kind)
    kind = kind or (previous.kind if previous else "timestamp")
    if late and kind not in _TIMES:
        raise SpecError(
            f"extract: late needs a watermark that is a time or a date; {column!r} is {kind}. Cure: leave "
            "late out, or take a column with the time of the change"
        )
    reached = None if previous is None else bound(kind, previous.value)
    after = bound(kind, start) if start is not None else _earlier(reached, late)
    until = bound(kind, end) if end is not None else None
    limit = bound(kind, now.astimezone(UTC).isoformat()) if kind in _TIMES else newest
    if until is None or (limit is not None and until > limit):  # type: ignore[operator]
        until = limit
    moves = start is None or (reached is not None and after is not None and after <= reached)  # type: ignore[operator]
    return ReadWindow(column, kind, _plain(kind, after), _plain(kind, until), moves)


def advanced(previous: Watermark | None, window: ReadWindow, newest: Watermark | None) -> Watermark | None:
    """The watermark after a window was published: it never goes back, and never over a gap.

    :param newest: greatest value that was read in the window; ``None`` when nothing was.
    """
    if newest is None or not window.moves:
        return previous
    earlier = _comparable(previous, newest.column, newest.kind)
    if earlier is None:
        return newest
    old, new = bound(newest.kind, earlier.value), bound(newest.kind, newest.value)
    return newest if new > old else previous  # type: ignore[operator]


def time_read(watermark: Watermark | None) -> datetime | None:
    """The moment up to which a source was read; ``None`` where the watermark is no time."""
    if watermark is None or watermark.kind not in _TIMES:
        return None
    return cast("datetime", bound("timestamp", watermark.value))


def bound(kind: Kind, value: Any) -> Value:
    """A value as it is handed to a database: never as part of the query's text.

    :raises SpecError: it is not of the kind.
    """
    try:
        if kind == "integer":
            return int(value)
        if kind == "text":
            return str(value)
        when = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(when, datetime):
            when = datetime(when.year, when.month, when.day, tzinfo=UTC)
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (TypeError, ValueError, AttributeError) as error:
        expected = "a whole number" if kind == "integer" else "an ISO 8601 time"
        raise SpecError(
            f"extract: {value!r} cannot bound the watermark column: expected {expected}"
        ) from error
    if kind == "date":
        return when.date()
    return when.replace(tzinfo=None) if kind == "naive" else when


def kind_of(value: Any, column: str) -> Kind:
    """What a value of a watermark column is.

    :raises SourceError: a column of such values cannot tell how far a source was read.
    """
    if isinstance(value, datetime):
        return "naive" if value.tzinfo is None else "timestamp"
    if isinstance(value, date):
        return "date"
    if isinstance(value, str):
        return "text"
    whole = isinstance(value, int) or (hasattr(value, "as_integer_ratio") and value == int(value))
    if whole and not isinstance(value, (bool, float)):
        return "integer"
    raise SourceError(f"extract: watermark {column!r} is {type(value).__name__}; {_EXPECTED}")


def kind_of_type(name: str, column: str) -> Kind:
    """As :func:`kind_of`, of a DuckDB type."""
    if name == "TIMESTAMP WITH TIME ZONE":
        return "timestamp"
    kinds: dict[str, Kind] = {"DATE": "date", "VARCHAR": "text", **dict.fromkeys(_INTEGERS, "integer")}
    if name.startswith("TIMESTAMP"):
        return "naive"
    if name not in kinds:
        raise SourceError(f"extract: watermark {column!r} is {name}; {_EXPECTED}")
    return kinds[name]


_EXPECTED = (
    "expected a time, a date, a whole number, or text that grows. Cure: cast it in the query, or leave "
    "watermark out to read everything every time"
)


def _comparable(previous: Watermark | None, column: str, kind: Kind | None) -> Watermark | None:
    """The watermark, if it is one of this column: a time is comparable with a time of any kind."""
    if previous is None or previous.column != column or kind is None:
        return previous if previous is not None and previous.column == column else None
    both = {previous.kind, kind}
    return previous if len(both) == 1 or both <= set(_TIMES) else None


def _earlier(value: Value | None, late: timedelta) -> Value | None:
    if not late or value is None or isinstance(value, (int, str)):
        return value
    try:
        return value - late
    except OverflowError:
        return None


def _plain(kind: Kind, value: Value | None) -> str | int | None:
    if value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, datetime) and kind == "naive":
        value = value.replace(tzinfo=UTC)
    return value.isoformat()


def plain(kind: Kind, value: Any) -> str | int:
    """A value of a column as a :class:`Watermark` holds it."""
    return cast("str | int", _plain(kind, bound(kind, value)))
