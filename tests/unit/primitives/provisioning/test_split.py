"""Splits by time: shares of rows, nothing torn apart, the future never before the past."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.exceptions import DataError, SpecError
from airflow_mlops.primitives.provisioning.split import (
    cut_by_month,
    iso,
    parse_split,
    parse_time,
    split_by_time,
    whole,
)

THIRDS = {"train": 0.7, "validation": 0.15, "test": 0.15}
NOTHING = timedelta(0)
DAY = 86_400_000_000


def sizes(split):
    return {part.name: part.rows for part in split.splits}


def test_shares_are_shares_of_rows():
    split = split_by_time(range(1000), [1] * 1000, THIRDS, NOTHING)
    assert sizes(split) == {"train": 700, "validation": 150, "test": 150}
    assert [(part.first, part.stop) for part in split.splits] == [(0, 700), (700, 850), (850, 1000)]


def test_busy_and_quiet_times_still_give_shares_of_rows():
    split = split_by_time([0, 1, 2, 3, 100, 200], [700, 1, 1, 148, 75, 75], THIRDS, NOTHING)
    assert sizes(split) == {"train": 700, "validation": 150, "test": 150}


def test_equal_times_stay_together():
    split = split_by_time([1, 2, 3], [10, 10, 10], {"train": 0.5, "test": 0.5}, NOTHING)
    assert sizes(split) == {"train": 10, "test": 20}  # of two bounds as near, the earlier


def test_the_gap_is_left_out_and_counted():
    split = split_by_time(range(100), [1] * 100, {"train": 0.5, "test": 0.5}, timedelta(microseconds=10))
    assert sizes(split) == {"train": 50, "test": 40}
    assert split.dropped == 10
    assert split.to_json()["bounds"] == {"train": [None, iso(49)], "test": [iso(59), None]}
    assert [(part.first, part.stop) for part in split.splits] == [(0, 50), (60, 100)]


def test_a_share_of_zero_leaves_its_split_out():
    split = split_by_time(range(10), [1] * 10, {"train": 0.8, "validation": 0, "test": 0.2}, NOTHING)
    assert sizes(split) == {"train": 8, "test": 2}


@pytest.mark.parametrize(
    ("times", "gap"), [([5], NOTHING), ([1, 2], NOTHING), (range(10), timedelta(microseconds=9))]
)
def test_an_empty_split_says_why(times, gap):
    with pytest.raises(DataError, match=r"would be empty: .* distinct time\(s\).*widen the window"):
        split_by_time(times, [1] * len(times), THIRDS, gap)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"train": 0.7, "test": 0.2}, "sum to 1"),
        ({"train": 1.5, "test": -0.5}, r"lie in \[0, 1\]"),
        ({"train": 0.5, "tests": 0.5}, "unknown name.*tests"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares, message):
    with pytest.raises(SpecError, match=message):
        split_by_time([1, 2], [1, 1], shares, NOTHING)


@given(
    steps=st.lists(st.tuples(st.integers(1, 40 * DAY), st.integers(1, 9)), min_size=30, max_size=80),
    gap=st.integers(0, 5 * DAY),
)
def test_splits_follow_each_other_and_pieces_cover_them(steps, gap):
    times, counts, now = [], [], 0
    for step, count in steps:
        now += step
        times.append(now)
        counts.append(count)
    try:
        split = split_by_time(times, counts, THIRDS, timedelta(microseconds=gap))
    except DataError:
        return
    rows = [time for time, count in zip(times, counts, strict=True) for _ in range(count)]
    assert sum(part.rows for part in split.splits) + split.dropped == len(rows)
    for part in split.splits:
        inside = rows[part.first : part.stop]
        assert inside == [
            t
            for t in rows
            if (part.after is None or t > part.after) and (part.until is None or t <= part.until)
        ]
    for one, two in pairwise(split.splits):
        assert rows[two.first] - rows[one.stop - 1] > gap
    pieces = cut_by_month(times, counts, split)
    for part in split.splits:
        mine = [piece for piece in pieces if piece.split == part.name]
        assert mine[0].first == part.first
        assert mine[-1].stop == part.stop
        assert all(one.stop == two.first for one, two in pairwise(mine))
    for piece in pieces:
        assert len({iso(time)[:7] for time in rows[piece.first : piece.stop]}) == 1


def test_untouched_months_make_the_same_pieces_in_a_longer_window():
    times = [parse_time(f"2013-{month:02}-10") for month in range(1, 5)]
    shorter = cut_by_month(times[:3], [2] * 3, whole("train", 6))
    longer = cut_by_month(times, [2] * 4, whole("train", 8))
    assert longer[:3] == shorter


def test_a_time_without_zone_is_utc():
    assert parse_time("2013-07-01") == parse_time("2013-07-01T02:00:00+02:00")
    assert parse_time(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)) == 1_000_000
    with pytest.raises(DataError, match="'yesterday' is no time"):
        parse_time("yesterday")


def test_a_rule_as_the_yaml_has_it():
    assert parse_split({"by": "time", "train": 0.8, "test": 0.2, "gap": "12h"}) == (
        {"train": 0.8, "test": 0.2},
        timedelta(hours=12),
    )
    assert parse_split(None) == ({}, NOTHING)
    with pytest.raises(SpecError, match="'random' is unknown, expected time"):
        parse_split({"by": "random"})
    with pytest.raises(SpecError, match="gap 'soon'"):
        parse_split({"by": "time", "gap": "soon"})
