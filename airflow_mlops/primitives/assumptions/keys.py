"""Rules that look at several rows, or at another file: uniqueness, keys present, order."""

from __future__ import annotations

from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.assumptions.kind import Kind, key
from airflow_mlops.primitives.assumptions.rules import Finding
from airflow_mlops.primitives.sources.listing import data_files, own_parts
from airflow_mlops.primitives.sql.words import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb import DuckDBPyConnection

__all__ = ["FoundIn", "Increasing", "Unique"]

_CSV = ", header=true, sample_size=-1"


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

        column = self.rule.value["column"]
        try:
            source = self._source(connection)
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
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {self._known()} AS SELECT DISTINCT {identifier(column)} AS known "
            f"FROM {source}"
        )
        return connection.execute(f"SELECT count(*) FROM ({self.broken()})").fetchone() or (0,)

    def judge(self) -> Finding:
        """Not one may be missing there. The file may be another one tomorrow."""
        return self.none_of_rows("have a value that is not there", volatile=True)

    def broken(self) -> str:
        """The rows without partner, once it was observed."""
        name = identifier(self.rule.columns[0])
        return (
            f"SELECT given.* FROM (SELECT * FROM {self.table.relation} WHERE "
            f"{self.within(f'{name} IS NOT NULL')}) given ANTI JOIN "
            f"{self._known()} there ON given.{name} = there.known"
        )

    def _name(self) -> str:
        return str(self.rule.value.get("parquet") or self.rule.value["csv"])

    def _known(self) -> str:
        """The table of the session that holds the values that are there."""
        return identifier(f"{self.rule.value['column']} in {self._name()}")

    def _source(self, connection: DuckDBPyConnection) -> str:
        name = self._name()
        files = [name]
        if has_magic(name):
            asked = "SELECT file, current_setting('file_search_path') FROM glob(?)"
            found = connection.execute(asked, [name]).fetchall()
            folder = Path(found[0][1]) if found and found[0][1] else None
            files = data_files((row[0] for row in found), name, own_parts(name, folder)) or files
        read, options = ("read_parquet", "") if "parquet" in self.rule.value else ("read_csv", _CSV)
        return f"{read}([{', '.join(map(literal, files))}]{options}, hive_partitioning=false)"


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
