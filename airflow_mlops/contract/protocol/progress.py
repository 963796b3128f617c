"""Progress of a job: one line of JSON behind a fixed prefix on stdout."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from airflow_mlops.contract.protocol.results import is_finite

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "::mlops:: "
#: In front of the name of a figure that is of the machine, not of the model; its lines are not for the log.
SYSTEM = "system/"


def progress_line(
    metrics: Mapping[str, float] | None = None,
    step: int | None = None,
    total: int | None = None,
    time: int | None = None,
) -> str:
    """The line, without newline. Values that JSON cannot say (NaN, infinity) are left out.

    :param metrics: name → value at this step.
    :param step: how far the job is.
    :param total: the step at which it will be done, when known.
    :param time: when it was measured, in milliseconds since 1970: a line that is read twice counts once then.
    """
    finite = {name: float(value) for name, value in (metrics or {}).items() if math.isfinite(value)}
    content: dict[str, Any] = {"metrics": finite}
    if step is not None:
        content["step"] = int(step)
    if total is not None:
        content["total"] = int(total)
    if time is not None:
        content["time"] = int(time)
    return PREFIX + json.dumps(content, allow_nan=False)


def report_progress(
    metrics: Mapping[str, float] | None = None, step: int | None = None, total: int | None = None
) -> None:
    """Print the line at once, in one write, so that lines of threads do not mix."""
    sys.stdout.write(progress_line(metrics, step, total, time.time_ns() // 1_000_000) + "\n")
    sys.stdout.flush()


def parse_progress(line: str) -> dict[str, Any] | None:
    """What a line of output says about progress; ``None`` for any other line.

    :param line: one line of a job's stdout; it comes from a container and is not trusted.
    """
    if not line.startswith(PREFIX):
        return None
    try:
        content = json.loads(line[len(PREFIX) :])
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    metrics = content.get("metrics", {})
    result: dict[str, Any] = {
        "metrics": {
            str(name): float(value)
            for name, value in (metrics.items() if isinstance(metrics, dict) else ())
            if is_finite(value)
        }
    }
    for key in ("step", "total", "time"):
        if is_finite(content.get(key)):
            result[key] = int(content[key])
    return result


def is_system(line: str) -> bool:
    """Whether a line says figures of the machine and nothing else."""
    progress = parse_progress(line)
    names = progress["metrics"] if progress else {}
    return bool(names) and all(name.startswith(SYSTEM) for name in names)
