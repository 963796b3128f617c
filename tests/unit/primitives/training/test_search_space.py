"""What a tuning may try: what the model code offers, narrowed by the YAML and never widened."""

from __future__ import annotations

import pytest

from airflow_mlops.exceptions import ContractError, ParameterError
from airflow_mlops.primitives.training.search_space import Dimension, default_point, grid, search_space

SCHEMA = {
    "properties": {
        "rate": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "search": {"low": 0.01, "high": 0.5, "log": True},
        },
        "leaves": {"type": "integer", "minimum": 2, "search": {"low": 8, "high": 64, "step": 8}},
        "kind": {"type": "string", "enum": ["gini", "entropy"]},
        "warm": {"type": "boolean"},
        "rows": {"type": "integer", "minimum": 1},
        "name": {"type": "string"},
    }
}


def test_what_the_description_offers_is_searched():
    assert search_space(SCHEMA, {}) == {
        "rate": Dimension("float", 0.01, 0.5, log=True),
        "leaves": Dimension("int", 8, 64, step=8),
    }


def test_without_an_offer_whatever_has_bounds_is_searched():
    bounded = {
        "depth": {"type": "integer", "minimum": 1, "exclusiveMaximum": 9},
        "kind": SCHEMA["properties"]["kind"],
        "warm": SCHEMA["properties"]["warm"],
        "rows": SCHEMA["properties"]["rows"],
        "name": SCHEMA["properties"]["name"],
    }
    assert search_space({"properties": bounded}, {}) == {
        "depth": Dimension("int", 1, 8, step=1),
        "kind": Dimension("choices", choices=("gini", "entropy")),
        "warm": Dimension("choices", choices=(False, True)),
    }


def test_the_yaml_narrows_adds_and_leaves_out_what_has_a_value():
    narrowed = {"rate": {"high": 0.1}, "rows": {"low": 10, "high": 20}, "name": {"choices": ["a", "b"]}}
    assert search_space(SCHEMA, narrowed, fixed=["leaves"]) == {
        "rate": Dimension("float", 0.01, 0.1, log=True),
        "rows": Dimension("int", 10, 20, step=1),
        "name": Dimension("choices", choices=("a", "b")),
    }


@pytest.mark.parametrize(
    ("narrowed", "message"),
    [
        ({"rate": {"high": 0.9}}, "rate is allowed from 0.01 to 0.5, got 0.01 to 0.9"),
        ({"rate": {"low": 0.4, "high": 0.2}}, "rate has low 0.4 above high 0.2"),
        ({"rate": {"step": 0.1}}, "rate has both log and step"),
        ({"rate": {"choices": [0.1, 0.7]}}, "rate is allowed as 0.01 to 0.5; not allowed: 0.7"),
        ({"rate": {"choices": [0.1], "low": 0.1}}, "rate has both choices and bounds"),
        ({"leaves": {"low": 8.5}}, "leaves is a whole number"),
        ({"leaves": {"low": 8, "choice": [8]}}, "leaves has unknown keys choice"),
        ({"rows": {"low": 10}}, "rows has no high: give it one"),
        ({"kind": {"choices": ["gini", "mse"]}}, "kind is allowed as 'gini', 'entropy'; not allowed: 'mse'"),
        ({"kind": {"low": 1}}, "kind is no number: expected choices of 'gini', 'entropy'"),
        ({"warm": {"choices": [1]}}, "warm is allowed as False, True; not allowed: 1"),
        ({"raet": {"high": 0.1}}, r"raet is not known \(did you mean rate\?\)"),
        ({"name": {}}, "name is no number: expected choices of any text"),
    ],
)
def test_what_leaves_the_schema_is_named(narrowed, message):
    with pytest.raises(ParameterError, match=message):
        search_space(SCHEMA, narrowed)


def test_all_problems_are_said_at_once():
    with pytest.raises(ParameterError) as error:
        search_space(SCHEMA, {"rate": {"high": 2}, "other": {}, "leaves": {"low": 16}}, fixed=["leaves"])
    assert [line[4:12] for line in str(error.value).splitlines()[1:4]] == ["other is", "leaves i", "rate is "]


def test_nothing_to_search_is_an_error():
    with pytest.raises(ParameterError, match="no parameter to search"):
        search_space(SCHEMA, {}, fixed=["rate", "leaves"])


def test_a_broken_offer_is_the_model_codes_fault():
    wrong = {"properties": {"rate": {"type": "number", "minimum": 0, "search": {"low": -1, "high": 1}}}}
    with pytest.raises(ContractError, match="describe gives a broken search space: rate is allowed from 0"):
        search_space(wrong, {})


def test_a_grid_has_every_point_once_in_an_order_of_its_seed():
    space = {"a": Dimension("int", 1, 3, step=1), "b": Dimension("float", 0.0, 0.3, step=0.1)}
    points = grid(space, 7)
    assert points == grid(space, 7) != grid(space, 8)
    assert sorted((point["a"], round(point["b"], 3)) for point in points) == [
        (a, round(b / 10, 3)) for a in (1, 2, 3) for b in range(4)
    ]
    with pytest.raises(ParameterError, match="cannot search c: a float without step"):
        grid({"c": Dimension("float", 0.0, 1.0)}, 0)
    with pytest.raises(ParameterError, match="1000000 points"):
        grid({"d": Dimension("int", 1, 1_000_000, step=1)}, 0)


