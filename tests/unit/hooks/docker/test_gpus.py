"""How an engine's GPUs are found, and what it is told to give."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from airflow_mlops.exceptions import EngineUnavailableError, GpusMissingError, RunnerError
from airflow_mlops.hooks.docker import gpus as docker_gpus
from airflow_mlops.hooks.docker.gpus import device_requests, gpus_of_engine
from airflow_mlops.hooks.docker.hook import DockerEngineHook
from airflow_mlops.primitives.training.gpus import Gpu


class Engine:
    """An engine that says what a test wants; counts how often it is asked."""

    def __init__(self, info=None, output="", refuses=None, gpus=(), hangs=False):
        self.address = SimpleNamespace(url=f"tcp://{id(self)}", gpus=gpus)
        self.asked, self.there = 0, {}
        self._info, self._output, self._refuses, self._hangs = info or {}, output, refuses, hangs
        self.left, self.stuck = {}, ()

    def info(self):
        self.asked += 1
        return self._info

    def create(self, name, config):
        self.there[name] = config

    def start(self, name):
        if self._refuses:
            raise self._refuses

    def inspect(self, name):
        return {"State": {"Running": self._hangs}}

    def output(self, name):
        return self._output

    def containers(self, labels):
        assert labels == [docker_gpus.PROBE_LABEL]
        return list(self.left.values())

    def remove(self, name):
        if name in self.stuck:
            raise RunnerError("could not kill it")
        self.left.pop(name, None)
        self.removed = self.there.pop(name, None)


def test_the_connection_knows_best(monkeypatch):
    extra = '{"gpus": [{"uuid": "GPU-1", "type": "NVIDIA L4"}, {"uuid": "GPU-2"}]}'
    monkeypatch.setenv("AIRFLOW_CONN_FARM", f'{{"conn_type": "docker", "extra": {extra}}}')

    assert gpus_of_engine(DockerEngineHook("farm"), "") == (Gpu("GPU-1", "NVIDIA L4"), Gpu("GPU-2"))


@pytest.mark.parametrize("gpus", ['["GPU-1"]', '[{"type": "L4"}]', '[{"uuid": "a"}, {"uuid": "a"}]', "5"])
def test_a_connection_that_names_gpus_wrongly_is_an_error(monkeypatch, gpus):
    monkeypatch.setenv("AIRFLOW_CONN_FARM", f'{{"conn_type": "docker", "extra": {{"gpus": {gpus}}}}}')

    with pytest.raises(RunnerError, match=r'farm: gpus in the extra must be a list of \{"uuid"'):
        _ = DockerEngineHook("farm").address


def test_the_engine_names_its_own():
    generic = {"GenericResources": [{"NamedResourceSpec": {"Kind": "NVIDIA-GPU", "Value": "GPU-1"}},
                                    {"DiscreteResourceSpec": {"Kind": "SSD", "Value": 3}}]}  # fmt: skip
    discovered = {
        "DiscoveredDevices": [
            {"Source": "cdi", "ID": f"nvidia.com/gpu={name}"} for name in ("0", "GPU-1", "all")
        ]
    }

    assert gpus_of_engine(Engine(generic), "") == (Gpu("GPU-1"),)
    assert gpus_of_engine(Engine(discovered), "") == (Gpu("nvidia.com/gpu=GPU-1"),)


def test_else_a_container_looks_and_the_answer_is_remembered(monkeypatch):
    engine = Engine(output="GPU 0: NVIDIA L4 (UUID: GPU-7)\n")

    assert gpus_of_engine(engine, "image") == gpus_of_engine(engine, "image") == (Gpu("GPU-7", "NVIDIA L4"),)
    assert engine.asked == 1
    assert engine.there == {}
    assert (engine.removed["Entrypoint"], engine.removed["HostConfig"]["NetworkMode"]) == (
        ["nvidia-smi"],
        "none",
    )
    monkeypatch.setattr(docker_gpus.time, "monotonic", lambda: 1e12)
    gpus_of_engine(engine, "image")
    assert engine.asked == 2


@pytest.mark.parametrize(
    ("engine", "error", "words"),
    [
        (Engine(refuses=RunnerError("no driver. Cure: install it")), GpusMissingError, "Cure: install it"),
        (Engine(refuses=EngineUnavailableError("away")), EngineUnavailableError, "away"),
        (Engine(output="NVIDIA-SMI has failed"), GpusMissingError, "says 'NVIDIA-SMI has failed'.*Cure"),
    ],
)
def test_no_gpu_is_said_and_nothing_stays(engine, error, words):
    with pytest.raises(error, match=words):
        gpus_of_engine(engine, "image")
    assert engine.there == {}


def test_a_driver_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(docker_gpus, "LOOK", 0.1)
    engine = Engine(hangs=True)

    with pytest.raises(
        GpusMissingError, match=r"nvidia-smi -L has not ended in 0 s\. Cure: restart the driver"
    ) as error:
        gpus_of_engine(engine, "image")
    assert not error.value.retriable
    assert engine.there == {}


def test_what_a_killed_look_left_is_removed_by_a_later_one():
    engine = Engine(output="GPU 0: NVIDIA L4 (UUID: GPU-7)\n")
    ages = {"old": 700, "stuck": 900, "young": 5}
    engine.left = {name: {"Id": name, "Created": time.time() - age} for name, age in ages.items()}
    engine.stuck = ("stuck",)

    assert gpus_of_engine(engine, "image") == (Gpu("GPU-7", "NVIDIA L4"),)
    assert set(engine.left) == {"stuck", "young"}


def test_a_container_gets_exactly_its_gpus():
    assert device_requests([]) == []
    assert device_requests(["GPU-1", "GPU-2"]) == [
        {"Driver": "", "DeviceIDs": ["GPU-1", "GPU-2"], "Capabilities": [["gpu", "compute", "utility"]]}
    ]
    assert device_requests(["nvidia.com/gpu=GPU-1"]) == [
        {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-1"]}
    ]
