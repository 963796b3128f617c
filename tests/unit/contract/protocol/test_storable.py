"""Whatever comes from outside can be kept, and what was changed of it is visible."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.contract.protocol.storable import SIZE_LIMIT, TEXT_LIMIT, storable, storable_text

ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=()), max_size=5), inner, max_size=4)
    ),
)


@given(ANY)
def test_everything_becomes_json_that_a_database_keeps(value):
    kept = storable(value)
    text = json.dumps(kept, allow_nan=False, ensure_ascii=False)
    text.encode()  # no lone surrogate
    assert "\\u0000" not in text.replace("\\\\", "")
    assert storable(kept) == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\0b", r"a\x00b"),
        ("\ud800", r"\ud800"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("Zürich 🛫", "Zürich 🛫"),
    ],
)
def test_what_no_system_keeps_is_spelled_out(text, kept):
    assert storable_text(text) == kept
    assert storable({text: [text]}) == {kept: [kept]}


@pytest.mark.parametrize("letter", ["a", "\0", "ä", "\ud800"])
def test_a_long_text_is_cut_and_says_so(letter):
    long, other = letter * 10**6, letter * (10**6 - 1) + "z"
    kept = storable_text(long)
    assert len(kept) <= TEXT_LIMIT
    assert "1000000 characters" in kept
    assert kept != storable_text(other)
    assert storable_text(kept) == kept


def test_a_value_too_large_loses_its_largest_entries_visibly():
    kept = storable({"alarm_id": "a1", "figures": ["x" * 1000] * 1000, "message": "worse"})
    assert (kept["alarm_id"], kept["message"]) == ("a1", "worse")
    assert kept["figures"].startswith("set aside: ")
    assert len(json.dumps(kept)) <= SIZE_LIMIT


@pytest.mark.parametrize(
    "value", [{f"key{n}": n for n in range(100_000)}, list(range(100_000)), {"a" * 10**6: 1}]
)
def test_many_small_entries_are_bounded_too(value):
    kept = storable(value)
    assert len(json.dumps(kept)) <= SIZE_LIMIT
    assert storable(kept) == kept


def test_depth_and_numbers_are_bounded():
    deep: object = "end"
    for _ in range(900):
        deep = [deep]
    assert "levels deep" in json.dumps(storable(deep))
    assert storable([float("nan"), float("inf"), 10**400]) == [
        "nan",
        "inf",
        "a whole number of 1329 bits",
    ]
