"""What every kind of rule must be able to do: be observed, judged, and shown by rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.assumptions.rules import Assumption, CheckContext, Finding
from airflow_mlops.primitives.sql.words import identifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

__all__ = ["Kind", "RowWise", "Table", "key", "not_checked"]


@dataclass(frozen=True)
class Table:
    """The rows that assumptions are held against.

    :param relation: what stands behind FROM.
    :param columns: Arrow type of each column.
    :param order: column that gives its rows an order.
    :param context: what else is known.
    :param files: the Parquet files that they are read from.
    :param distinct: the one rule whose distinct values are counted along with everything else; each further one is
        counted on its own, so that one hash table at a time is in memory.
    """

    relation: str
    columns: Mapping[str, str]
    order: str = ""
    context: CheckContext = field(default_factory=CheckContext)
    files: tuple[Path, ...] = ()
    distinct: Assumption | None = None


@dataclass(frozen=True)
class Kind:
    """How one kind of rule is checked. By default nothing is asked of the rows.

    :param rule: the rule.
    :param table: the rows.
    :param rows: number of the rows that the rule is about, once it is known.
    :param seen: what was observed, once it was.
    """

    rule: Assumption
    table: Table
    rows: int = 0
    seen: Sequence[Any] = ()

    def lacking(self) -> str | None:
        """What keeps the rule from being checked at all, in words."""
        return None

    def measures(self) -> tuple[str, ...]:
        """Aggregates that the one pass over the rows is to bring along; their values are then ``seen``."""
        return ()

    def observe(self, connection: DuckDBPyConnection) -> Sequence[Any]:  # noqa: ARG002
        """What is ``seen`` at last: here a rule may ask what aggregates cannot say."""
        return self.seen

    def judge(self) -> Finding:
        """Decide by what was seen."""
        raise NotImplementedError

    def broken(self) -> str | None:
        """A query for the rows that break the rule, with all columns of the table."""
        return None

    def columns(self) -> tuple[str, ...]:
        """Columns to show of a row that breaks the rule."""
        return self.rule.columns

    def within(self, also: str = "TRUE") -> str:
        """The rule's ``where`` and something else; the line end closes a comment in it."""
        where = self.rule.where
        return f"({where}\n) AND ({also})" if where else also

    def none_of_rows(self, says: str, *, volatile: bool = False) -> Finding:
        """The finding of a rule that no row may break, when ``seen`` begins with the number of those that do."""
        failing = int(self.seen[0])
        said = f"{failing} of {self.rows} rows {says}"
        return Finding(self.rule, failing == 0, said, failing, volatile=volatile)


class RowWise(Kind):
    """A rule that each row keeps or breaks for itself.

    :cvar says: what is said of the rows that break it.
    """

    says = "break it"

    def fault(self) -> str:
        """Condition that is true for the rows which break the rule."""
        raise NotImplementedError

    def measures(self) -> tuple[str, ...]:
        """Count those rows."""
        return (f"count(*) FILTER (WHERE {self.within(self.fault())})",)

    def judge(self) -> Finding:
        """Not one row may break it."""
        return self.none_of_rows(self.says)

    def broken(self) -> str:
        """The rows that have the fault."""
        return f"SELECT * FROM {self.table.relation} WHERE {self.within(self.fault())}"


def key(columns: Sequence[str]) -> str:
    """One value for several columns. A struct even of one: a null in it then counts as a value like others."""
    return f"struct_pack({', '.join(f'k{n} := {identifier(name)}' for n, name in enumerate(columns))})"


def not_checked(rule: Assumption, why: str) -> Finding:
    """A rule about nothing must not pass as a warning for ever."""
    return Finding(replace(rule, severity="fail"), False, why)
