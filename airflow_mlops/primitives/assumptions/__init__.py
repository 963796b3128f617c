"""Stated assumptions about data: all rules in one query, failing rows by a second one."""

from __future__ import annotations

from airflow_mlops.primitives.assumptions.check import (
    check_table,
    compile_check,
    compile_examples,
)
from airflow_mlops.primitives.assumptions.report import failed, report, summary, warned
from airflow_mlops.primitives.assumptions.rules import (
    Assumption,
    CheckContext,
    DistributionTest,
    Finding,
    of_predictions,
    parse_assumptions,
)
from airflow_mlops.primitives.assumptions.split_leakage import known_when_asked

__all__ = [
    "Assumption",
    "CheckContext",
    "DistributionTest",
    "Finding",
    "check_table",
    "compile_check",
    "compile_examples",
    "failed",
    "known_when_asked",
    "of_predictions",
    "parse_assumptions",
    "report",
    "summary",
    "warned",
]
