"""What a trained model is handed over with."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_mlops.operators.evaluation.evaluate import TrainedModelOperator
from airflow_mlops.primitives.registration.record import TrainingRecord

RECORD = TrainingRecord("a", code={}, config={"parameters": {"rate": 0.5}}, data={})


@pytest.mark.parametrize(
    ("training", "record", "parameters"),
    [
        ({"run_id": "1", "version": "3"}, RECORD, {"rate": 0.5}),
        ({"run_id": "1", "parameters": {"rate": 0.1}}, RECORD, {"rate": 0.1}),
        ({"run_id": "1", "parameters": {}}, RECORD, {}),
        ({"run_id": "1", "version": "3"}, None, {}),
    ],
)
def test_the_parameters_are_those_that_the_model_was_trained_with(monkeypatch, training, record, parameters):
    manifest = SimpleNamespace(columns=())
    monkeypatch.setattr(
        TrainedModelOperator, "_datasets", lambda _: SimpleNamespace(manifest=lambda _: manifest)
    )
    monkeypatch.setattr(TrainedModelOperator, "_mlflow", lambda _: SimpleNamespace(record=lambda _: record))
    operator = TrainedModelOperator(
        task_id="predict", application="a", store="/s", code={}, runner={"kind": "process"},
        dataset={"dataset_id": "d"}, training=training,
    )  # fmt: skip

    assert operator.config({})["parameters"] == parameters
