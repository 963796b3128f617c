"""Which GPUs a job gets."""

from __future__ import annotations

import pytest

from airflow_mlops.exceptions import GpusMissingError
from airflow_mlops.primitives.training.gpus import Gpu, GpuRequest, choose_gpus, parse_nvidia_smi

MACHINE = [
    Gpu("GPU-3", "NVIDIA L4"),
    Gpu("GPU-1", "NVIDIA H100 80GB HBM3"),
    Gpu("GPU-2", "NVIDIA H100 80GB HBM3"),
]


def chosen(gpus, taken=(), preferred=()):
    return choose_gpus(GpuRequest.parse(gpus), MACHINE, taken, preferred)


@pytest.mark.parametrize(
    ("asked", "taken", "got"),
    [
        (1, (), ("GPU-1",)),
        (2, ("GPU-1",), ("GPU-2", "GPU-3")),
        (2, ("GPU-1", "GPU-2"), None),
        ("all", (), ("GPU-1", "GPU-2", "GPU-3")),
        ("all", ("GPU-2",), None),
        (["GPU-3", "GPU-2"], (), ("GPU-2", "GPU-3")),
        (["GPU-3"], ("GPU-3",), None),
        ({"type": "h100"}, ("GPU-1",), ("GPU-2",)),
        ({"type": "H100", "count": 2}, (), ("GPU-1", "GPU-2")),
        ({"type": "L4", "count": 1}, ("GPU-3",), None),
    ],
)
def test_free_gpus_are_chosen_in_one_order(asked, taken, got):
    assert chosen(asked, taken) == got


def test_a_job_keeps_what_it_holds():
    assert chosen(1, preferred={"GPU-3"}) == ("GPU-3",)


@pytest.mark.parametrize("asked", [4, ["GPU-1", "GPU-9"], {"type": "H100", "count": 3}, {"type": "A100"}])
def test_what_the_machine_has_not_is_an_error_however_free_it_is(asked):
    with pytest.raises(GpusMissingError, match=r"has GPU-3 \(NVIDIA L4\), GPU-1.*Cure"):
        chosen(asked)


def test_all_of_nothing_is_an_error():
    with pytest.raises(GpusMissingError, match="all GPUs; the machine has none"):
        choose_gpus(GpuRequest.parse("all"), [], ())


@pytest.mark.parametrize(
    ("asked", "any_"), [(0, False), (1, True), ("all", True), (["GPU-1"], True), ({"type": "L4"}, True)]
)
def test_a_request_says_whether_it_is_one(asked, any_):
    assert bool(GpuRequest.parse(asked)) is any_


def test_whole_gpus_and_their_parts_are_read():
    output = (
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa)\n"
        "GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb)\n"
        "  MIG 3g.20gb     Device  0: (UUID: MIG-cccc)\n"
        "  MIG 1g.5gb      Device  1: (UUID: MIG-dddd)\n"
        "No devices were mentioned here.\n"
    )

    assert parse_nvidia_smi(output) == [
        Gpu("GPU-aaaa", "NVIDIA H100 80GB HBM3"),
        Gpu("MIG-cccc", "NVIDIA A100-SXM4-40GB MIG 3g.20gb"),
        Gpu("MIG-dddd", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"),
    ]
    assert parse_nvidia_smi("NVIDIA-SMI has failed") == []
