"""How long a prediction takes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from airflow_mlops.contract import Job, Paths
from airflow_mlops.contract.model_code.latency import latencies


def test_quantiles_of_the_calls_without_the_first_one(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    called = []

    def predict(seconds):
        clock[0] += 1000 if not called else seconds
        called.append(seconds)

    found = list(latencies(predict, [float(second) for second in range(1, 101)]))
    assert found == [("p50", 50.0, 100), ("p90", 90.0, 100), ("p95", 95.0, 100), ("p99", 99.0, 100)]
    assert called[:3] == [1.0, 1.0, 2.0], "the first one goes before"


def test_one_call_is_every_quantile_and_none_is_a_mistake():
    assert {seconds for _, seconds, _ in latencies(lambda _: None, [1])} != set()
    with pytest.raises(ValueError, match="no batch"):
        list(latencies(lambda _: None, []))


def test_a_job_logs_them():
    job = Job("evaluate", Paths(Path("/nowhere")), {})
    job.measure_latency(len, [[1], [2]])
    assert [(m.name, m.split, m.direction, m.n) for m in job.metrics] == [
        (f"latency_{q}", "test", "minimize", 2) for q in ("p50", "p90", "p95", "p99")
    ]
    assert all(0 <= m.value < 1 for m in job.metrics)
