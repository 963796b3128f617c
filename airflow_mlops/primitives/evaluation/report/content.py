"""What a report says, as JSON values: the decision, the metrics beside the champion's, slices, test cases, figures."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import DataError
from airflow_mlops.primitives.evaluation.evidence import find
from airflow_mlops.primitives.evaluation.measures import compare, direction_of, measure, measures_of
from airflow_mlops.primitives.evaluation.report.figures import figures_of
from airflow_mlops.primitives.evaluation.slices import slices_of
from airflow_mlops.primitives.statistics.intervals import SHOWN
from airflow_mlops.spec.evaluation import LATENCIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_mlops.primitives.evaluation.evidence import Evidence
    from airflow_mlops.primitives.evaluation.gate import GateDecision

VERSION = 1
#: Slices of a column that are shown, the largest ones.
SLICES = 20
#: Entries of the model code's own that are shown.
OWN = 200


def build_report(evidence: Evidence, decision: GateDecision, about: Mapping[str, Any]) -> dict[str, Any]:
    """The report as JSON values.

    :param about: ``application``, ``run_id``, ``dataset_id``, ``champion`` (version) and whatever else its head shall
        name; texts.
    """
    return {
        "report": VERSION,
        "about": {key: value for key, value in about.items() if value not in (None, "")},
        "decision": {**decision.to_dict(), "outcome": decision.outcome},
        "champion_failure": evidence.champion_failure,
        "metrics": list(_metrics(evidence)),
        "own_metrics": list(_own_metrics(evidence)),
        "slices": list(_slices(evidence)),
        "latency": _latency(evidence),
        "model_bytes": evidence.model_bytes,
        "tests": evidence.tests.to_dict() if evidence.tests else None,
        "figures": figures_of(evidence.rows, evidence.champion_rows) if evidence.rows else [],
    }


def _metrics(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Metrics measured here, the champion's of the same rows, and how sure the difference is."""
    rows, old = evidence.rows, evidence.champion_rows
    if rows is None:
        return
    for name in measures_of(rows.kind):
        found = measure(name, rows)
        if found is None:
            continue
        line: dict[str, Any] = {"name": name, **asdict(found), "direction": direction_of(name, rows.kind)}
        if old is not None:
            other = measure(name, old)
            line["champion"] = asdict(other) if other else None
            if difference := compare(name, rows, old):
                rest = (1 - SHOWN) / 2
                line["gain"] = {
                    "value": difference.gain,
                    "interval": [difference.at_least(1 - rest), difference.at_least(rest)],
                    "method": difference.method,
                }
        yield line


def _own_metrics(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """What the model code reported and nobody measured here."""
    rows = evidence.rows
    known = set(measures_of(rows.kind)) if rows else set()
    shown = 0
    for entry in evidence.metrics:
        measured = (
            entry.get("name") in known and not entry.get("slice") and entry.get("split", "test") == "test"
        )
        if measured or shown >= OWN or str(entry.get("name", "")).startswith("latency_"):
            continue
        shown += 1
        cut = entry.get("slice")
        other = find(str(entry.get("name")), entry.get("split", "test"), cut, evidence.champion or ())
        yield {**entry, "champion": None if other is None else other.get("value")}


def _slices(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """The first metric that each slice of the judged columns has."""
    rows = evidence.rows
    if rows is None:
        return
    for column, values in evidence.columns.items():
        try:
            parts = slices_of(column, values)
        except DataError:
            continue  # the rule that names the column says so
        for name in measures_of(rows.kind):
            lines = [
                {"slice": part.name, "rows": part.size, **_value(name, evidence, part.rows)}
                for part in parts[:SLICES]
            ]
            good = [line for line in lines if line["value"] is not None]
            if good:
                yield {"column": column, "metric": name, "slices": good, "more": max(0, len(parts) - SLICES)}
                break


def _value(name: str, evidence: Evidence, mask: Any) -> dict[str, Any]:
    new = measure(name, evidence.rows.part(mask)) if evidence.rows else None
    old = measure(name, evidence.champion_rows.part(mask)) if evidence.champion_rows else None
    return {
        "value": None if new is None else new.value,
        "interval": None if new is None else new.interval,
        "champion": None if old is None else old.value,
    }


def _latency(evidence: Evidence) -> dict[str, Any]:
    found = {
        name: (
            find(f"latency_{name}", "test", None, evidence.metrics),
            find(f"latency_{name}", "test", None, evidence.champion or ()),
        )
        for name in LATENCIES
    }
    return {
        name: {"value": new["value"], "champion": old.get("value") if old else None, "n": new.get("n")}
        for name, (new, old) in found.items()
        if new
    }
