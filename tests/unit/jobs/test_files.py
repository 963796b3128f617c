"""What is read of a container's files: nothing that could hurt the worker."""

from __future__ import annotations

import json

import pytest

from airflow_mlops.exceptions import ContractError
from airflow_mlops.jobs.files import (
    ENTRIES_LIMIT,
    JSON_LIMIT,
    SERIES_LIMIT,
    STEPS_LIMIT,
    read_metrics,
    read_text,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.json"


def test_metrics_come_without_their_nulls(path):
    path.write_text('[{"name": "auc", "value": 0.7, "split": "test", "stderr": null, "n": 10}]')
    assert read_metrics(path) == [{"name": "auc", "value": 0.7, "split": "test", "n": 10}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "must be a list of metrics, got dict"),
        ("[1]", r"\[0\] breaks the contract: expected an object, got int"),
        ('[{"name": "a", "value": NaN}]', "value: expected a finite number"),
        (f'[{{"name": "a", "value": {10**400}}}]', "value: expected a finite number"),
        ('[{"name": "a", "value": 1}, {"value": 1}]', r"\[1\] breaks the contract: name"),
        ('[{"name": "a", "value": 1, "stderr": "small"}]', "stderr: expected a finite number"),
        ('[{"name": "a", "value": 1, "step": [1]}]', "step: expected a whole number"),
    ],
)
def test_metrics_that_break_the_contract_are_named(path, content, words):
    path.write_text(content)
    with pytest.raises(ContractError, match=f"output/metrics.json.*{words}") as caught:
        read_metrics(path)
    assert len(str(caught.value)) < 1000


def test_absent_and_giant_metrics_are_refused(path):
    with pytest.raises(ContractError, match=r"wrote no output/metrics.json"):
        read_metrics(path)
    with path.open("wb") as file:
        file.truncate(JSON_LIMIT + 1)
    with pytest.raises(ContractError, match=f"at most {JSON_LIMIT} are read"):
        read_metrics(path)


def test_too_many_metrics_are_refused(path):
    path.write_text(
        json.dumps([{"name": "loss", "value": 1, "step": step} for step in range(ENTRIES_LIMIT + 1)])
    )
    with pytest.raises(ContractError, match=r"10001 entries; at most 10000 are read. Cure"):
        read_metrics(path)
    assert len(read_metrics(path, STEPS_LIMIT)) == ENTRIES_LIMIT + 1
    names = [{"name": f"loss_{number}", "value": 1} for number in range(SERIES_LIMIT + 1)]
    path.write_text(json.dumps(names))
    assert len(read_metrics(path)) == SERIES_LIMIT + 1
    path.write_text(json.dumps([{**entry, "step": 1} for entry in names]))
    with pytest.raises(ContractError, match=r"1001 different metrics with a step; at most 1000"):
        read_metrics(path)


def test_of_a_text_only_the_beginning_is_read(tmp_path):
    (tmp_path / "failure").write_bytes(b"\xff" + b"x" * 100_000)
    assert len(read_text(tmp_path / "failure")) == 64 * 1024
    assert read_text(tmp_path / "absent") == ""


def test_a_metric_of_the_reference_is_a_metric_of_the_operator(path):
    from airflow_mlops.contract.protocol.results import Metric, write_metrics

    metric = Metric("auc", 0.7, step=3, split="test", slice="a=b", direction="maximize", stderr=0.1, n=5)
    write_metrics(path, [metric])
    assert read_metrics(path) == json.loads(path.read_text()) == [metric.to_dict()]
