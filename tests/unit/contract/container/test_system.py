"""What is measured of the machine, by a card that this machine may not have."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from airflow_mlops.contract.container.system import SystemMetrics, cores


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """An ``nvidia-smi`` that answers as one of two cards does, and one of a card that knows little of itself."""

    def install(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return install


def test_figures_of_each_card(smi, tmp_path):
    smi(f'echo "$@" >{tmp_path}/asked\necho "37, 1000, 4000, 120.5"\necho "0, 0, 4000, [N/A]"')
    found = SystemMetrics().sample()
    assert {name: value for name, value in found.items() if "gpu" in name} == {
        "system/gpu_0_utilization_percentage": 37.0,
        "system/gpu_0_memory_usage_megabytes": 1048.58,
        "system/gpu_0_memory_usage_percentage": 25.0,
        "system/gpu_0_power_usage_watts": 120.5,
        "system/gpu_1_utilization_percentage": 0.0,
        "system/gpu_1_memory_usage_megabytes": 0.0,
        "system/gpu_1_memory_usage_percentage": 0.0,
    }
    asked = (tmp_path / "asked").read_text()
    assert "--query-gpu=utilization.gpu,memory.used,memory.total,power.draw" in asked
    assert "--format=csv,noheader,nounits" in asked


def test_a_driver_that_fails_costs_nothing_but_its_figures(smi):
    smi("echo 'Failed to initialize NVML'; exit 9")
    assert not any("gpu" in name for name in SystemMetrics().sample())


def test_children_are_counted_and_strangers_are_not():
    metrics = SystemMetrics()
    busy = "import time\nend = time.time() + 1.0\nwhile time.time() < end: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    share = metrics.sample()["system/cpu_utilization_percentage"]
    assert share > 10 / cores()
    time.sleep(0.3)
    assert metrics.sample()["system/cpu_utilization_percentage"] < share