def test_the_defaults_are_a_point_where_the_space_has_them():
    space = search_space(SCHEMA, {})
    assert default_point(space, {"rate": 0.1, "leaves": 32, "rows": 5}) == {"rate": 0.1, "leaves": 32}
    assert default_point(space, {"rate": 0.9, "leaves": 32}) is None


@pytest.mark.parametrize(
    ("dimension", "value", "nearest"),
    [
        (Dimension("int", 8, 128, step=8), 31, 32),
        (Dimension("int", 8, 128, step=50), 127, 108),
        (Dimension("int", 1, 9, step=1), 4, 4),
        (Dimension("float", 0.0, 0.3, step=0.1), 0.26, 0.3),
        (Dimension("float", 0.1, 0.95, step=0.3), 0.9, 0.7),
        (Dimension("float", 0.0, 0.3), 0.26, 0.26),
        (Dimension("choices", choices=("a", "b")), "b", "b"),
    ],
)
def test_a_default_between_two_steps_goes_to_the_nearest(dimension, value, nearest):
    assert default_point({"p": dimension}, {"p": value}) == {"p": nearest}


def test_steps_end_where_people_say_and_at_no_more_digits():
    assert Dimension("float", 0.0, 0.3, step=0.1).values() == [0.0, 0.1, 0.2, 0.3]
    assert Dimension("float", 1e-14, 4e-14, step=1e-14).values() == [1e-14, 2e-14, 3e-14, 4e-14]
    assert Dimension("int", 8, 25, step=8).values() == [8, 16, 24]


def space_of(rule, entry=None, **schema):
    return search_space({"properties": {"x": rule}, **schema}, {} if entry is None else {"x": entry})["x"]


@pytest.mark.parametrize("entry", [{"high": 0.3, "log": True}, {"high": 0.3, "step": 0.1}])
def test_log_and_step_need_a_low_where_the_schema_only_says_above_0(entry):
    rule = {"type": "number", "exclusiveMinimum": 0, "default": 0.1}
    with pytest.raises(ParameterError, match=r"x may be as small as can be.*give it a low above 0"):
        space_of(rule, entry)
    with pytest.raises(ContractError, match="give it a low"):
        space_of({**rule, "search": entry})
    assert space_of(rule, {**entry, "low": 0.1}).low == 0.1


@pytest.mark.parametrize(
    "rule",
    [
        {"type": ["integer", "null"], "minimum": 1, "maximum": 9},
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 9}, {"type": "null"}], "default": None},
        {"oneOf": [{"type": "null"}, {"type": "integer", "exclusiveMinimum": 0, "maximum": 9}]},
        {"anyOf": [{"$ref": "#/$defs/Depth"}, {"type": "null"}]},
        {"allOf": [{"$ref": "#/$defs/Depth"}], "title": "Depth"},
    ],
)
def test_one_that_may_be_null_is_searched_as_what_else_it_may_be(rule):
    defs = {"$defs": {"Depth": {"type": "integer", "minimum": 1, "maximum": 9}}}
    assert space_of(rule, **defs) == Dimension("int", 1, 9, step=1)
    assert space_of(rule, {"low": 2, "high": 4}, **defs) == Dimension("int", 2, 4, step=1)


def test_branches_allow_choices_each_of_its_own():
    rule = {"anyOf": [{"type": "number", "minimum": 0}, {"enum": ["auto"]}, {"type": "null"}]}
    assert space_of(rule, {"choices": [0.5, "auto", None]}).choices == (0.5, "auto", None)
    assert space_of(rule, {"low": 0.1, "high": 1}) == Dimension("float", 0.1, 1.0)
    with pytest.raises(ParameterError, match="is allowed as 0 to inf or 'auto' or null; not allowed: -1"):
        space_of(rule, {"choices": [-1]})
    both = {"anyOf": [{"type": "boolean"}, {"enum": ["auto"]}]}
    assert space_of(both).choices == (False, True, "auto")


@pytest.mark.parametrize(
    ("rule", "entry", "values"),
    [
        ({"type": "integer", "minimum": 3, "maximum": 30, "multipleOf": 8}, None, [8, 16, 24]),
        ({"type": "integer", "multipleOf": 8}, {"low": 8, "high": 24}, [8, 16, 24]),
        ({"type": "integer", "multipleOf": 1.5}, {"low": 3, "high": 9}, [3, 6, 9]),
        ({"type": "number", "minimum": 0, "maximum": 0.3, "multipleOf": 0.1}, None, [0.0, 0.1, 0.2, 0.3]),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5, "multipleOf": 0.25}, None, [0.25, 0.5]),
        ({"type": "integer", "multipleOf": 8}, {"low": 8, "high": 40, "step": 16}, [8, 24, 40]),
    ],
)
def test_multiples_are_the_steps(rule, entry, values):
    assert space_of(rule, entry).values() == values


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"low": 4, "high": 24}, "low: expected a multiple of 8, got 4"),
        ({"low": 8, "high": 24, "step": 4}, "step: expected a multiple of 8, got 4"),
        ({"low": 8, "high": 64, "log": True}, "takes only multiples of 8: give it choices"),
        ({"choices": [8, 12]}, "not allowed: 12"),
    ],
)
def test_what_is_no_multiple_is_refused(entry, words):
    with pytest.raises(ParameterError, match=words):
        space_of({"type": "integer", "multipleOf": 8}, entry)


