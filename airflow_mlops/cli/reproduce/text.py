"""A reproduction in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from airflow_mlops.cli.dataset.words import print_table

#: Metrics that agree and are shown at most; those that do not are all shown.
SHOWN = 20


def print_report(report: Mapping[str, Any]) -> None:
    """Print the metrics side by side, the files that differ, and the verdict."""
    print(
        f"{report['model']}/{report['version']}: trained again on {report['run_on']} with dataset "
        f"{str(report['dataset_id'])[:12]} and {report['code']}.\n"
    )
    pairs = sorted(report["metrics"], key=lambda pair: bool(pair["same"]))
    shown = [pair for pair in pairs if not pair["same"]] + [pair for pair in pairs if pair["same"]][:SHOWN]
    rows = [["STAGE", "METRIC", "THEN", "NOW", ""]]
    rows += [
        [pair["stage"], pair["name"], _number(pair["old"]), _number(pair["new"]), _state(pair)]
        for pair in shown
    ]
    print_table(rows)
    if len(shown) < len(pairs):
        print(f"and {len(pairs) - len(shown)} more that are the same")
    counts = Counter(report["files"].values())
    print(
        f"\nFiles of the model: {', '.join(f'{number} {state}' for state, number in counts.items()) or 'none'}"
    )
    for path, state in report["files"].items():
        if state != "same":
            print(f"  {state}: {path}")
    if report["registered_files"] != "as recorded":
        print(f"Registered model: {report['registered_files']}")
    for note in report["notes"]:
        print(f"Note: {note}")
    print(f"\n{_verdict(report)}")


def _verdict(report: Mapping[str, Any]) -> str:
    if not report["metrics_same"]:
        return "DIFFERENT: the metrics are not the same."
    if report["registered_files"] != "as recorded":
        return (
            "DIFFERENT: the metrics are the same, but the registered model is not the one that was trained."
        )
    if report["files_same"]:
        return "SAME: metrics and files."
    text = "the metrics are the same, the bytes of the model are not"
    return f"SAME: {text}." if report["same"] else f"DIFFERENT: {text}."


def _state(pair: Mapping[str, Any]) -> str:
    if pair["timing"]:
        return "time, not compared"
    return "same" if pair["same"] else "DIFFERENT"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.10g}"
