"""What a job leaves in ``output/``: the metrics and the reason of a failure."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_mlops.contract.protocol.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Direction = Literal["maximize", "minimize"]

_FAILURE_BYTES = 64 * 1024
_NAME_LENGTH = 250


@dataclass(frozen=True)
class Metric:
    """One figure.

    :param name: what was measured; at most 250 characters.
    :param value: a finite number.
    :param step: iteration, epoch, episode.
    :param split: data that it was measured on: ``train``, ``validation``, ``test``.
    :param slice: part of that data, as ``origin=JFK``.
    :param direction: which way is better; a gate against the champion needs it.
    :param stderr: standard error of the value.
    :param n: rows behind the value.
    """

    name: str
    value: float
    step: int | None = None
    split: str | None = None
    slice: str | None = None
    direction: Direction | None = None
    stderr: float | None = None
    n: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no reader could use.

        :raises ValueError: naming the metric and what is wrong.
        """
        if problems := metric_problems(self.to_dict()):
            raise ValueError(f"Metric {self.name!r}: {'; '.join(problems)}.")

    def to_dict(self) -> dict[str, Any]:
        """The metric as in ``metrics.json``: keys without value are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def metric_problems(metric: object) -> list[str]:
    """What breaks contract 1 in one entry of ``metrics.json``; empty when nothing does.

    :param metric: the parsed JSON value.
    """
    if not isinstance(metric, dict):
        return [f"expected an object, got {type(metric).__name__}"]
    problems = [f"unknown key {key!r}" for key in sorted(set(metric) - set(Metric.__dataclass_fields__))]
    name = metric.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_LENGTH:
        problems.append(f"name: expected a string of 1 to {_NAME_LENGTH} characters, got {name!r}")
    if not is_finite(metric.get("value")):
        problems.append(f"value: expected a finite number, got {metric.get('value')!r}")
    if "stderr" in metric and (not is_finite(metric["stderr"]) or metric["stderr"] < 0):
        problems.append(f"stderr: expected a finite number of at least 0, got {metric['stderr']!r}")
    problems += [
        f"{key}: expected a whole number, got {metric[key]!r}"
        for key in ("step", "n")
        if key in metric and not _is_whole(metric[key])
    ]
    problems += [
        f"{key}: expected a string, got {metric[key]!r}"
        for key in ("split", "slice")
        if key in metric and not isinstance(metric[key], str)
    ]
    if metric.get("direction") not in (None, *get_args(Direction)):
        problems.append(f"direction: expected maximize or minimize, got {metric['direction']!r}")
    return problems


def write_metrics(path: Path, metrics: Sequence[Metric]) -> None:
    """Write ``metrics.json``, whole or not at all."""
    content = json.dumps([metric.to_dict() for metric in metrics], indent=1, allow_nan=False)
    write_text(path, content + "\n")


def write_assumptions(path: Path, failures: Sequence[Mapping[str, Any]]) -> None:
    """Write ``assumptions.json``, if there is something to say; what JSON does not know becomes text."""
    if failures:
        write_text(path, json_text([dict(failure) for failure in failures], indent=1, default=str) + "\n")


def write_failure(path: Path, message: str, details: str = "") -> None:
    """Write ``failure``: the message first, since some readers show only its beginning.

    :param message: what went wrong, for people.
    :param details: a traceback; its beginning is cut when it is long.
    """
    text = message.strip() + "\n"
    if details:
        text += "\n" + details[-(_FAILURE_BYTES // 2) :].strip() + "\n"
    write_text(path, text.encode("utf-8", "replace")[:_FAILURE_BYTES].decode("utf-8", "ignore"))


def write_text(path: Path, text: str) -> None:
    """Write a file under its name only once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(text, encoding="utf-8")
    half.replace(path)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def is_finite(value: object) -> bool:
    """Whether a JSON value is a number that a double can hold; an integer of 400 digits is not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
