"""Whether what a job left behind keeps the contract."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from airflow_mlops.contract.protocol.results import metric_problems

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_mlops.contract.protocol.paths import Paths

_PARQUET = b"PAR1"


def check_output(paths: Paths) -> list[str]:
    """Everything below ``paths`` that breaks contract 1, one sentence each.

    Files that a command need not write may be absent. The JUnit report is not parsed here: who reads
    a report from a container does so with bounds.
    """
    problems = []
    if paths.model.exists() and (not paths.model.is_dir() or not any(paths.model.iterdir())):
        problems.append("model: expected a folder with the model, got nothing in it.")
    if paths.metrics.exists():
        problems += [f"output/metrics.json: {problem}." for problem in _metrics_problems(paths)]
    if paths.tests.exists() and b"<testsuite" not in paths.tests.read_bytes():
        problems.append("output/tests.xml: expected a JUnit report with a testsuite.")
    for file in (paths.predictions, *sorted(paths.prepared.glob("*.parquet"))):
        if file.exists() and not _is_parquet(file):
            problems.append(f"{file.relative_to(paths.root).as_posix()}: expected a Parquet file.")
    return problems


def _is_parquet(file: Path) -> bool:
    if not file.is_file() or file.stat().st_size < 2 * len(_PARQUET):
        return False
    with file.open("rb") as content:
        begin = content.read(len(_PARQUET))
        content.seek(-len(_PARQUET), os.SEEK_END)
        return begin == content.read() == _PARQUET


def _metrics_problems(paths: Paths) -> list[str]:
    try:
        metrics = json.loads(paths.metrics.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return [f"expected JSON: {error}"]
    if not isinstance(metrics, list):
        return [f"expected a list, got {type(metrics).__name__}"]
    return [
        f"[{index}] {problem}" for index, metric in enumerate(metrics) for problem in metric_problems(metric)
    ]
