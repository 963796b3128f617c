"""Which examples come next, and what their batch is called."""

from __future__ import annotations

import itertools
import json

import pytest

from airflow_mlops.primitives.delivery.batch import PredictionBatch, next_start, overtaken_by, window_id


def batch(start: str, end: str) -> PredictionBatch:
    return PredictionBatch(window_id(start, end), (start, end), 3, "app", "d", "m", "1", "r", "run", end)


@pytest.mark.parametrize(
    ("start", "end", "name"),
    [
        ("2013-03-01T00:00:00+00:00", "2013-04-01T00:00:00Z", "20130301T000000Z-20130401T000000Z"),
        ("2013-03-31T01:30:00+01:00", "2013-03-31T03:30:00+02:00", "20130331T003000Z-20130331T013000Z"),
        (
            "2013-03-01T00:00:00.250000+00:00",
            "2013-03-01T00:00:00.500000Z",
            "20130301T000000Z250000-20130301T000000Z500000",
        ),
    ],
)
def test_a_window_is_named_by_its_times_in_utc(start, end, name):
    assert window_id(start, end) == name


def test_names_differ_and_sort_by_time_within_a_second_too():
    moments = [
        f"2013-03-01T00:00:{second}+00:00" for second in ("00", "00.000001", "00.5", "00.75", "01", "59")
    ]
    names = [window_id(*pair) for pair in itertools.pairwise(moments)]
    assert sorted(set(names)) == names


def test_the_next_batch_begins_where_the_last_one_ended():
    trained_to = "2013-03-01T00:00:00+00:00"
    assert next_start([], trained_to) == trained_to
    batches = [
        json.loads(batch("2013-03-01T00:00:00+00:00", end).to_json())
        for end in ("2013-04-01T00:00:00+00:00", "2013-04-01T00:30:00+01:00")
    ]
    assert next_start(batches, trained_to) == "2013-04-01T00:00:00+00:00"


def test_a_new_champion_does_not_predict_again_what_was_predicted():
    batches = [json.loads(batch("2013-03-01T00:00:00+00:00", "2013-04-01T00:00:00+00:00").to_json())]
    assert next_start(batches, "2013-03-20T00:00:00+00:00") == "2013-04-01T00:00:00+00:00"


def test_a_window_is_overtaken_by_a_later_one_but_not_by_itself_or_earlier_ones():
    months = [f"2013-{month:02}-01T00:00:00+00:00" for month in range(1, 6)]
    batches = [json.loads(batch(*pair).to_json()) for pair in itertools.pairwise(months[:4])]
    assert overtaken_by(batches, months[3], months[4]) is None
    assert overtaken_by(batches, months[2], months[3]) is None
    assert overtaken_by(batches, months[2], months[4]) == window_id(months[2], months[3])
    assert overtaken_by(batches, months[0], months[4]) == window_id(months[0], months[1])
