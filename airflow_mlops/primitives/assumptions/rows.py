"""Rules about how many rows there are, and how fresh they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from statistics import median

from airflow_mlops.primitives.assumptions.kind import Kind
from airflow_mlops.primitives.assumptions.rules import Finding
from airflow_mlops.primitives.sql.words import identifier
from airflow_mlops.spec.values import duration

__all__ = ["Newest", "RowLimit", "RowsVsPrevious"]

_VERSIONS = 5
"""Earlier versions that count: one odd one among them does not move the median far."""


class RowLimit(Kind):
    """``min_rows`` and ``max_rows``."""

    def judge(self) -> Finding:
        """Compare the number."""
        passed = (
            self.rows >= self.rule.value if self.rule.check == "min_rows" else self.rows <= self.rule.value
        )
        return Finding(self.rule, passed, f"{self.rows} rows")


class RowsVsPrevious(Kind):
    """As many rows as the versions before, more or less."""

    def judge(self) -> Finding:
        """Compare with the median; a first version has nothing to differ from."""
        before = self.table.context.previous_rows[:_VERSIONS]
        usual = median(before) if before else 0
        if not usual:
            return Finding(
                self.rule, True, f"{self.rows} rows, and no earlier version with rows", volatile=True
            )
        low, high = self.rule.value
        ratio = self.rows / usual
        passed = (low is None or ratio >= low) and (high is None or ratio <= high)
        said = f"{self.rows} rows, {ratio:.4g} times the median {usual:g} of the last {len(before)}"
        return Finding(self.rule, passed, said, volatile=True)


class Newest(Kind):
    """The newest time is near to now, or to the end of the window: old data and times to come both stand out."""

    def lacking(self) -> str | None:
        """The column, or the window."""
        if self.rule.value["of"] == "window" and self.table.context.moment is None:
            return "no window here: write of: now"
        return None if self._column() else "no column with the time of an example here: name a column"

    def measures(self) -> tuple[str, ...]:
        """The newest time."""
        time = f"{identifier(self._column())}::TIMESTAMPTZ"
        return (f"epoch_us(max({time}) FILTER (WHERE {self.within(f'isfinite({time})')}))",)

    def judge(self) -> Finding:
        """Compare it with the moment."""
        now = self.rule.value["of"] == "now"
        moment = self.table.context.clock if now else self.table.context.moment
        if self.seen[0] is None or moment is None:
            return Finding(self.rule, False, "no time at all", volatile=now)
        newest = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.seen[0])
        away = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - newest
        side = "before" if away >= timedelta(0) else "after"
        # Whole seconds: a clock's microseconds are no news.
        distance = timedelta(seconds=int(abs(away).total_seconds()))
        said = f"newest {newest.isoformat()}, {distance} {side}"
        return Finding(self.rule, abs(away) <= duration(self.rule.value["within"]), said, volatile=now)

    def _column(self) -> str:
        return self.rule.value.get("column") or self.table.context.timestamp or ""