def test_whole_numbers_beyond_floats_keep_their_value():
    low = 2**53 + 1
    space = space_of({"type": "integer", "minimum": low, "maximum": low + 4})
    assert (space.low, space.high, space.count) == (low, low + 4, 5)
    assert space.values() == [low, low + 1, low + 2, low + 3, low + 4]
    assert space.nearest(low + 2) == low + 2
    assert not space.contains(low - 1)
    with pytest.raises(ParameterError, match=f"{low} to {low + 4}, got {low - 1} to"):
        space_of({"type": "integer", "minimum": low, "maximum": low + 4}, {"low": low - 1})


@pytest.mark.parametrize(
    ("rule", "entry", "values"),
    [
        ({"type": ["integer", "null"], "minimum": 0, "maximum": 9}, {"choices": [None, 3]}, [None, 3]),
        ({"type": ["integer", "string"], "minimum": 0, "maximum": 9}, {"choices": ["auto", 3]}, ["auto", 3]),
        ({"type": ["integer", "string"]}, {"choices": ["auto", 3, 3]}, ["auto", 3]),
        ({"enum": [0, False, 1, True, None, "a", 1.0, [1]]}, None, [0, False, 1, True, None, "a"]),
        ({"type": "integer", "enum": [1, 5, 50, "a"], "maximum": 9}, None, [1, 5]),
        ({"const": 3}, None, [3]),
        ({"minimum": 0, "maximum": 1, "multipleOf": 0.5}, None, [0.0, 0.5, 1.0]),
        ({"allOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"minimum": 7}]}, None, [7, 8, 9]),
        ({"$ref": "#/$defs/Small", "minimum": 2}, None, [2, 3]),
        ({"allOf": [{"$ref": "#/$defs/Small"}, {"type": "number", "multipleOf": 2}]}, None, [2]),
        (
            {"allOf": [{"multipleOf": 0.2}, {"multipleOf": 0.3}], "minimum": -1, "maximum": 1},
            None,
            [-0.6, 0.0, 0.6],
        ),
        (
            {"anyOf": [{"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 10}]},
            {"low": 10, "high": 12},
            [10, 11, 12],
        ),
        ({"type": "integer", "minimum": 1, "maximum": 20}, {"step": 100}, [1]),
        ({"type": "integer", "minimum": -7, "maximum": 7, "multipleOf": 5}, None, [-5, 0, 5]),
        (
            {"type": "integer", "maximum": 10**400, "minimum": 10**400 - 2},
            None,
            [10**400 - 2 + i for i in range(3)],
        ),
    ],
)
def test_what_a_schema_means_is_what_is_tried(rule, entry, values):
    found = space_of(
        rule, entry, **{"$defs": {"Small": {"type": "integer", "minimum": 1, "maximum": 3}}}
    ).values()
    assert [(type(value), value) for value in found] == [(type(value), value) for value in values]


@pytest.mark.parametrize(
    ("rule", "entry", "message"),
    [
        (False, {"choices": [1]}, "is allowed as nothing; not allowed: 1"),
        ({"type": "string", "pattern": "^a"}, {"choices": ["ab", "b"]}, "not allowed: 'b'"),
        ({"type": "integer", "not": {"const": 5}}, {"choices": [4, 5]}, "not allowed: 5"),
        ({"type": "number"}, {"low": 0.1, "high": 1, "log": "no"}, "log: expected true or false, got 'no'"),
        ({"type": "number"}, {"low": 0, "high": 1, "step": 1e-30}, r"more than 2\^53 values"),
        ({"type": "number"}, {"low": -1e308, "high": 1e308}, "wider than a float can say"),
        ({"type": "integer"}, {"low": 0, "high": 10**40}, r"more than 2\^62 values"),
        ({"type": "integer", "minimum": 1, "maximum": 3, "multipleOf": 4}, None, "low 4 above high 0"),
        ({"type": "number"}, {"low": -5, "high": -1, "log": True}, "needs low above 0, got -5"),
    ],
)
def test_what_cannot_be_searched_says_why(rule, entry, message):
    with pytest.raises(ParameterError, match=message):
        space_of(rule, entry)


def test_a_schema_that_refers_to_itself_comes_to_an_end():
    bomb = {"allOf": [{"$ref": "#/$defs/A"}] * 10}
    with pytest.raises(ContractError, match="more than 10000 parts"):
        space_of({"$ref": "#/$defs/A"}, **{"$defs": {"A": bomb}})
    assert space_of(
        {"$ref": "#/$defs/A"}, {"choices": [1]}, **{"$defs": {"A": {"$ref": "#/$defs/A"}}}
    ).choices == (1,)
