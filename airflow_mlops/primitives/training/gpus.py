"""Which GPUs of a machine a job gets: what was asked for, what is there, and what others hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_mlops.exceptions import GpusMissingError

#: A line of ``nvidia-smi -L``: a whole GPU, or below it a part of one (Multi-Instance GPU).
_GPU = re.compile(r"GPU \d+: (?P<type>.+) \(UUID: (?P<uuid>GPU-[^)\s]+)\)")
_PART = re.compile(r"\s+MIG (?P<profile>\S+)\s+Device\s+\d+: \(UUID: (?P<uuid>MIG-[^)\s]+)\)")


@dataclass(frozen=True, order=True)
class Gpu:
    """One GPU that a job can have for itself.

    :param uuid: its name on the machine, as ``GPU-5d5ba0d6-…``.
    :param type: as the driver says it, ``NVIDIA H100 80GB HBM3``; empty when nobody said.
    """

    uuid: str
    type: str = ""


@dataclass(frozen=True)
class GpuRequest:
    """What a job asks for.

    :param count: how many; ``None`` for all.
    :param uuids: exactly these.
    :param type: only GPUs whose type has this in it, in any case.
    """

    count: int | None = 0
    uuids: tuple[str, ...] = ()
    type: str = ""

    @classmethod
    def parse(cls, value: int | str | Sequence[str] | Mapping[str, Any]) -> GpuRequest:
        """Read ``resources.gpus``: a number, ``all``, a list of UUIDs, or ``{type, count}``."""
        if isinstance(value, int):
            return cls(value)
        if value == "all":
            return cls(None)
        if isinstance(value, Mapping):
            return cls(int(value.get("count", 1)), type=str(value["type"]))
        uuids = (value,) if isinstance(value, str) else tuple(value)
        return cls(len(uuids), uuids=uuids)

    def __bool__(self) -> bool:
        """Whether any GPU is asked for."""
        return self.count != 0

    def __str__(self) -> str:
        """For people: ``2 GPUs of type H100``."""
        if self.uuids:
            return f"GPU {', '.join(self.uuids)}"
        number = "all GPUs" if self.count is None else f"{self.count} GPU{'s' * (self.count != 1)}"
        return f"{number} of type {self.type}" if self.type else number


def choose_gpus(
    request: GpuRequest, inventory: Sequence[Gpu], taken: Collection[str], preferred: Collection[str] = ()
) -> tuple[str, ...] | None:
    """Choose GPUs: always in the same order, so that two who choose at once meet at the first one.

    :param inventory: what the machine has.
    :param taken: UUIDs that others hold.
    :param preferred: UUIDs that the job holds already.
    :return: UUIDs in order; ``None`` when others hold too many.
    :raises GpusMissingError: when the machine could not give them even if nobody held any.
    """
    fitting = _fitting(request, inventory)
    count = len(fitting) if request.count is None else request.count
    free = sorted(set(fitting) - set(taken), key=lambda uuid: (uuid not in preferred, uuid))
    return tuple(sorted(free[:count])) if len(free) >= count else None


def _fitting(request: GpuRequest, inventory: Sequence[Gpu]) -> list[str]:
    fitting = [
        gpu.uuid
        for gpu in inventory
        if (not request.uuids or gpu.uuid in request.uuids) and request.type.lower() in gpu.type.lower()
    ]
    needed = max(request.count or 0, len(request.uuids), 1)
    if len(fitting) < needed:
        has = ", ".join(f"{gpu.uuid} ({gpu.type or 'type unknown'})" for gpu in inventory) or "none"
        raise GpusMissingError(
            f"The job asks for {request}; the machine has {has}. Cure: ask for what is there (training.resources.gpus), "
            "or choose another machine; where the list is wrong, write gpus into the extra of its connection."
        )
    return fitting


def parse_nvidia_smi(output: str) -> list[Gpu]:
    """Read ``nvidia-smi -L``; a GPU that is cut into parts is given part by part."""
    found: list[Gpu] = []
    whole = Gpu("")
    for line in output.splitlines():
        if match := _GPU.match(line):
            whole = Gpu(match["uuid"], match["type"])
            found.append(whole)
        elif match := _PART.match(line):
            if whole in found:
                found.remove(whole)
            found.append(Gpu(match["uuid"], f"{whole.type} MIG {match['profile']}"))
    return found
