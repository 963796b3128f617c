"""What is read next, and how far the watermark moves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from airflow_mlops.exceptions import SourceError, SpecError
from airflow_mlops.primitives.features.watermark import (
    ReadWindow,
    Watermark,
    advanced,
    bound,
    kind_of,
    kind_of_type,
    plan_window,
    time_read,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - a time without zone is what it is about
REACHED = Watermark("at", "timestamp", "2026-05-01T00:00:00+00:00")


def plan(previous=REACHED, kind=None, column="at", **options) -> ReadWindow:
    return plan_window(column, kind, previous, now=NOW, **options)


class TestPlan:
    def test_without_a_watermark_everything_is_read(self):
        assert plan_window(None, None, REACHED, now=NOW) == ReadWindow()

    def test_the_first_run_reads_from_the_beginning_to_now(self):
        assert plan(None) == ReadWindow("at", "timestamp", None, "2026-06-01T12:00:00+00:00", moves=True)

    def test_the_next_one_reads_from_the_watermark_and_late_earlier(self):
        assert plan().after == "2026-05-01T00:00:00+00:00"
        assert plan(late=timedelta(hours=1)).after == "2026-04-30T23:00:00+00:00"

    def test_times_to_come_are_never_read(self):
        assert plan(end="2030-01-01").until == "2026-06-01T12:00:00+00:00"
        assert plan(end="2026-05-02T02:00:00+02:00").until == "2026-05-02T00:00:00+00:00"

    def test_a_number_ends_where_the_source_does(self):
        previous = Watermark("id", "integer", 7)
        assert plan(previous, "integer", "id", newest=9) == ReadWindow("id", "integer", 7, 9)

    @pytest.mark.parametrize(
        ("start", "moves"), [("2026-04-01", True), ("2026-05-01", True), ("2026-05-02", False)]
    )
    def test_a_backfill_moves_the_watermark_only_if_there_is_no_gap(self, start, moves):
        assert plan(start=start).moves is moves

    def test_an_explicit_start_without_a_watermark_moves_none(self):
        assert plan(None, start="2026-01-01").moves is False

    def test_another_column_begins_anew(self):
        assert plan(column="changed").after is None

    def test_a_time_stays_one_when_its_kind_changes(self):
        assert plan(kind="naive").after == "2026-05-01T00:00:00+00:00"
        assert plan(kind="date").after == "2026-05-01"

    def test_a_clock_behind_the_watermark_leaves_an_empty_window(self):
        late = plan_window("at", None, REACHED, now=datetime(2026, 1, 1, tzinfo=UTC))
        assert late.empty
        assert not plan().empty

    def test_bounds_that_are_no_times_are_refused(self):
        with pytest.raises(SpecError, match="'soon' cannot bound"):
            plan(start="soon")
        with pytest.raises(SpecError, match="late needs a watermark that is a time"):
            plan(Watermark("id", "integer", 7), "integer", "id", late=timedelta(1))

    def test_json_and_back(self):
        window = plan(late=timedelta(hours=1))
        assert ReadWindow.from_json(window.to_json()) == window
        assert Watermark.from_json(REACHED.to_json()) == REACHED
        assert Watermark.from_json(None) is None
        asked = replace(window, backfill=True)
        assert ReadWindow.from_json(asked.to_json()) == asked
        # As the run staged it that was at work while this package was upgraded.
        before = {name: value for name, value in asked.to_json().items() if name != "backfill"}
        assert ReadWindow.from_json(before) == window

    @pytest.mark.parametrize(
        ("kind", "value", "read"),
        [
            ("timestamp", "2026-05-01T02:00:00+02:00", datetime(2026, 5, 1, tzinfo=UTC)),
            ("naive", "2026-05-01T00:00:00", datetime(2026, 5, 1, tzinfo=UTC)),
            ("date", "2026-05-01", datetime(2026, 5, 1, tzinfo=UTC)),
            ("integer", 7, None),
            ("text", "2026-05-01", None),
        ],
    )
    def test_how_far_it_is_as_a_time(self, kind, value, read):
        assert time_read(Watermark("at", kind, value)) == read
        assert time_read(None) is None


class TestAdvanced:
    def test_it_moves_forward_and_never_back(self):
        newer = Watermark("at", "timestamp", "2026-05-02T00:00:00+00:00")
        assert advanced(REACHED, plan(), newer) == newer
        assert advanced(newer, plan(), REACHED) == newer
        assert advanced(REACHED, plan(), None) == REACHED
        assert advanced(None, plan(None), newer) == newer

    def test_it_is_compared_as_a_time_and_not_as_text(self):
        later = Watermark("at", "naive", "2026-05-01T00:30:00+00:00")
        assert advanced(Watermark("at", "timestamp", "2026-05-01T02:00:00+02:00"), plan(), later) == later

    def test_a_window_behind_a_gap_does_not_move_it(self):
        newer = Watermark("at", "timestamp", "2026-05-09T00:00:00+00:00")
        assert advanced(REACHED, plan(start="2026-05-08"), newer) == REACHED


class TestValues:
    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (datetime(2026, 1, 1, tzinfo=UTC), "timestamp"),
            (NAIVE, "naive"),
            (date(2026, 1, 1), "date"),
            (3, "integer"),
            (Decimal(3), "integer"),
            ("x", "text"),
        ],
    )
    def test_kinds(self, value, kind):
        assert kind_of(value, "c") == kind

    @pytest.mark.parametrize("value", [1.5, True, Decimal("1.5"), b"x"])
    def test_what_cannot_be_a_watermark(self, value):
        with pytest.raises(SourceError, match=r"watermark 'c' is .*Cure"):
            kind_of(value, "c")

    def test_kinds_of_types(self):
        assert kind_of_type("TIMESTAMP_NS", "c") == "naive"
        assert kind_of_type("TIMESTAMP WITH TIME ZONE", "c") == "timestamp"
        with pytest.raises(SourceError, match="DOUBLE"):
            kind_of_type("DOUBLE", "c")

    def test_a_bound_has_the_columns_own_kind(self):
        text = "2026-01-01T02:00:00+02:00"
        assert bound("timestamp", text) == datetime(2026, 1, 1, tzinfo=UTC)
        assert bound("naive", text) == NAIVE
        assert bound("date", text) == date(2026, 1, 1)
        assert bound("timestamp", datetime(2026, 1, 1, 5, tzinfo=timezone(timedelta(hours=5)))) == datetime(
            2026, 1, 1, tzinfo=UTC
        )
        assert bound("integer", "7") == 7
