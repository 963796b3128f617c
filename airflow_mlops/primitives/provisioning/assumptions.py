"""Stated assumptions about data: all rules in one query, failing rows by a second one."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.sql import identifier, literal, parquet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

__all__ = [
    "Assumption",
    "Finding",
    "compile_check",
    "compile_examples",
    "judge",
    "parse_assumptions",
    "summary",
]

Severity = Literal["fail", "warn"]

EXAMPLES = 5
PRINTED = 10
_COLUMN_CHECKS = ("not_null", "max_null_share", "between", "one_of", "type")
_TABLE_CHECKS = ("unique", "min_rows")
_TYPES = {
    "float64": "double",
    "float": "float32",
    "real": "float32",
    "bigint": "int64",
    "integer": "int32",
    "int": "int32",
    "smallint": "int16",
    "tinyint": "int8",
    "varchar": "string",
    "text": "string",
    "str": "string",
    "large_string": "string",
    "boolean": "bool",
    "date32[day]": "date",
    "timestamp[us]": "timestamp",
    "timestamp[us, tz=utc]": "timestamptz",
}


@dataclass(frozen=True)
class Assumption:
    """One check of one rule.

    :param check: ``not_null``, ``max_null_share``, ``between``, ``one_of``, ``type``, ``unique`` or
        ``min_rows``.
    :param value: what the rule says to it.
    :param columns: the columns it is about; none for ``min_rows``.
    :param severity: ``fail`` stops the dataset, ``warn`` is recorded.
    """

    check: str
    value: Any
    columns: tuple[str, ...] = ()
    severity: Severity = "fail"

    @property
    def expected(self) -> str:
        """The assumption in words."""
        words = {
            "not_null": "no null",
            "max_null_share": f"nulls ≤ {self.value}",
            "between": f"between {self.value[0]} and {self.value[1]}" if self.check == "between" else "",
            "one_of": f"one of {_few(self.value)}" if self.check == "one_of" else "",
            "type": f"type {self.value}",
            "unique": "each value once",
            "min_rows": f"rows ≥ {self.value}",
        }
        return words[self.check]


@dataclass(frozen=True)
class Finding:
    """What came of one assumption.

    :param assumption: the assumption.
    :param passed: whether it holds.
    :param observed: what was seen instead or nevertheless, in words.
    :param failing: how many rows break it; ``None`` where rows are not the measure.
    :param examples: up to five of them.
    """

    assumption: Assumption
    passed: bool
    observed: str
    failing: int | None = None
    examples: tuple[Mapping[str, Any], ...] = ()

    def to_json(self, *, examples: bool = True) -> dict[str, Any]:
        """The finding as JSON values."""
        rule = self.assumption
        found: dict[str, Any] = {
            "rule": rule.check,
            "column": ", ".join(rule.columns) or None,
            "severity": rule.severity,
            "expected": rule.expected,
            "observed": self.observed,
            "passed": self.passed,
            "failing_rows": self.failing,
        }
        return {**found, "examples": [dict(row) for row in self.examples]} if examples else found

    def __str__(self) -> str:
        rule = self.assumption
        about = f"{', '.join(rule.columns)}: " if rule.columns else ""
        rows = f" e.g. {dict(self.examples[0])}" if self.examples else ""
        return f"{about}expected {rule.expected}, observed {self.observed}{rows}"


def parse_assumptions(rules: Sequence[Mapping[str, Any]]) -> tuple[Assumption, ...]:
    """Rules as a YAML file states them; one rule may hold several checks of its column.

    :raises SpecError: a rule says something that is no check.
    """
    found: list[Assumption] = []
    for number, rule in enumerate(rules, 1):
        checks = [key for key in rule if key not in ("column", "severity")]
        known = _COLUMN_CHECKS if "column" in rule else _TABLE_CHECKS
        severity = rule.get("severity", "fail")
        unknown = [key for key in checks if key not in known]
        if unknown or not checks or severity not in ("fail", "warn"):
            raise SpecError(
                f"assumption {number} ({dict(rule)}): expected severity fail or warn, and one or more of "
                f"{', '.join(known)}" + ("" if "column" in rule else ", or a column")
            )
        for check in checks:
            value = rule[check]
            if check == "not_null" and value is False:
                continue
            _check_value(number, check, value)
            columns = (
                tuple(value) if check == "unique" else (str(rule["column"]),) if "column" in rule else ()
            )
            found.append(Assumption(check, value, columns, cast("Severity", severity)))
    return tuple(found)


def compile_check(assumptions: Sequence[Assumption], relation: str, columns: Mapping[str, str]) -> str:
    """One aggregate query that observes every assumption, in columns ``a0``, ``a1`` …, and the rows as ``n``.

    :param relation: what stands behind FROM.
    :param columns: Arrow type of each column of it.
    """
    measures = ["count(*) AS n"]
    for number, rule in enumerate(assumptions):
        if _unknown(rule, columns) or rule.check in ("type", "min_rows"):
            continue
        if rule.check == "unique":
            key = _key(rule)
            measures.append(f"count(*) - count(DISTINCT {key}) AS a{number}")
            continue
        measures.append(f"count(*) FILTER (WHERE {_broken(rule)}) AS a{number}")
        if rule.check == "between":
            name = identifier(rule.columns[0])
            measures += [
                f"min({name})::VARCHAR AS a{number}_min",
                f"max({name})::VARCHAR AS a{number}_max",
            ]
    return f"SELECT {', '.join(measures)} FROM {relation}"


def judge(
    assumptions: Sequence[Assumption], observed: Mapping[str, Any], columns: Mapping[str, str]
) -> list[Finding]:
    """Decide every assumption from the one row that :func:`compile_check` gave."""
    rows = int(observed["n"])
    findings = []
    for number, rule in enumerate(assumptions):
        if unknown := _unknown(rule, columns):
            near = difflib.get_close_matches(unknown, columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {_few(list(columns))}"
            # A rule about nothing must not pass as a warning for ever.
            findings.append(Finding(replace(rule, severity="fail"), False, f"no column {unknown!r}{hint}"))
        elif rule.check == "type":
            found = columns[rule.columns[0]]
            findings.append(Finding(rule, _same_type(found, str(rule.value)), f"type {found}"))
        elif rule.check == "min_rows":
            findings.append(Finding(rule, rows >= rule.value, f"{rows} rows"))
        else:
            findings.append(_judge_rows(rule, int(observed[f"a{number}"]), rows, observed, f"a{number}"))
    return findings


def compile_examples(
    findings: Sequence[Finding], relation: str, order: str, shown: Sequence[str]
) -> str | None:
    """One query for up to five rows of every failed finding: its number and the row as JSON.

    :param order: column that gives rows an order, so that the same data shows the same rows.
    :param shown: columns to show beside those of the rule.
    :return: ``None`` when no failed finding is about rows.
    """
    parts = []
    for number, finding in enumerate(findings):
        rule = finding.assumption
        if finding.passed or not finding.failing:
            continue
        names = list(dict.fromkeys([*shown, *rule.columns]))
        row = ", ".join(f"{literal(name)}: {identifier(name)}" for name in names)
        if rule.check == "unique":
            key = _key(rule)
            which = f"QUALIFY count(*) OVER (PARTITION BY {key}) > 1"
        else:
            which = f"WHERE {_broken(rule)}"
        parts.append(
            f"(SELECT {number} AS finding, {identifier(order)} AS position, to_json({{{row}}})::VARCHAR AS row "
            f"FROM {relation} {which} ORDER BY {identifier(order)} LIMIT {EXAMPLES})"
        )
    if not parts:
        return None
    return f"SELECT finding, row FROM ({' UNION ALL '.join(parts)}) ORDER BY finding, position"


def check_table(
    connection: DuckDBPyConnection,
    assumptions: Sequence[Assumption],
    table: Path,
    columns: Mapping[str, str],
    *,
    order: str,
    shown: Sequence[str],
) -> list[Finding]:
    """Hold the assumptions against a Parquet file.

    :param columns: Arrow type of each of its columns.
    :param order: column that gives its rows an order.
    :param shown: columns that tell a person which row it is.
    :raises SpecError: a rule's value does not fit its column.
    """
    import duckdb

    relation = parquet((str(table),))
    try:
        observed = connection.execute(compile_check(assumptions, relation, columns)).fetchone() or ()
    except (duckdb.ConversionException, duckdb.BinderException) as error:
        raise SpecError(f"assumptions: a value does not fit the type of its column: {error}") from error
    names = [column[0] for column in connection.description or ()]
    findings = judge(assumptions, dict(zip(names, observed, strict=True)), columns)
    query = compile_examples(findings, relation, order, shown)
    rows: dict[int, list[dict[str, Any]]] = {}
    for number, row in connection.execute(query).fetchall() if query else ():
        rows.setdefault(number, []).append(json.loads(row, parse_constant=str))
    return [replace(finding, examples=tuple(rows.get(n, ()))) for n, finding in enumerate(findings)]


def summary(findings: Sequence[Finding]) -> str:
    """The failed findings in words, at most ten."""
    failed = [finding for finding in findings if not finding.passed]
    lines = [f"  {finding}" for finding in failed[:PRINTED]]
    if len(failed) > PRINTED:
        lines.append(f"  … and {len(failed) - PRINTED} more")
    return "\n".join(lines)


def _judge_rows(
    rule: Assumption, failing: int, rows: int, observed: Mapping[str, Any], measure: str
) -> Finding:
    share = failing / rows if rows else 0.0
    if rule.check == "max_null_share":
        passed = share <= rule.value
        return Finding(rule, passed, f"{failing} of {rows} rows null ({share:.6g})", failing)
    seen = f"{failing} of {rows} rows"
    if rule.check == "between":
        seen += f" outside; values from {observed[f'{measure}_min']} to {observed[f'{measure}_max']}"
    elif rule.check == "unique":
        seen += " repeat another"
    elif rule.check == "not_null":
        seen += " null"
    else:
        seen += " have another value"
    return Finding(rule, failing == 0, seen, failing)


def _broken(rule: Assumption) -> str:
    """Condition that holds for the rows which break the rule; nulls only break ``not_null`` and its kin."""
    name = identifier(rule.columns[0])
    if rule.check in ("not_null", "max_null_share"):
        return f"{name} IS NULL"
    if rule.check == "one_of":
        return f"{name} IS NOT NULL AND {name} NOT IN ({', '.join(literal(value) for value in rule.value)})"
    low, high = rule.value
    bounds = [f"{name} < {literal(low)}"] if low is not None else []
    bounds += [f"{name} > {literal(high)}"] if high is not None else []
    return f"({' OR '.join(bounds) or 'FALSE'})"


def _key(rule: Assumption) -> str:
    # A struct, even of one column: DISTINCT leaves out plain nulls, but not a struct that holds one.
    return f"struct_pack({', '.join(f'k{n} := {identifier(name)}' for n, name in enumerate(rule.columns))})"


def _unknown(rule: Assumption, columns: Mapping[str, str]) -> str | None:
    return next((name for name in rule.columns if name not in columns), None)


def _same_type(found: str, asked: str) -> bool:
    found, asked = found.lower(), asked.lower()
    return _TYPES.get(found, found) == _TYPES.get(asked, asked)


def _check_value(number: int, check: str, value: Any) -> None:
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    listed = isinstance(value, (list, tuple)) and len(value) > 0
    fits = {
        "not_null": value is True,
        "max_null_share": numeric and 0 <= value <= 1,
        "between": listed and len(value) == 2,
        "one_of": listed,
        "type": isinstance(value, str),
        "unique": listed and all(isinstance(name, str) for name in value),
        "min_rows": isinstance(value, int) and numeric and value >= 0,
    }
    if not fits[check]:
        raise SpecError(f"assumption {number}: {check} cannot be {value!r}")


def _few(values: Sequence[Any]) -> str:
    shown = ", ".join(str(value) for value in values[:12])
    return shown if len(values) <= 12 else f"{shown}, … ({len(values)} in all)"
