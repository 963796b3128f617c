"""Rules against test sets that are no test: the same entity, or the same example, on both sides of a split; and against
answers that are known before they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.assumptions.kind import Kind, key
from airflow_mlops.primitives.assumptions.rules import Assumption, CheckContext, Finding
from airflow_mlops.primitives.sql.present import present_sql
from airflow_mlops.primitives.sql.words import identifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb import DuckDBPyConnection

__all__ = ["GroupsStayTogether", "NoDuplicatesAcrossSplits", "inputs", "known_when_asked"]

FOLD = "__fold"
"""Column with the number of the fold that a row of the split train belongs to, where there are folds."""


class _AcrossSplits(Kind):
    """Groups of rows must not reach over the border of a split."""

    def groups(self) -> tuple[str, ...]:
        """Columns in which the rows of a group agree."""
        raise NotImplementedError

    def present(self) -> str:
        """Condition on the rows that belong to a group."""
        raise NotImplementedError

    def lacking(self) -> str | None:
        """The splits."""
        if self.table.context.split is None or self.table.context.split not in self.table.columns:
            return "the rows are not split here"
        return None if self.groups() else "there is no input of the model"

    def observe(self, connection: DuckDBPyConnection) -> Sequence[Any]:
        """Find the groups by their hashes, and make sure of them by their values."""
        by = key(self.groups())
        found = connection.execute(
            f"SELECT count(*), coalesce(sum(n), 0)::BIGINT FROM (SELECT count(*) AS n FROM "
            f"({self._candidates()}) GROUP BY {by} HAVING {self._several()})"
        )
        return found.fetchone() or (0, 0)

    def broken(self) -> str:
        """All rows of these groups, those of one group next to each other."""
        by = key(self.groups())
        over = f"OVER (PARTITION BY {by})"
        several = f"min({self.side()}) {over} <> max({self.side()}) {over}"
        return f"SELECT * FROM ({self._candidates()}) QUALIFY {several}"

    def columns(self) -> tuple[str, ...]:
        """The split beside the columns of the rule."""
        return (*self.rule.columns, self.table.context.split or "")

    def _candidates(self) -> str:
        digest = f"hash({', '.join(identifier(name) for name in self.groups())})"
        source = f"FROM {self.table.relation} WHERE {self.within(self._counted())}"
        several = f"SELECT {digest} {source} GROUP BY ALL HAVING {self._several()}"
        return f"SELECT * {source} AND {digest} IN ({several})"

    def _counted(self) -> str:
        return f"{identifier(self.table.context.split or '')} IS NOT NULL AND {self.present()}"

    def side(self) -> str:
        """What must be the same for all rows of a group."""
        return identifier(self.table.context.split or "")

    def _several(self) -> str:
        return f"min({self.side()}) <> max({self.side()})"


class GroupsStayTogether(_AcrossSplits):
    """The rows of one entity lie in one split, and in one fold of it."""

    def side(self) -> str:
        """The split, and the fold where there are folds."""
        if FOLD not in self.table.columns:
            return super().side()
        return f"concat_ws(' ', {super().side()}, {identifier(FOLD)})"

    def groups(self) -> tuple[str, ...]:
        """What identifies an entity."""
        return self.rule.columns

    def present(self) -> str:
        """An entity that is not known is none."""
        return " AND ".join(
            present_sql(identifier(name), self.table.columns[name]) for name in self.rule.columns
        )

    def judge(self) -> Finding:
        """Not one may lie in two."""
        groups, failing = self.seen
        said = f"{groups} in several splits, with {failing} rows"
        return Finding(self.rule, groups == 0, said, int(failing))


class NoDuplicatesAcrossSplits(_AcrossSplits):
    """No two examples of different splits agree in all inputs."""

    def groups(self) -> tuple[str, ...]:
        """The inputs of the model."""
        return inputs(self.table.columns, self.table.context)

    def present(self) -> str:
        """Examples of which nothing at all is known are alike, but not the same."""
        return f"coalesce({', '.join(f'{identifier(name)}::VARCHAR' for name in self.groups())}) IS NOT NULL"

    def judge(self) -> Finding:
        """Not one may have a twin."""
        groups, failing = self.seen
        said = f"{failing} rows with a twin in another split ({groups} different ones)"
        return Finding(self.rule, groups == 0, said, int(failing))


def inputs(columns: Mapping[str, str], context: CheckContext) -> tuple[str, ...]:
    """The inputs of the model: those that are known, else every column without another role."""
    if context.features:
        return tuple(name for name in context.features if name in columns)
    taken = {*context.keys, *context.targets, context.timestamp, context.split}
    return tuple(name for name in columns if name not in taken and not name.startswith("__"))


def known_when_asked(
    connection: DuckDBPyConnection, relation: str, known_at: str, timestamp: str
) -> Finding | None:
    """A warning, when most targets were known at the time of their question; ``None`` otherwise.

    :param relation: what stands behind FROM.
    :param known_at: column with the time at which the target became known.
    """
    known, rows = connection.execute(
        f"SELECT count(*) FILTER ({identifier(known_at)}::TIMESTAMPTZ <= {identifier(timestamp)}::TIMESTAMPTZ), count(*) "
        f"FROM {relation}"
    ).fetchall()[0]
    if known * 2 <= rows:
        return None
    said = (
        f"{known} of {rows} targets known when they are asked for: features may hold the answer. Cure: let {known_at} be "
        "the time at which the target became known"
    )
    # No part of the version: it says nothing that the rows do not say, and versions made before it keep their id.
    rule = Assumption("known_later", timestamp, (known_at,), "warn")
    return Finding(rule, passed=False, observed=said, failing=int(known), volatile=True)
