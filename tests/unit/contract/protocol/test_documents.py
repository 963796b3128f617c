"""JSON without the numbers that JSON does not know."""

from __future__ import annotations

import json
import math

import pytest

from airflow_mlops.contract.protocol.documents import finite, json_text

ODD = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("odd", ODD)
def test_a_number_that_is_not_finite_is_null_at_any_depth(odd):
    value = {"a": odd, "b": [1, (odd, 2.5)], "c": {"d": [{"e": odd}]}, odd: 1}
    text = json_text(value, sort_keys=False)
    read = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in {text}"))
    assert read == {"a": None, "b": [1, [None, 2.5]], "c": {"d": [{"e": None}]}, str(odd): 1}


def test_everything_else_is_as_json_dumps_writes_it():
    value = {"text": "NaN", "yes": True, "none": None, "big": 2**70, "list": [1, 2.0, "ü"]}
    assert json_text(value, indent=1, sort_keys=True) == json.dumps(value, indent=1, sort_keys=True)
    assert finite(value) == value


def test_what_is_no_json_value_is_an_error_or_becomes_text():
    with pytest.raises(TypeError):
        json_text({"a": object})
    assert json_text({"a": {1}}, default=str) == '{"a": "{1}"}'
