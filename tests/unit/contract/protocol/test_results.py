from __future__ import annotations

import json

import pytest

from airflow_mlops.contract.protocol.results import Metric, metric_problems, write_failure, write_metrics


def test_metrics_are_written_without_empty_keys(tmp_path):
    write_metrics(
        tmp_path / "output" / "metrics.json", [Metric("auc", 0.7, split="test", n=10), Metric("loss", 1)]
    )
    assert json.loads((tmp_path / "output" / "metrics.json").read_text()) == [
        {"name": "auc", "value": 0.7, "split": "test", "n": 10},
        {"name": "loss", "value": 1},
    ]
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, True, "0.5", None])
def test_a_value_that_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError, match="Metric 'auc': value: expected a finite number"):
        Metric("auc", value)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ([], "expected an object, got list"),
        ({"value": 1}, "name: expected a string of 1 to 250 characters, got None"),
        ({"name": "a", "value": 1, "sclie": "x"}, "unknown key 'sclie'"),
        ({"name": "a", "value": 1, "direction": "up"}, "direction: expected maximize or minimize, got 'up'"),
        ({"name": "a", "value": 1, "stderr": -1}, "stderr: expected a finite number of at least 0, got -1"),
        ({"name": "a", "value": 1, "step": 1.5}, "step: expected a whole number, got 1.5"),
        ({"name": "a", "value": 1, "n": 2**63}, f"n: expected a whole number, got {2**63}"),
        ({"name": "a", "value": 1, "slice": 1}, "slice: expected a string, got 1"),
    ],
)
def test_what_breaks_the_contract_is_named(metric, said):
    assert metric_problems(metric) == [said]


def test_a_failure_begins_with_its_message_and_is_bounded(tmp_path):
    write_failure(tmp_path / "failure", "KeyError: 'x'", "é" * 1_000_000)
    content = (tmp_path / "failure").read_bytes()
    assert content.startswith(b"KeyError: 'x'\n")
    assert len(content) <= 64 * 1024
    content.decode()
