from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from airflow_mlops.spec.values import duration, format_duration, format_size, size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("6h", timedelta(hours=6)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
        ("0s", timedelta(0)),
    ],
)
def test_durations(text, value):
    assert duration(text) == value
    assert duration(value) == value


@pytest.mark.parametrize(
    "bad", ["", "1", "1.5h", "-1h", "1 h", "1H", "h", 90, None, True, [1], "99999999w", "1h30m"]
)
def test_what_is_no_duration(bad):
    with pytest.raises(PydanticCustomError):
        duration(bad)


@given(st.integers(min_value=0, max_value=36500 * 86400))
def test_durations_survive_being_written(seconds):
    assert duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("text", "value"), [("1k", 1024), ("512m", 512 * 1024**2), ("4G", 4 * 1024**3)])
def test_sizes(text, value):
    assert size(text) == value


@pytest.mark.parametrize("bad", ["", "4", "4gb", "-1g", "1.5g", "1025t", "٤g", 4, None, True])
def test_what_is_no_size(bad):
    with pytest.raises(PydanticCustomError):
        size(bad)


@given(st.integers(min_value=1, max_value=10**9))
def test_sizes_survive_being_written(kilobytes):
    assert size(format_size(kilobytes * 1024)) == kilobytes * 1024
