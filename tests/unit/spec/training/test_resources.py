"""``training.resources``, ``training.docker`` and ``training.secrets``."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from airflow_mlops.spec.places.docker import DockerOptions
from airflow_mlops.spec.training.resources import TrainingResources
from airflow_mlops.spec.training.training import Training


@pytest.mark.parametrize(
    ("written", "limit"),
    [
        (0, 0),
        (2, 2),
        ("all", "all"),
        (["GPU-1", "GPU-2"], ["GPU-1", "GPU-2"]),
        ({"type": "H100"}, {"type": "H100", "count": 1}),
        ({"type": "H100", "count": 2}, {"type": "H100", "count": 2}),
    ],
)
def test_gpus_are_asked_for_in_four_ways(written, limit):
    assert TrainingResources(gpus=written).limits()["gpus"] == limit


@pytest.mark.parametrize(
    "written",
    [-1, 65, 1.5, True, "one", "", [], ["GPU-1", "GPU-1"], ["a b"], [1], {}, {"count": 2}, {"type": ""}, None,
     {"type": "H100", "count": 0}, {"type": "H100", "count": True}, {"type": "H100", "memory": "80g"}],
)  # fmt: skip
def test_other_ways_are_errors(written):
    with pytest.raises(ValidationError):
        TrainingResources(gpus=written)


def test_limits_are_json_with_sizes_in_bytes():
    assert TrainingResources(memory="1g").limits() == {
        "cpus": None,
        "memory": 1024**3,
        "shm": 64 * 1024**2,
        "pids": 512,
        "disk": 20 * 1024**3,
        "gpus": 0,
    }


@pytest.mark.parametrize("network", ["host", "container:other", "ns:/proc/1"])
def test_the_network_of_somebody_else_is_refused(network):
    with pytest.raises(ValidationError):
        DockerOptions(network=network)


def test_a_node_is_one_of_the_nodes():
    assert DockerOptions(nodes=["gpu_a", "gpu_b"], node="gpu_b").node == "gpu_b"
    assert DockerOptions(nodes=["gpu_a"]).node == "any"
    with pytest.raises(ValidationError, match="is none of nodes"):
        DockerOptions(nodes=["gpu_a"], node="gpu_c")
    with pytest.raises(ValidationError, match="more than once"):
        DockerOptions(nodes=["gpu_a", "gpu_a"])


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "a" * 64])
def test_a_secret_has_a_name_that_a_file_can_have(name):
    with pytest.raises(ValidationError):
        Training(secrets={name: "my_connection"})
