"""Whether a training that was done again gave the same: by its metrics, and by the bytes of its model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

#: Files of a model that say when and by what they were written: different each time, and no part of the model.
VOLATILE = ("MLmodel", "registered_model_meta")

#: Names of figures that measure the machine, not the model.
TIMING = re.compile(r"(^|[_./])(latency|seconds|duration|throughput)([_./]|$)")
_KEYS = ("split", "name", "slice", "step")

FileState = Literal["same", "different", "missing", "new", "volatile"]


@dataclass(frozen=True)
class MetricPair:
    """One metric of the old and of the new training.

    :param old: ``None`` when the new training alone reports it; ``new`` likewise.
    :param tolerance: how far they may lie apart.
    """

    name: str
    old: float | None
    new: float | None
    tolerance: float

    @property
    def timing(self) -> bool:
        """Whether it is a time, which is another one each time."""
        return bool(TIMING.search(self.name))

    @property
    def same(self) -> bool:
        """Whether they agree."""
        if self.old is None or self.new is None:
            return False
        return self.old == self.new or abs(self.old - self.new) <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """The pair as JSON values."""
        return {**asdict(self), "same": self.same, "timing": self.timing}


def compare_metrics(
    old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]], tolerance: float
) -> list[MetricPair]:
    """Every metric that either training reports, by split, name, slice and step.

    :param tolerance: relative to the old value, or absolute where that is smaller than 1.
    """
    before, after = _by_key(old), _by_key(new)
    pairs = []
    for key in dict.fromkeys((*before, *after)):
        value = before.get(key)
        allowed = tolerance * max(1.0, abs(value)) if value is not None else 0.0
        pairs.append(MetricPair(_name(key), value, after.get(key), allowed))
    return pairs


def compare_files(
    old: Mapping[str, str], new: Mapping[str, str], volatile: Sequence[str] = VOLATILE
) -> dict[str, FileState]:
    """What became of each file of the model.

    :param old: path → SHA-256 then.
    :param new: path → SHA-256 now.
    :param volatile: file names whose content does not count; that they are there does.
    """
    states: dict[str, FileState] = {}
    for path in sorted({*old, *new}):
        if path not in new:
            states[path] = "missing"
        elif path not in old:
            states[path] = "new"
        elif old[path] == new[path]:
            states[path] = "same"
        else:
            states[path] = "volatile" if PurePosixPath(path).name in volatile else "different"
    return states


def same_files(states: Mapping[str, FileState]) -> bool:
    """Whether the model is the same but for its volatile files."""
    return bool(states) and all(state in ("same", "volatile") for state in states.values())


def _by_key(metrics: Iterable[Mapping[str, Any]]) -> dict[tuple[str, ...], float]:
    return {
        tuple("" if metric.get(key) is None else str(metric[key]) for key in _KEYS): float(metric["value"])
        for metric in metrics
        if math.isfinite(metric["value"])
    }


def _name(key: tuple[str, ...]) -> str:
    split, name, cut, step = key
    text = f"{split}.{name}" if split else name
    return text + (f" [{cut}]" if cut else "") + (f" @{step}" if step else "")
