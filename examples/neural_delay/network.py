"""A small neural network over columns of numbers, trained in one process or in many with the same result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Network(nn.Module):
    """Standardised inputs, one hidden layer, one logit; a missing number counts as the mean."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def standardise_by(self, rows: Tensor) -> None:
        """Take mean and scale of these rows."""
        known = ~rows.isnan()
        count = known.sum(0).clamp(min=1)
        mean = rows.nan_to_num().sum(0) / count
        spread = ((rows - mean).nan_to_num() ** 2).sum(0) / count
        self.mean.copy_(mean)
        self.scale.copy_(spread.sqrt().clamp(min=1e-6))

    def forward(self, rows: Tensor) -> Tensor:
        """Logits, one a row."""
        return self.layers(((rows - self.mean) / self.scale).nan_to_num()).squeeze(1)


@contextmanager
def process_group(world_size: int) -> Iterator[torch.device]:
    """The device of this process, joined to the others over NCCL on GPUs and over gloo elsewhere."""
    cuda = torch.cuda.is_available()
    if world_size > 1:
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
    local = torch.distributed.get_node_local_rank(0) if world_size > 1 else 0
    if cuda:
        torch.cuda.set_device(local)
    try:
        yield torch.device("cuda", local) if cuda else torch.device("cpu")
    finally:
        if world_size > 1:
            torch.distributed.destroy_process_group()


def step(
    network: nn.Module,
    rows: Tensor,
    targets: Tensor,
    optimizer: torch.optim.Optimizer,
    rank: int,
    world_size: int,
) -> Tensor:
    """One step on one batch, of which each process takes its share; returns this share of the batch's loss.

    The shares are weighted so that the gradients, which processes average, are those of the whole batch.
    """
    mine = slice(rank, None, world_size)
    losses = nn.functional.binary_cross_entropy_with_logits(
        network(rows[mine]), targets[mine], reduction="sum"
    )
    share = losses * world_size / len(rows)
    optimizer.zero_grad()
    share.backward()
    optimizer.step()
    return share.detach()


def parallel(network: Network, device: torch.device, world_size: int) -> nn.Module:
    """The network whose gradients all processes share."""
    if world_size == 1:
        return network
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
