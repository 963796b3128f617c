from __future__ import annotations

import pytest

from airflow_mlops.contract import ModelCode, ParameterError
from airflow_mlops.contract.model_code.parameters import check_parameters, parameters_schema, parse_strings

PROPERTIES = {
    "rate": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 0.1},
    "trees": {"type": "integer", "minimum": 1, "default": 10},
    "kind": {"type": "string", "enum": ["gbdt", "dart"], "default": "gbdt"},
    "fast": {"type": "boolean", "default": False},
}


def test_defaults_are_filled_in_the_order_of_the_schema():
    assert list(check_parameters(PROPERTIES, {"trees": 3}).items()) == [
        ("rate", 0.1),
        ("trees", 3),
        ("kind", "gbdt"),
        ("fast", False),
    ]


def test_a_whole_number_given_for_a_number_becomes_a_float():
    assert isinstance(check_parameters(PROPERTIES, {"rate": 1})["rate"], float)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate": 0}, "rate is 0 (int); expected number, at most 1, more than 0"),
        ({"rate": "0.1"}, "rate is '0.1' (str); expected number"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"rate": 10**400}, "expected number, at most 1"),
        ({"trees": 2.5}, "trees is 2.5 (float); expected integer, at least 1"),
        ({"trees": True}, "trees is True (bool); expected integer"),
        ({"kind": "forest"}, "one of 'gbdt', 'dart'"),
        ({"fast": 1}, "fast is 1 (int); expected boolean"),
        ({"ratee": 0.1}, "ratee is not known (did you mean rate?)"),
        ({"zzz": 0.1}, "zzz is not known (known: rate, trees, kind, fast)"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_was_expected(given, said):
    with pytest.raises(ParameterError) as caught:
        check_parameters(PROPERTIES, given)
    assert said in str(caught.value)


def test_all_problems_are_reported_at_once():
    with pytest.raises(ParameterError, match=r"lr is not known.*trees is 0.*kind is 'x'"):
        check_parameters(PROPERTIES, {"lr": 1, "trees": 0, "kind": "x"})


def test_a_parameter_without_default_is_required():
    properties = {"horizon": {"type": "integer"}}
    assert parameters_schema(properties)["required"] == ["horizon"]
    with pytest.raises(ParameterError, match="horizon is missing; expected integer"):
        check_parameters(properties, {})
    assert check_parameters(properties, {}, require=False) == {}


def test_the_schema_is_valid_json_schema_and_refuses_the_same():
    import jsonschema

    schema = parameters_schema(PROPERTIES)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"rate": 0.5, "trees": 3})
    for wrong in ({"rate": 0}, {"trees": 2.5}, {"kind": "x"}, {"lr": 1}, {"fast": 1}):
        assert not validator.is_valid(wrong)


def test_strings_become_the_types_of_the_schema():
    strings = {"rate": "0.5", "trees": "12", "kind": "dart", "fast": "True"}
    assert parse_strings(PROPERTIES, strings) == {"rate": 0.5, "trees": 12, "kind": "dart", "fast": True}


def test_a_string_that_is_no_number_is_named_afterwards():
    with pytest.raises(ParameterError, match="trees is 'many'"):
        check_parameters(PROPERTIES, parse_strings(PROPERTIES, {"trees": "many"}))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {"type": "number", "pattern": "x"},
        {"type": "integer", "minimum": 1, "default": 0},
        {},
    ],
)
def test_a_schema_that_cannot_be_checked_is_refused_where_the_class_is_written(schema):
    with pytest.raises(TypeError, match=r"Wrong\.parameters\['p'\]"):
        type("Wrong", (ModelCode,), {"parameters": {"p": schema}})
