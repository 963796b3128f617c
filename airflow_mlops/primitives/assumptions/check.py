"""All rules in a pass over their columns; what a pass cannot see, and the rows that break a rule, by further queries."""

from __future__ import annotations

import difflib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.assumptions.distribution import Distribution
from airflow_mlops.primitives.assumptions.keys import FoundIn, Increasing, Unique
from airflow_mlops.primitives.assumptions.kind import Kind, Table, not_checked
from airflow_mlops.primitives.assumptions.rows import Newest, RowLimit, RowsVsPrevious
from airflow_mlops.primitives.assumptions.rules import Assumption, CheckContext, Finding, few
from airflow_mlops.primitives.assumptions.split_leakage import (
    GroupsStayTogether,
    NoDuplicatesAcrossSplits,
)
from airflow_mlops.primitives.assumptions.target_leakage import TargetLeakage
from airflow_mlops.primitives.assumptions.values import (
    Bounds,
    Condition,
    KnownBy,
    Length,
    Matches,
    NotNull,
    NullShare,
    OneOf,
    Type,
    Valueless,
)
from airflow_mlops.primitives.sql.words import batches, identifier, literal, parquet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from duckdb import DuckDBPyConnection

__all__ = ["KINDS", "check_table", "compile_check", "compile_examples"]

EXAMPLES = 5
_RULES_A_QUERY = 100

#: Rules that a column without any value cannot break.
_OF_VALUES = frozenset({"type", "between", "above", "below", "one_of", "matches", "length"})
KINDS: Mapping[str, type[Kind]] = {
    "not_null": NotNull,
    "max_null_share": NullShare,
    "between": Bounds,
    "above": Bounds,
    "below": Bounds,
    "one_of": OneOf,
    "matches": Matches,
    "length": Length,
    "type": Type,
    "found_in": FoundIn,
    "known_by": KnownBy,
    "increasing_per": Increasing,
    "unique": Unique,
    "min_rows": RowLimit,
    "max_rows": RowLimit,
    "rows_vs_previous": RowsVsPrevious,
    "newest": Newest,
    "sql": Condition,
    "distribution": Distribution,
    "groups_stay_together": GroupsStayTogether,
    "no_duplicates_across_splits": NoDuplicatesAcrossSplits,
    "max_target_leakage": TargetLeakage,
}
"""Every rule of the YAML."""


def check_table(
    connection: DuckDBPyConnection,
    assumptions: Sequence[Assumption],
    table: Path | Sequence[Path],
    columns: Mapping[str, str],
    *,
    order: str,
    shown: Sequence[str],
    context: CheckContext | None = None,
    relation: str | None = None,
) -> list[Finding]:
    """Hold the assumptions against a Parquet file, or several.

    :param connection: its time zone must be UTC; relative paths of files that rules name are found by its
        ``file_search_path``.
    :param table: the file or files.
    :param columns: Arrow type of each column.
    :param order: column that gives its rows an order.
    :param shown: columns that tell a person which row it is.
    :param context: what rules may need to know beside the rows.
    :param relation: what stands behind FROM, when the rows have more columns than the files.
    :return: a finding for each assumption, in their order.
    :raises SpecError: a rule's value does not fit its column.
    :raises SourceError: a file that a rule names cannot be read.
    """
    rules = [_as_named(rule, columns) for rule in assumptions]
    distinct = next(
        (rule for rule in rules if rule.check == "unique" and _unknown(rule, columns) is None), None
    )
    files = (table,) if isinstance(table, Path) else tuple(table)
    source = relation or parquet(tuple(map(str, files)))
    rows = Table(source, columns, order, context or CheckContext(), files, distinct)
    # Parquet's statistics leave NaN out, and DuckDB believes them: a column with NaN would be within bounds.
    connection.execute("SET disabled_optimizers='statistics_propagation,filter_pushdown'")
    try:
        return _check(connection, rules, rows, shown)
    finally:
        connection.execute("RESET disabled_optimizers")


def _check(
    connection: DuckDBPyConnection, rules: Sequence[Assumption], rows: Table, shown: Sequence[str]
) -> list[Finding]:
    import duckdb

    try:
        observed = _observed(connection, rules, rows)
        findings = [_find(connection, rule, rows, observed, f"a{n}") for n, rule in enumerate(rules)]
    except (
        duckdb.BinderException,
        duckdb.CatalogException,
        duckdb.ConversionException,
        duckdb.InvalidInputException,
        duckdb.OutOfRangeException,
    ) as error:
        raise _blame(connection, rules, rows, error) from error
    query = compile_examples(findings, rows, shown)
    examples: dict[int, list[dict[str, Any]]] = {}
    for number, row in connection.execute(query).fetchall() if query else ():
        examples.setdefault(number, []).append(json.loads(row, parse_constant=str))
    return [replace(finding, examples=tuple(examples.get(n, ()))) for n, finding in enumerate(findings)]


