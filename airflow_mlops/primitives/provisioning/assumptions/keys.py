"""Rules that look at several rows, or at another file: uniqueness, keys present, order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.provisioning.assumptions.kind import Kind, key
from airflow_mlops.primitives.provisioning.assumptions.rules import Finding
from airflow_mlops.primitives.sql import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb import DuckDBPyConnection

__all__ = ["FoundIn", "Increasing", "Unique"]


class Unique(Kind):
    """No two rows agree in some columns.

    Equal values have equal hashes, so as many hashes as rows prove it, and one number a row is all that must be held
    in memory. Only where there are fewer are the values themselves compared.
    """

    def measures(self) -> tuple[str, ...]:
        """Count the distinct hashes, if it is the rule whose turn it is."""
        first = self.table.distinct is self.rule
        return (f"{self._hashes()} FILTER (WHERE {self.within()})",) if first else ()

    def observe(self, connection: DuckDBPyConnection) -> Sequence[Any]:
        """Compare the values if their hashes repeat."""
        source = f"FROM {self.table.relation} WHERE {self.within()}"
        hashes = self.seen or connection.execute(f"SELECT {self._hashes()} {source}").fetchone() or (0,)
        if hashes[0] == self.rows:
            return (0,)
        found = connection.execute(
            f"SELECT count(DISTINCT {key(self.rule.columns)}) {source}"
        ).fetchone() or (0,)
        return (self.rows - int(found[0]),)

    def judge(self) -> Finding:
        """Not one may repeat another."""
        return self.none_of_rows("repeat another")

    def broken(self) -> str:
        """All rows of a repeated value; the hashes narrow down what must be sorted."""
        names = ", ".join(identifier(name) for name in self.rule.columns)
        source = f"FROM {self.table.relation} WHERE {self.within()}"
        twice = f"SELECT hash({names}) {source} GROUP BY ALL HAVING count(*) > 1"
        return (
            f"SELECT * {source} AND hash({names}) IN ({twice}) "
            f"QUALIFY count(*) OVER (PARTITION BY {key(self.rule.columns)}) > 1"
        )

    def _hashes(self) -> str:
        return f"count(DISTINCT hash({', '.join(identifier(name) for name in self.rule.columns)}))"


class FoundIn(Kind):
    """Every value is found in a file."""

    def observe(self, connection: DuckDBPyConnection) -> Sequence[Any]:
        """Join with it."""
        import duckdb

        source, column = self._file(), self.rule.value["column"]
        try:
            there = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
        except duckdb.Error as error:
            what = str(error).splitlines()[0]
            raise SourceError(
                f"assumption found_in of {self.rule.columns[0]}: {self._name()} cannot be read: {what}. "
                "Cure: correct the path; a relative one is below the folder of the examples"
            ) from error
        if column not in there:
            raise SourceError(
                f"assumption found_in of {self.rule.columns[0]}: {self._name()} has no column {column!r}; it has "
                f"{', '.join(there)}"
            )
        return connection.execute(f"SELECT count(*) FROM ({self.broken()})").fetchone() or (0,)

    def judge(self) -> Finding:
        """Not one may be missing there. The file may be another one tomorrow."""
        return self.none_of_rows("have a value that is not there", volatile=True)

    def broken(self) -> str:
        """The rows without partner."""
        name, known = identifier(self.rule.columns[0]), identifier(self.rule.value["column"])
        return (
            f"SELECT given.* FROM (SELECT * FROM {self.table.relation} WHERE "
            f"{self.within(f'{name} IS NOT NULL')}) given ANTI JOIN "
            f"(SELECT DISTINCT {known} AS known FROM {self._file()}) there ON given.{name} = there.known"
        )

    def _name(self) -> str:
        return str(self.rule.value.get("parquet") or self.rule.value["csv"])

    def _file(self) -> str:
        if "parquet" in self.rule.value:
            return f"read_parquet({literal(self.rule.value['parquet'])}, hive_partitioning=false)"
        return f"read_csv({literal(self.rule.value['csv'])}, header=true, hive_partitioning=false, sample_size=-1)"


class Increasing(Kind):
    """In the order of time, or else of the rows, values never decrease, all together or per value of other columns."""

    def observe(self, connection: DuckDBPyConnection) -> Sequence[Any]:
        """Compare each value with the one before it."""
        return connection.execute(f"SELECT count(*) FROM ({self.broken()})").fetchone() or (0,)

    def judge(self) -> Finding:
        """Not one may be less."""
        return self.none_of_rows("less than before")

    def broken(self) -> str:
        """The rows that go back; a missing value is passed over."""
        value, time = identifier(self.rule.columns[0]), self.table.context.timestamp
        order = ", ".join(
            identifier(name) for name in (time, self.table.order) if name and name in self.table.columns
        )
        groups = ", ".join(identifier(name) for name in self.rule.value)
        by = f"PARTITION BY {groups} " if groups else ""
        return (
            f"SELECT * FROM {self.table.relation} WHERE {self.within()} "
            f"QUALIFY {value} < lag({value} IGNORE NULLS) OVER ({by}ORDER BY {order})"
        )
