"""What the gate reads of predictions is what the evaluation read."""

from __future__ import annotations

from types import SimpleNamespace

import duckdb
import numpy as np

from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.evaluation.gate import GateModelOperator
from airflow_mlops.primitives.evaluation.predicted import TestSplit, read_predicted


def test_a_clustering_is_judged_by_the_rows_that_the_evaluation_drew(tmp_path):
    examples, predictions = tmp_path / "examples.parquet", tmp_path / "store" / "predictions.parquet"
    predictions.parent.mkdir()
    duckdb.sql(f"COPY (SELECT i AS id, i * 1.5 AS size FROM range(5000) t(i)) TO '{examples}'")
    duckdb.sql(f"COPY (SELECT i AS id, i % 3 AS prediction FROM range(5000) t(i)) TO '{predictions}'")
    split = TestSplit((examples,), keys=("id",), inputs=("size",))
    evaluated = read_predicted(split, predictions, paradigm="clustering", seed=7)

    gate = GateModelOperator(
        task_id="gate", application="a", rules=[], candidate={}, paradigm="clustering", seed=7
    )
    datasets = SimpleNamespace(store=open_store(str(predictions.parent)))
    judged = gate._read(datasets, split, predictions.name, tmp_path / "scratch")
    assert np.array_equal(judged.sampled, evaluated.sampled)
    assert not np.array_equal(
        judged.sampled, read_predicted(split, predictions, paradigm="clustering").sampled
    )
