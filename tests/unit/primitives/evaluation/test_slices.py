"""Parts of a split by the values of a column."""

from __future__ import annotations

import numpy as np
import pytest

from airflow_mlops.exceptions import DataError
from airflow_mlops.primitives.evaluation.slices import slice_named, slices_of


def sizes(column, values):
    return {one.name: one.size for one in slices_of(column, values)}


def test_values_largest_first_and_what_is_missing_apart():
    values = np.ma.masked_array(["b", "a", "b", "x"], mask=[0, 0, 0, 1])
    assert list(sizes("origin", values).items()) == [("origin=b", 2), ("origin is null", 1), ("origin=a", 1)]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (np.array([True, False, True]), ["flag=true", "flag=false"]),
        (np.array([1.0, 2.0, 1.0]), ["flag=1", "flag=2"]),
        (np.array([3, 3, 4], dtype=np.int8), ["flag=3", "flag=4"]),
        (np.array(["x", None, "x"], dtype=object), ["flag=x", "flag is null"]),
        (np.array([0.5, np.nan, 0.5]), ["flag=0.5", "flag is null"]),
    ],
)
def test_names_are_as_the_data_show_them(values, names):
    assert list(sizes("flag", values)) == names


def test_a_number_of_many_values_is_cut_into_quarters_that_hold_every_row():
    found = slices_of("distance", np.arange(101.0))
    assert [one.size for one in found] == [26, 25, 25, 25]
    assert found[0].name == "distance from 75 to 100"
    assert sum(one.rows for one in found).tolist() == [1] * 101


def test_too_many_values_say_the_cure():
    with pytest.raises(DataError, match=r"Column tail has 300 different values.*group them"):
        slices_of("tail", np.array([f"N{i}" for i in range(300)]))


def test_one_slice_by_its_name():
    columns = {"origin": np.array(["a=b", "c"]), "n": np.array([1.0, 2.0])}
    assert slice_named("origin=a=b", columns).tolist() == [True, False]
    assert slice_named("n = 2", columns).tolist() == [False, True]
    assert slice_named("gone=1", columns) is None
    assert not slice_named("origin=zz", columns).any()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (np.array([True, False]), ["x=1", "x = True", "x=1.0"]),
        (np.array([1, 0], dtype=np.int32), ["x=1.0", "x=1"]),
        (np.array([1.0, 2.5]), ["x=1", "x=1.0"]),
        (np.array([0.1, 0.7], dtype=np.float32), ["x=0.1", "x=0.10", "x=0.10000000149011612"]),
        (np.array([0.1, 0.7], dtype=np.float32).astype(float), ["x=0.1"]),
    ],
    ids=["booleans", "whole", "floats", "32 bits", "32 bits as 64"],
)
def test_one_slice_by_another_spelling_of_its_value(values, named):
    for name in named:
        assert slice_named(name, {"x": values}).tolist() == [True, False], name
    assert not slice_named("x=3", {"x": values}).any()


def test_texts_are_named_as_they_are():
    assert slice_named("x=1", {"x": np.array(["1", "1.0", "01"])}).tolist() == [True, False, False]


def test_whole_numbers_among_floats_are_named_as_whole():
    assert sizes("x", np.array([1.0, 2.5, 1.0])) == {"x=1": 2, "x=2.5": 1}


def test_nothing_but_missing():
    assert sizes("x", np.ma.masked_all(3, dtype="U1")) == {"x is null": 3}
