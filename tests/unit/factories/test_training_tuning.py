"""The task that searches parameters, where the YAML asks for it."""

from __future__ import annotations

import json

import pytest

from airflow_mlops.factories.files import build_dags
from airflow_mlops.operators.training.tune import TuneModelOperator
from airflow_mlops.spec.reading.loader import load_application
from tests.unit.factories.samples import write


@pytest.fixture
def training(tmp_path):
    return lambda **keys: build_dags(load_application(write(tmp_path, training=keys)))["tiny__training"]


def test_it_stands_between_the_description_and_the_training(training):
    dag = training(
        parameters={"rate": 0.1},
        seed=5,
        timeout="10m",
        tuning={"objective": "validation.auc", "trials": 9, "timeout": "2h", "early_stop": {"trials": 3}},
    )
    tune = dag.get_task("tune")
    assert isinstance(tune, TuneModelOperator)
    assert tune.upstream_task_ids == {"describe", "provision"}
    assert "tune" in dag.get_task("train").upstream_task_ids
    assert dag.get_task("train").description.operator is tune
    asked = json.loads(json.dumps(tune.tuning))
    assert (asked["objective"], asked["direction"], asked["timeout"]) == (
        ["validation.auc"],
        ["maximize"],
        7200,
    )
    assert asked["early_stop"] == {"trials": 3, "min_improvement": 0.0}
    assert (tune.parameters, tune.overrides) == ({"rate": 0.1}, "{{ params.parameters | tojson }}")
    assert (tune.seed, tune.job_timeout) == (5, 600)


def test_nobody_searches_unasked(training):
    assert "tune" not in training().task_ids
