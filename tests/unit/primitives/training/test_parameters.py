"""Parameters against the schema that the model code describes."""

from __future__ import annotations

import pytest

from airflow_mlops.exceptions import ContractError, ParameterError
from airflow_mlops.primitives.training.parameters import validate_parameters

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "learning_rate": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 0.1},
        "iterations": {"type": "integer", "minimum": 1, "default": 100},
        "loss": {"enum": ["log_loss", "brier"], "default": "log_loss"},
        "warm": {"type": "boolean", "default": False},
        "layers": {"type": "array", "items": {"type": "integer"}, "default": [8]},
        "name": {"type": ["string", "null"]},
        "early": {"type": "object", "properties": {"rounds": {"type": "integer", "default": 5}}},
    },
    "additionalProperties": False,
}


def refusal(given, schema=SCHEMA):
    with pytest.raises(ParameterError) as caught:
        validate_parameters(schema, given)
    return str(caught.value)


def test_defaults_are_filled_in_and_values_kept():
    given = {"learning_rate": 0.3, "early": {}}
    assert validate_parameters(SCHEMA, given) == {
        "learning_rate": 0.3,
        "iterations": 100,
        "loss": "log_loss",
        "warm": False,
        "layers": [8],
        "early": {"rounds": 5},
    }
    assert given == {"learning_rate": 0.3, "early": {}}


def test_defaults_are_not_shared():
    validate_parameters(SCHEMA, {})["layers"].append(1)
    assert validate_parameters(SCHEMA, {})["layers"] == [8]


def test_an_unknown_name_comes_with_the_nearest():
    said = refusal({"learning_rte": 0.1})
    assert "learning_rte is not known; did you mean learning_rate?" in said
    assert "It knows: early, iterations, layers, learning_rate" in said


def test_everything_wrong_is_told_at_once():
    said = refusal({"zzz": 1, "iterations": "7", "learning_rate": 2, "loss": "hinge", "layers": [1, "x"]})
    assert "zzz is not known\n" in said
    assert "iterations: expected integer, got '7' (string)" in said
    assert "learning_rate: expected at most 1, got 2 (integer)" in said
    assert "loss: expected one of ['log_loss', 'brier'], got 'hinge' (string)" in said
    assert "layers.1: expected integer, got 'x' (string)" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"iterations": 7.0}, "iterations: expected integer, got 7.0 (number)"),
        ({"iterations": True}, "iterations: expected integer, got True (boolean)"),
        ({"warm": "yes"}, "warm: expected boolean, got 'yes' (string)"),
        ({"warm": 1}, "warm: expected boolean, got 1 (integer)"),
        ({"learning_rate": "0.1"}, "learning_rate: expected number, got '0.1' (string)"),
        ({"learning_rate": 0}, "learning_rate: expected more than 0, got 0 (integer)"),
        ({"name": 3}, "name: expected string or null, got 3 (integer)"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a finite number, got nan"),
        ({"any": {"list": [1.0, float("-inf")]}}, "any.list.1: expected a finite number, got -inf"),
        ({"early": {"rounds": "5"}}, "early.rounds: expected integer, got '5' (string)"),
    ],
)
def test_nothing_is_converted(given, said):
    assert said in refusal(given)


def test_missing_parameters_are_each_named_once():
    schema = {"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a", "b"]}
    said = refusal({}, schema)
    assert said.count("a is missing") == 1
    assert said.count("b is missing") == 1


def test_a_long_list_of_problems_is_cut():
    said = refusal({f"unknown_{number}": 1 for number in range(30)})
    assert "and 20 more" in said


def test_a_model_without_parameters_refuses_all():
    assert validate_parameters({}, {}) == {}
    assert "It knows: none" in refusal({"a": 1}, {})


def test_a_model_may_take_anything():
    assert validate_parameters({"additionalProperties": True}, {"a": 1}) == {"a": 1}
    schema = {"patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False}
    assert validate_parameters(schema, {"x_1": 1}) == {"x_1": 1}
    said = refusal({"x_1": 1, "y": 2}, schema)
    assert "y is not known" in said
    assert "x_1" not in said


def test_a_wrong_default_is_told():
    assert "depth: expected integer" in refusal(
        {}, {"properties": {"depth": {"type": "integer", "default": "3"}}}
    )


def test_a_broken_schema_is_the_models_fault():
    with pytest.raises(ContractError, match=r"broken JSON Schema for the parameters, at properties/a/type"):
        validate_parameters({"properties": {"a": {"type": "int"}}}, {"a": 1})


@pytest.mark.parametrize(
    "reference", ["http://127.0.0.1:1/schema.json", "file:///etc/passwd", "#/$defs/nowhere"]
)
def test_references_are_not_fetched(reference):
    with pytest.raises(ContractError, match="leads nowhere"):
        validate_parameters({"properties": {"a": {"$ref": reference}}}, {"a": 1})


def test_references_inside_the_schema_work():
    schema = {
        "properties": {"a": {"$ref": "#/$defs/rate"}},
        "$defs": {"rate": {"type": "number", "maximum": 1}},
    }
    assert validate_parameters(schema, {"a": 0.5}) == {"a": 0.5}
    assert "a: expected at most 1, got 2" in refusal({"a": 2}, schema)
