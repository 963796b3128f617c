"""The cases of the conformance suite: every point-in-time join must answer them rightly.

Expected values are written by hand and not by another join.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from airflow_mlops.testing.offline_store.judge import Alias, Case, Row, View

__all__ = ["CASES"]

_NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
_EAST = timezone(timedelta(hours=2))


def _at(minutes: float = 0, *, zone: timezone = UTC) -> datetime:
    return (_NOON + timedelta(minutes=minutes)).astimezone(zone)


def _row(minutes: float, value: Any, k: Any = 1, **more: Any) -> Row:
    return {"k": k, "time": _at(minutes), "v": value, **more}


def _ask(*minutes: float, k: Any = 1, **more: Any) -> tuple[Row, ...]:
    return tuple({"n": n, "k": k, "event_timestamp": _at(m), **more} for n, m in enumerate(minutes))


def _view(*rows: Row, name: str = "a", kind: str = "int64", **more: Any) -> View:
    return View(name=name, rows=rows, features={"v": kind}, **more)


_HOUR = timedelta(hours=1)
_MADE = {"created": _at(-600)}

CASES: tuple[Case, ...] = (
    Case(
        "ttl_start_is_inside",
        "A row that is exactly as old as the time to live still counts.",
        (_view(_row(-60, 7), ttl=_HOUR),),
        _ask(0),
        {"v": (7,)},
    ),
    Case(
        "ttl_end_is_inside",
        "A row of the example's very moment counts.",
        (_view(_row(-10, 6), _row(0, 7), ttl=_HOUR),),
        _ask(0),
        {"v": (7,)},
    ),
    Case(
        "beyond_ttl_stays_without_value",
        "An example whose only row is too old keeps its place, with nothing in it.",
        (_view(_row(-90, 7), ttl=_HOUR),),
        _ask(0, -40),
        {"v": (None, 7)},
    ),
    Case(
        "ttl_zero_is_no_limit",
        "Without a time to live a row counts for ever.",
        (_view(_row(-60 * 24 * 3650, 7)),),
        _ask(0),
        {"v": (7,)},
    ),
    Case(
        "newest_row_wins",
        "Of several rows the newest before the example is taken, whatever their order in the source.",
        (_view(_row(-10, 9), _row(-30, 7), _row(-20, 8), ttl=_HOUR),),
        _ask(0, -15, -25),
        {"v": (9, 8, 7)},
    ),
    Case(
        "future_is_not_seen",
        "A row of a later moment is not seen.",
        (_view(_row(1, 7), ttl=_HOUR),),
        _ask(0, 2),
        {"v": (None, 7)},
    ),
    Case(
        "microseconds_count",
        "A row one microsecond later than the example is not seen.",
        (_view(_row(-5, 6), {"k": 1, "time": _NOON + timedelta(microseconds=1), "v": 7}, ttl=_HOUR),),
        _ask(0),
        {"v": (6,)},
    ),
    Case(
        "newest_value_may_be_missing",
        "A newest row without a value gives none; older values do not stand in for it.",
        (_view(_row(-20, 7), _row(-10, None), ttl=_HOUR),),
        _ask(0, -15),
        {"v": (None, 7)},
    ),
    Case(
        "equal_examples_both_stay",
        "Examples of the same key and time are examples of their own.",
        (_view(_row(-10, 7), ttl=_HOUR),),
        _ask(0, 0, 0),
        {"v": (7, 7, 7)},
    ),
    Case(
        "repeated_rows_do_not_multiply",
        "A row that is in the source three times is one row.",
        (_view(*[_row(-10, 7, **_MADE)] * 3, ttl=_HOUR, created=True),),
        _ask(0, -5),
        {"v": (7, 7)},
    ),
    Case(
        "tie_goes_to_the_later_created",
        "Of rows of one moment the one created last is taken.",
        (
            _view(
                _row(-10, 6, created=_at(-9)),
                _row(-10, 8, created=_at(-7)),
                _row(-10, 7, created=_at(-8)),
                ttl=_HOUR,
                created=True,
            ),
        ),
        _ask(0),
        {"v": (8,)},
    ),
    Case(
        "late_row_is_not_seen_before_it_was_created",
        "A row that arrived after the example was not known then.",
        (_view(_row(-20, 6, created=_at(-19)), _row(-10, 7, created=_at(5)), ttl=_HOUR, created=True),),
        _ask(0, 10),
        {"v": (6, 7)},
        created_filter=True,
    ),
    Case(
        "correction_is_not_seen_before_it_was_created",
        "An example sees the value as it was known at its time, and not the correction made later.",
        (_view(_row(-30, 6, created=_at(-29)), _row(-30, 7, created=_at(-5)), ttl=_HOUR, created=True),),
        _ask(-10, -5, 0),
        {"v": (6, 7, 7)},
        created_filter=True,
    ),
    Case(
        "backfill_of_the_past_does_not_replace_the_present",
        "A row about an older moment that arrives late does not replace a newer one.",
        (_view(_row(-10, 7, created=_at(-9)), _row(-30, 6, created=_at(-2)), ttl=_HOUR, created=True),),
        _ask(0, -20),
        {"v": (7, None)},
        created_filter=True,
    ),
    Case(
        "views_with_different_keys",
        "Each view is joined by its own keys.",
        (
            _view(_row(-10, 7, k=1), _row(-10, 8, k=2), ttl=_HOUR),
            View(
                "b",
                ({"m": "x", "time": _at(-20), "w": 1.5}, {"m": "y", "time": _at(-20), "w": 2.5}),
                {"w": "float64"},
                {"m": "string"},
                _HOUR,
            ),
        ),
        (
            {"n": 0, "k": 1, "m": "y", "event_timestamp": _at(0)},
            {"n": 1, "k": 2, "m": "x", "event_timestamp": _at(0)},
            {"n": 2, "k": 3, "m": "x", "event_timestamp": _at(0)},
        ),
        {"v": (7, 8, None), "w": (2.5, 1.5, 1.5)},
    ),
    Case(
        "key_of_two_columns",
        "Both columns of a key must agree.",
        (
            View(
                "a",
                (
                    {"k": 1, "m": "x", "time": _at(-10), "v": 7},
                    {"k": 1, "m": "y", "time": _at(-5), "v": 8},
                    {"k": 11, "m": "x", "time": _at(-5), "v": 9},
                ),
                {"v": "int64"},
                {"k": "int64", "m": "string"},
                _HOUR,
            ),
        ),
        tuple(
            {"n": n, "k": k, "m": m, "event_timestamp": _at(0)}
            for n, (k, m) in enumerate(((1, "x"), (1, "y"), (2, "x")))
        ),
        {"v": (7, 8, None)},
    ),
    Case(
        "one_view_by_two_keys",
        "A view can be joined twice, under another name by another column.",
        (_view(_row(-10, 7, k=1), _row(-10, 8, k=2), ttl=_HOUR),),
        _ask(0, -5, other=2),
        {"a__v": (7, 7), "b__v": (8, 8)},
        aliases=(Alias("a", "b", {"k": "other"}),),
        full_names=True,
    ),
    Case(
        "full_feature_names",
        "With full names two views may have a feature of one name.",
        (_view(_row(-10, 7), ttl=_HOUR), _view(_row(-20, 8), name="b", ttl=_HOUR)),
        _ask(0),
        {"a__v": (7,), "b__v": (8,)},
        full_names=True,
    ),
    Case(
        "field_mapping",
        "Columns of the source may have other names than the features, the key and the times.",
        (
            View(
                "a",
                (
                    {"id": 1, "seen": _at(-10), "written": _at(-9), "raw": 7},
                    {"id": 1, "seen": _at(-10), "written": _at(-8), "raw": 8},
                ),
                {"v": "int64"},
                ttl=_HOUR,
                created=True,
                renamed={"id": "k", "seen": "time", "written": "created", "raw": "v"},
            ),
        ),
        _ask(0),
        {"v": (8,)},
    ),
    Case(
        "examples_in_another_zone",
        "A time is a moment: 14:00+02:00 is 12:00 UTC.",
        (_view(_row(-10, 7), _row(10, 8), ttl=_HOUR),),
        tuple({"n": n, "k": 1, "event_timestamp": _at(m, zone=_EAST)} for n, m in enumerate((0, 10, 71))),
        {"v": (7, 8, None)},
    ),
    Case(
        "naive_examples_are_utc",
        "An example's time without zone is UTC.",
        (_view(_row(-10, 7), _row(10, 8), ttl=_HOUR),),
        tuple(
            {"n": n, "k": 1, "event_timestamp": _at(m).replace(tzinfo=None)} for n, m in enumerate((0, 10))
        ),
        {"v": (7, 8)},
    ),
    Case(
        "naive_rows_are_utc",
        "A row's time without zone is UTC.",
        (_view(_row(-10, 7), _row(10, 8), ttl=_HOUR, naive=True),),
        _ask(0, 10, 71),
        {"v": (7, 8, None)},
    ),
    Case(
        "missing_key_matches_nothing",
        "An example without a key stays, and matches no row, not even one without a key.",
        (_view(_row(-10, 7, k="x"), _row(-10, 8, k=None), ttl=_HOUR, keys={"k": "string"}),),
        tuple({"n": n, "k": k, "event_timestamp": _at(0)} for n, k in enumerate(("x", None))),
        {"v": (7, None)},
    ),
    Case(
        "unknown_key_stays_without_value",
        "An example of an unknown key stays, with nothing in it.",
        (_view(_row(-10, 7), ttl=_HOUR),),
        (*_ask(0), {"n": 1, "k": 99, "event_timestamp": _at(0)}),
        {"v": (7, None)},
    ),
    Case(
        "names_ending_in_x_and_y",
        "Features may be called score_x and score_y.",
        (
            View("a", ({"k": 1, "time": _at(-10), "score_x": 7},), {"score_x": "int64"}, ttl=_HOUR),
            View("b", ({"k": 1, "time": _at(-10), "score_y": 8},), {"score_y": "int64"}, ttl=_HOUR),
        ),
        _ask(0),
        {"score_x": (7,), "score_y": (8,)},
    ),
    Case(
        "times_to_live_of_mixed_units",
        "Views may live for days, minutes and seconds in one service.",
        (
            View("a", (_row(-60 * 47, 7),), {"v": "int64"}, ttl=timedelta(days=1, hours=23, seconds=30)),
            View("b", ({"k": 1, "time": _at(-91), "w": 8},), {"w": "int64"}, ttl=timedelta(minutes=90)),
            View("c", ({"k": 1, "time": _at(-1), "u": 9},), {"u": "int64"}, ttl=timedelta(seconds=75)),
        ),
        _ask(0, -1, 1),
        {"v": (7, 7, None), "w": (None, 8, None), "u": (9, 9, None)},
    ),
    Case(
        "integers_stay_integers",
        "An integer feature that is missing for some examples is no float for the others.",
        (_view(_row(-10, 2**53 + 1), ttl=_HOUR),),
        _ask(0, 600),
        {"v": (2**53 + 1, None)},
        integers=("v",),
    ),
    Case(
        "text_and_truth",
        "Texts and truth values come back as they are, empty ones too.",
        (
            View(
                "a",
                ({"k": 1, "time": _at(-10), "s": "", "b": False},),
                {"s": "string", "b": "bool"},
                ttl=_HOUR,
            ),
        ),
        _ask(0, 600),
        {"s": ("", None), "b": (False, None)},
    ),
    Case(
        "examples_as_sql",
        "Examples may be a query.",
        (_view(_row(-10, 7), _row(-30, 6), ttl=_HOUR),),
        _ask(0, -20, 90),
        {"v": (7, 6, None)},
        sql=True,
    ),
    Case(
        "other_columns_stay",
        "Columns of the examples that are no keys come back beside the features.",
        (_view(_row(-10, 7), ttl=_HOUR),),
        _ask(0, -5, label="yes"),
        {"v": (7, 7), "label": ("yes", "yes")},
    ),
    Case(
        "empty_source",
        "A view without a single row gives nothing, and takes nothing away.",
        (_view(ttl=_HOUR), View("b", ({"k": 1, "time": _at(-10), "w": 8},), {"w": "int64"}, ttl=_HOUR)),
        _ask(0, -5),
        {"v": (None, None), "w": (8, 8)},
    ),
    Case(
        "many_examples",
        "As many rows come out as examples went in.",
        (_view(*(_row(-30 + n % 7, n, k=n % 5) for n in range(35)), ttl=timedelta(minutes=26)),),
        tuple({"n": n, "k": n % 6, "event_timestamp": _at(-n % 3)} for n in range(300)),
        {
            "v": tuple(
                None if n % 6 == 5 else next(v for v in range(35) if v % 7 == 6 and v % 5 == n % 6)
                for n in range(300)
            )
        },
    ),
    Case(
        "feature_named_as_an_example_column",
        "A feature that would overwrite a column of the examples is refused.",
        (_view(_row(-10, 7), ttl=_HOUR),),
        _ask(0, v=1),
        refused=True,
    ),
)
"""All cases; their names differ."""
