"""A split as a YAML file states it, and times as texts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_mlops.exceptions import DataError, SpecError
from airflow_mlops.primitives.datasets.splits.rule import parse_split, parse_time


def test_a_rule_as_the_yaml_has_it():
    rule = parse_split({"by": "time", "train": 0.8, "test": 0.2, "gap": "12h", "key": None})
    assert (rule.by, rule.shares, rule.gap) == ("time", {"train": 0.8, "test": 0.2}, timedelta(hours=12))
    assert rule.to_json() == {"by": "time", "shares": {"train": 0.8, "test": 0.2}, "gap_seconds": 43200.0}
    assert parse_split({"train": 1.0}).by == "time"
    assert parse_split(None) is None
    assert parse_split({}) is None


def test_one_column_is_a_key_of_one():
    rule = parse_split({"by": "group", "key": "patient", "train": 0.5, "test": 0.5, "folds": 3, "seed": 7})
    assert rule.key == ("patient",)
    assert rule.to_json() == {
        "by": "group",
        "shares": {"train": 0.5, "test": 0.5},
        "key": ["patient"],
        "seed": 7,
        "folds": 3,
    }


def test_a_column_has_values_and_no_shares():
    given = {"by": "column", "column": "part"}
    with pytest.raises(SpecError, match="train has no meaning for by: column"):
        parse_split({**given, "train": 0.7})
    assert parse_split(given).values == {"train": "train", "validation": "validation", "test": "test"}
    assert parse_split(given).names == ("train",)
    mapped = parse_split({"by": "column", "column": "part", "values": {"train": ["a", 1, True], "test": "b"}})
    assert mapped.values == {"a": "train", "1": "train", "true": "train", "b": "test"}
    assert mapped.names == ("train", "test")


def test_a_frozen_test_needs_no_share_but_must_be_there():
    assert parse_split({"by": "hash", "train": 1.0, "freeze": "latest"}).names == ("train", "test")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"by": "random"},
            "by is none of the known words, expected time, hash, group or column, got the text 'random'",
        ),
        (
            {"by": "time", "train": 1.0, "gap": "soon"},
            "gap is not a duration, expected .* got the text 'soon'",
        ),
        ({"train": 0.7, "test": 0.2}, r"train \+ validation \+ test = 1"),
        ({"train": 1.5, "test": -0.5}, "train is out of range, expected at most 1"),
        ({"train": 1.0, "tests": 0.5}, "tests is not a known key"),
        ({"by": "time", "train": 1.0, "key": "id", "stratify": "y"}, "key has no meaning for by: time"),
        ({"by": "hash", "train": 1.0, "gap": "1d"}, "gap has no meaning for by: hash"),
        ({"by": "hash", "train": 1.0, "column": "part"}, "column has no meaning for by: hash"),
        ({"by": "group", "train": 1.0}, "by: group lacks key"),
        ({"by": "column"}, "by: column lacks column"),
        (
            {"by": "column", "column": "c", "values": {"training": "a"}},
            r"values\.training is not a known key",
        ),
        (
            {"by": "column", "column": "c", "values": {"train": ["a"], "test": ["a"]}},
            "names a for train and for test",
        ),
        ({"by": "hash", "train": 1.0, "folds": 1}, "folds is out of range, expected at least 2"),
        ({"by": "time", "test": 1.0, "freeze": "latest"}, "train leaves nothing to learn from"),
    ],
)
def test_what_cannot_be_meant_is_refused(rule, message):
    with pytest.raises(SpecError, match=message):
        parse_split(rule)


def test_a_time_without_zone_is_utc():
    assert parse_time("2013-07-01") == parse_time("2013-07-01T02:00:00+02:00")
    assert parse_time(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)) == 1_000_000
    with pytest.raises(DataError, match="'yesterday' is no time"):
        parse_time("yesterday")


def test_a_rule_in_words_is_as_an_author_says_it():
    timed = parse_split({"by": "time", "train": 0.7, "test": 0.3, "gap": "7d"})
    assert timed.words == "by time, train 0.7, test 0.3, gap 7d"
    hashed = parse_split({"by": "hash", "train": 0.8, "test": 0.2, "key": ["shop", "day"], "folds": 3})
    assert hashed.words == "by hash, train 0.8, test 0.2, key shop, day, folds 3"