def _observed(connection: DuckDBPyConnection, rules: Sequence[Assumption], table: Table) -> dict[str, Any]:
    observed: dict[str, Any] = {}
    for number, some in enumerate(batches(rules, _RULES_A_QUERY)):
        observed |= _row(connection, compile_check(some, table, number * _RULES_A_QUERY))
    return observed or _row(connection, compile_check((), table))


def _kind(rule: Assumption, table: Table, rows: int = 0) -> Kind:
    if rule.check in _OF_VALUES and table.columns.get(rule.columns[0]) == "null":
        return Valueless(rule, table, rows)
    return KINDS[rule.check](rule, table, rows)


def compile_check(assumptions: Sequence[Assumption], table: Table, first: int = 0) -> str:
    """One aggregate query that observes some assumptions, in columns ``a0_0`` …, and the rows as ``n``.

    :param first: number of the first of them.
    """
    measures = ["count(*) AS n"]
    for number, rule in enumerate(assumptions, first):
        if _obstacle(rule, table) is not None:
            continue
        kind = _kind(rule, table)
        if rule.where:
            measures.append(f"count(*) FILTER (WHERE {kind.within()}) AS a{number}_n")
        found = kind.measures()
        measures += [f"{measure} AS a{number}_{n}" for n, measure in enumerate(found)]
    return f"SELECT {', '.join(measures)} FROM {table.relation}"


def compile_examples(findings: Sequence[Finding], table: Table, shown: Sequence[str]) -> str | None:
    """One query for up to five rows of every failed finding: its number and the row as JSON.

    :param shown: columns to show beside those of the rule.
    :return: ``None`` when no failed finding is about rows.
    """
    parts = []
    for number, finding in enumerate(findings):
        rule = finding.assumption
        kind = _kind(rule, table)
        broken = None if finding.passed or not finding.failing else kind.broken()
        if broken is None:
            continue
        names = dict.fromkeys([*shown, *kind.columns(), *rule.where_columns])
        row = ", ".join(f"{literal(name)}: {identifier(name)}" for name in names)
        order = identifier(table.order)
        parts.append(
            f"(SELECT {number} AS finding, {order} AS position, to_json({{{row}}})::VARCHAR AS row "
            f"FROM ({broken}) ORDER BY {order} LIMIT {EXAMPLES})"
        )
    if not parts:
        return None
    return f"SELECT finding, row FROM ({' UNION ALL '.join(parts)}) ORDER BY finding, position"


def _find(
    connection: DuckDBPyConnection, rule: Assumption, table: Table, observed: Mapping[str, Any], name: str
) -> Finding:
    obstacle = _obstacle(rule, table)
    if obstacle is not None:
        return not_checked(rule, obstacle)
    kind = _kind(rule, table, int(observed.get(f"{name}_n", observed["n"])))
    kind = replace(kind, seen=[observed[f"{name}_{n}"] for n in range(len(kind.measures()))])
    return replace(kind, seen=kind.observe(connection)).judge()


def _row(connection: DuckDBPyConnection, query: str) -> dict[str, Any]:
    row = connection.execute(query).fetchone() or ()
    return dict(zip((column[0] for column in connection.description or ()), row, strict=True))


def _as_named(rule: Assumption, columns: Mapping[str, str]) -> Assumption:
    """Conditions in SQL may write columns in any case."""
    if rule.check != "sql" and not rule.where_columns:
        return rule
    proper = {name.lower(): name for name in columns}

    def named(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(proper.get(name.lower(), name) for name in names))

    about = named(rule.columns) if rule.check == "sql" else rule.columns
    return replace(rule, columns=about, where_columns=named(rule.where_columns))


def _unknown(rule: Assumption, columns: Mapping[str, str]) -> str | None:
    return next((name for name in (*rule.columns, *rule.where_columns) if name not in columns), None)


def _obstacle(rule: Assumption, table: Table) -> str | None:
    """Why a rule cannot be checked: a column is not there, or something else that it needs."""
    if unknown := _unknown(rule, table.columns):
        near = difflib.get_close_matches(unknown, table.columns, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {few(list(table.columns))}"
        return f"no column {unknown!r}{hint}"
    return _kind(rule, table).lacking()


def _blame(
    connection: DuckDBPyConnection, rules: Sequence[Assumption], table: Table, error: Exception
) -> SpecError:
    """The error again, with the rule that it comes from."""
    import duckdb

    for rule, alone in _each(rules, table):
        try:
            _find(connection, rule, alone, _row(connection, compile_check([rule], alone)), "a0")
        except duckdb.Error as own:
            about = f" of {', '.join(rule.columns)}" if rule.columns else ""
            types = ", ".join(
                dict.fromkeys(table.columns[name] for name in rule.columns if name in table.columns)
            )
            what = str(own).strip().splitlines()[0]
            return SpecError(
                f"assumption {rule.check}{about} ({rule.expected}) does not fit the type of its column"
                f"{f' ({types})' if types else ''}: {what}"
            )
    return SpecError(f"assumptions: a value does not fit the type of its column: {error}")


def _each(rules: Sequence[Assumption], table: Table) -> Iterator[tuple[Assumption, Table]]:
    for rule in rules:
        yield rule, replace(table, distinct=rule)
