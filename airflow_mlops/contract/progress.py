"""Progress of a job: one line of JSON behind a fixed prefix on stdout."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

from airflow_mlops.contract.results import is_finite

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "::mlops:: "


def progress_line(
    metrics: Mapping[str, float] | None = None, step: int | None = None, total: int | None = None
) -> str:
    """The line, without newline. Values that JSON cannot say (NaN, infinity) are left out.

    :param metrics: name → value at this step.
    :param step: how far the job is.
    :param total: the step at which it will be done, when known.
    """
    finite = {name: float(value) for name, value in (metrics or {}).items() if math.isfinite(value)}
    content: dict[str, Any] = {"metrics": finite}
    if step is not None:
        content["step"] = int(step)
    if total is not None:
        content["total"] = int(total)
    return PREFIX + json.dumps(content, allow_nan=False)


def report_progress(
    metrics: Mapping[str, float] | None = None, step: int | None = None, total: int | None = None
) -> None:
    """Print the line at once, in one write, so that lines of threads do not mix."""
    sys.stdout.write(progress_line(metrics, step, total) + "\n")
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
    for key in ("step", "total"):
        if is_finite(content.get(key)):
            result[key] = int(content[key])
    return result
