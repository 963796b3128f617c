"""``training.tuning:`` as a YAML author writes it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from airflow_mlops.spec.training.tuning import Tuning


def load(**keys) -> Tuning:
    return Tuning.model_validate({"objective": "validation.auc", **keys})


def test_one_or_several_objectives():
    assert load().objective == ("validation.auc",)
    assert load().direction == ("maximize",)
    both = load(objective=["validation.auc", "validation.size"], direction=["maximize", "minimize"])
    assert both.direction == ("maximize", "minimize")
    assert load(objective=["a", "b"], direction="minimize").direction == ("minimize", "minimize")


@pytest.mark.parametrize(
    ("keys", "at", "message"),
    [
        ({"objective": "test.auc"}, ("objective",), "chooses by the test split"),
        ({"objective": ["a", "test.b"]}, ("objective",), "chooses by the test split"),
        ({"objective": ["a", "a"]}, ("objective",), "names a more than once"),
        ({"objective": []}, ("objective",), "at least 1"),
        ({"direction": "up"}, ("direction", 0), "maximize"),
        ({"direction": ["maximize", "minimize"]}, ("direction",), "2 directions for 1 objectives"),
        ({"objective": ["a", "b"], "sampler": "cmaes"}, ("sampler",), "one objective only"),
        ({"objective": ["a", "b"], "pruner": "median"}, ("pruner",), "one objective only"),
        ({"pruner": "asha", "trials_per_container": 2}, ("trials_per_container",), "nothing to stop"),
        ({"best": "reuse", "trials_per_container": 2}, ("trials_per_container",), "keeps no model"),
        ({"trials": 0}, ("trials",), "greater than or equal to 1"),
        ({"search_space": {"x": {"low": 1, "hihg": 2}}}, ("search_space", "x", "hihg"), "Extra inputs"),
        ({"early_stop": {}}, ("early_stop", "trials"), "required"),
    ],
)
def test_what_it_cannot_mean(keys, at, message):
    with pytest.raises(ValidationError, match=message) as error:
        load(**keys)
    assert at in [problem["loc"] for problem in error.value.errors()]
