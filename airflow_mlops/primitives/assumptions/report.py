"""What is said of findings: in the log, in an error, in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_mlops.primitives.assumptions.rules import Finding

__all__ = ["failed", "report", "summary", "warned"]

PRINTED = 10


def failed(findings: Sequence[Finding]) -> list[Finding]:
    """Those that stop a dataset."""
    return [finding for finding in findings if not finding.passed and finding.assumption.severity == "fail"]


def warned(findings: Sequence[Finding]) -> list[Finding]:
    """Those that are only reported."""
    return [finding for finding in findings if not finding.passed and finding.assumption.severity == "warn"]


def summary(findings: Sequence[Finding]) -> str:
    """The failed findings in words, at most ten."""
    broken = [finding for finding in findings if not finding.passed]
    lines = [f"  {finding}" for finding in broken[:PRINTED]]
    if len(broken) > PRINTED:
        lines.append(f"  … and {len(broken) - PRINTED} more")
    return "\n".join(lines)


def report(findings: Sequence[Finding]) -> dict[str, Any]:
    """All findings as JSON values, with the rows that break them."""
    return {
        "passed": not failed(findings),
        "checked": len(findings),
        "failed": len(failed(findings)),
        "warned": len(warned(findings)),
        "findings": [{**finding.to_json(), "volatile": finding.volatile} for finding in findings],
    }
