"""Rule that values are distributed as in another dataset version."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.assumptions.kind import Kind
from airflow_mlops.primitives.assumptions.rules import Finding, few
from airflow_mlops.primitives.assumptions.split_leakage import inputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb import DuckDBPyConnection

__all__ = ["Distribution"]

_ID = re.compile(r"[0-9a-f]{8,64}")
_SIZES = ("ks", "total_variation", "hellinger", "missing")


class Distribution(Kind):
    """The comparison itself is the monitor's; whoever checks the rows hands it in."""

    def lacking(self) -> str | None:
        """The comparison."""
        if self.table.context.distribution is None or not self.table.files:
            return "no dataset version to compare with here"
        return None

    def observe(self, connection: DuckDBPyConnection) -> Sequence[Any]:  # noqa: ARG002
        """Compare."""
        if self.table.context.distribution is None or not self.table.files:
            return self.seen
        names = self.rule.columns or inputs(self.table.columns, self.table.context)
        return (self.table.context.distribution(self.table.files, self.rule.value, names),)

    def judge(self) -> Finding:
        """Count the columns that moved. A reference by name may be another version tomorrow."""
        report: Mapping[str, Any] = self.seen[0]
        against = str(self.rule.value["against"])
        volatile = _ID.fullmatch(against) is None
        if report["against"] is None:
            missing = "earlier version" if against == "latest" else f"version {against}"
            return Finding(self.rule, True, f"there is no {missing} yet", volatile=volatile)
        whom = f"{str(report['against'])[:12]} with {report['reference_rows']} rows"
        if not report["judged"]:
            return Finding(self.rule, True, f"too few rows to compare with {whom}", volatile=volatile)
        moved = [column for column in report["columns"] if column["drifted"]]
        lost = [column["column"] for column in report["columns"] if column["kind"] == "absent"]
        said = f"{len(moved)} of {len(report['columns'])} columns moved against {whom}"
        said += f": {'; '.join(_size(column) for column in moved[:12])}" if moved else ""
        if lost:
            said += f"; not in both: {few(lost)}"
        asked = self.rule.value.get("columns") and lost
        passed = len(moved) <= self.rule.value["max_drifted"] and not asked
        return Finding(self.rule, passed, said, volatile=volatile)


def _size(column: Mapping[str, Any]) -> str:
    sizes = [f"{name} {column['effects'][name]:.3g}" for name in _SIZES if name in column["effects"]]
    return f"{column['column']} ({', '.join(sizes)})"
