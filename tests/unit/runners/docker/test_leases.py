"""What the list of an engine's containers says about who has which GPU; no engine needed."""

from __future__ import annotations

import time

import pytest

from airflow_mlops.runners.docker.leases import Bookings, lease_name


def lease(gpu, job, age=0.0):
    labels = {"ai.airflow-mlops.gpus": gpu, "ai.airflow-mlops.lease": job, "ai.airflow-mlops.name": job}
    return {"Id": f"lease-{gpu}", "Labels": labels, "State": "created", "Created": time.time() - age}


def container(job, gpus, state):
    labels = {"ai.airflow-mlops.gpus": gpus, "ai.airflow-mlops.name": job}
    return {"Id": job, "Labels": labels, "State": state, "Created": time.time() - 900}


@pytest.mark.parametrize(
    ("containers", "taken"),
    [
        (list, set()),
        # Made when the test runs: ages count from then.
        # A job in any state but its last keeps its GPUs, however old.
        (lambda: [lease("g1", "a", 900), container("a", "g1", "running")], {"g1"}),
        (lambda: [lease("g1", "a", 900), container("a", "g1", "created")], {"g1"}),
        (lambda: [lease("g1", "a", 900), container("a", "g1", "exited")], set()),
        (lambda: [lease("g1", "a", 5), container("a", "g1", "exited")], set()),
        # A creator on its way to the container, and one that died there.
        (lambda: [lease("g1", "a", 5)], {"g1"}),
        (lambda: [lease("g1", "a", 31)], set()),
        # A running job whose lease somebody removed by hand.
        (lambda: [container("a", "g1,g2", "running"), lease("g2", "b", 5)], {"g1", "g2"}),
        (lambda: [lease("g1", "me", 5), container("me", "g1", "running")], set()),
    ],
)
def test_what_others_hold(containers, taken):
    assert Bookings.read(containers()).taken("me", patience=30) == taken


def test_every_gpu_has_one_name_on_its_engine():
    assert lease_name("GPU-5d5ba0d6-d33d") == "mlops-gpu-GPU-5d5ba0d6-d33d"
    assert lease_name("nvidia.com/gpu=GPU-1") == "mlops-gpu-nvidia.com-gpu-GPU-1"
