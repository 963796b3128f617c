"""The last part of making a dataset version, whatever gave its rows: divide, check, cut."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import AssumptionError, DataError
from airflow_mlops.primitives.assumptions import (
    CheckContext,
    DistributionTest,
    check_table,
    failed,
    known_when_asked,
    of_predictions,
    summary,
    warned,
)
from airflow_mlops.primitives.datasets.digest import logical_digest
from airflow_mlops.primitives.datasets.examples import ROW
from airflow_mlops.primitives.datasets.making.chunks import BATCH, SPLIT, Rows, divided, write_chunks
from airflow_mlops.primitives.datasets.manifest import Column
from airflow_mlops.primitives.datasets.splits.assign import Assignment, Frozen, assign, whole
from airflow_mlops.primitives.datasets.splits.rule import SPLITS
from airflow_mlops.primitives.sql.present import present_sql
from airflow_mlops.primitives.sql.words import identifier, literal, parquet
from airflow_mlops.primitives.statistics.coding import binary_sql, is_binary

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.assumptions import Assumption, Finding
    from airflow_mlops.primitives.datasets.manifest import Manifest, Role
    from airflow_mlops.primitives.datasets.splits.rule import SplitRule

__all__ = ["Division", "Facts", "JoinedRows", "Tail", "finish", "open_frozen"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facts:
    """What is known beside the request.

    :param now: the clock's time.
    :param previous_rows: rows of the line's earlier versions, newest first.
    :param distribution: compares the rows with another dataset version.
    :param frozen: files with the test examples of the version that the split freezes.
    """

    now: datetime | None = None
    previous_rows: tuple[int, ...] = ()
    distribution: DistributionTest | None = None
    frozen: tuple[Path, ...] = ()


@dataclass(frozen=True)
class JoinedRows:
    """All rows of a dataset, not yet divided.

    :param rows: where they are.
    :param roles: role of each column, in order.
    :param count: how many they are.
    :param references: ``view:feature`` by feature.
    :param views: what was joined, as JSON values.
    :param semantics: name of the rules of the join.
    :param pins: the files behind the features.
    :param options: settings of the join that decide about values.
    """

    rows: Rows
    roles: Mapping[str, Role]
    count: int
    references: Mapping[str, str] = field(default_factory=dict)
    views: tuple[Mapping[str, Any], ...] = ()
    semantics: str = ""
    pins: tuple[Mapping[str, Any], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def named(self, *roles: Role) -> tuple[str, ...]:
        """Columns with one of these roles, in order."""
        return tuple(name for name, role in self.roles.items() if role in roles)


@dataclass(frozen=True)
class Division:
    """How rows shall be divided and what they must keep.

    :param application: whose they are, for messages.
    :param name: name of the one split, where there is no rule.
    """

    application: str
    rule: SplitRule | None = None
    assumptions: tuple[Assumption, ...] = ()
    name: str = "train"


@dataclass(frozen=True)
class Tail:
    """The whole manifest, the files of new chunks by digest, and what came of each assumption."""

    manifest: Manifest
    files: Mapping[str, Path]
    findings: tuple[Finding, ...]


def finish(
    connection: DuckDBPyConnection,
    manifest: Manifest,
    joined: JoinedRows,
    division: Division,
    scratch: Path,
    is_stored: Callable[[str], bool],
    facts: Facts,
) -> Tail:
    """Divide the rows, check them, and write the files that are new.

    :param manifest: all of it but columns, chunks, split and assumptions.
    :raises AssumptionError: an assumption does not hold; it carries all findings.
    :raises DataError: a split would be empty.
    :raises SpecError: the split names a column that is not there.
    """
    (timestamp,) = joined.named("timestamp")
    keys = joined.named("key")
    assignment = _divide(connection, joined, division.rule, division.name, facts.frozen)
    kept = _refuse_empty(connection, division.rule, joined, assignment)
    query = divided(joined.rows, joined.roles, timestamp, assignment)
    connection.execute(f"CREATE OR REPLACE TEMP VIEW _divided AS {query}")
    types = {
        field.name: str(field.type)
        for field in connection.execute("FROM _divided LIMIT 0").to_arrow_table().schema
    }
    rules = division.assumptions
    if manifest.purpose == "prediction":
        asked = manifest.examples
        rules = of_predictions(rules, [*asked.get("targets", ()), asked.get("targets_known_at") or ""])
    findings = check_table(
        connection,
        rules,
        _files(connection, rules, scratch),
        types,
        order=ROW,
        shown=[*keys, timestamp],
        relation="_divided",
        context=CheckContext(
            timestamp=timestamp,
            keys=keys,
            targets=joined.named("target"),
            split=SPLIT,
            features=joined.named("input", "feature"),
            moment=datetime.fromisoformat(manifest.window[1]),
            now=facts.now,
            previous_rows=facts.previous_rows,
            distribution=facts.distribution,
        ),
    )
    for known_at in joined.named("known_at"):
        doubt = known_when_asked(connection, "_divided", known_at, timestamp)
        findings += [doubt] if doubt else []
    _judge(division.application, manifest.window, findings, joined.count)
    for target in joined.named("target"):
        _say_coding(connection, joined.rows.examples, target, types[target])
    batches = connection.execute(f"FROM _divided ORDER BY {ROW}").to_arrow_reader(BATCH)
    chunks, files = write_chunks(batches, assignment, timestamp, scratch, is_stored)
    if (rows := sum(chunk.rows for chunk in chunks)) != kept:
        raise DataError(f"{rows} row(s) were written of {kept}: the sources changed meanwhile. Try again")
    whole_manifest = replace(
        manifest,
        columns=tuple(
            Column(name, types[name], role, joined.references.get(name))
            for name, role in joined.roles.items()
        ),
        chunks=chunks,
        split={**assignment.facts, "dropped": joined.count - kept},
        assumptions=tuple(found.to_json(examples=False) for found in findings if not found.volatile),
    )
    return Tail(whole_manifest, files, tuple(findings))


def _divide(
    connection: DuckDBPyConnection,
    joined: JoinedRows,
    rule: SplitRule | None,
    name: str,
    frozen: tuple[Path, ...],
) -> Assignment:
    if rule is None:
        return whole(name)
    (timestamp,) = joined.named("timestamp")
    keys = joined.named("key")
    described = connection.execute(f"DESCRIBE SELECT * FROM {joined.rows.examples}").fetchall()
    types = {str(row[0]): str(row[1]) for row in described if row[0] in joined.roles}
    return assign(
        connection,
        joined.rows.examples,
        rule,
        row=ROW,
        timestamp=timestamp,
        types=types,
        keys=keys,
        frozen=open_frozen(connection, frozen, keys, timestamp) if rule.freeze else None,
    )


def open_frozen(
    connection: DuckDBPyConnection, files: tuple[Path, ...], keys: tuple[str, ...], timestamp: str
) -> Frozen:
    """Make frozen test examples a table ``_frozen`` of their keys and ``__time``; its digest tells them apart."""
    names = ", ".join(identifier(name) for name in keys)
    source = parquet(tuple(str(path) for path in files))
    connection.execute(
        f"CREATE TEMP TABLE _frozen AS SELECT {names}, {identifier(timestamp)}::TIMESTAMPTZ AS __time FROM {source}"
    )
    table = connection.execute(f"SELECT * FROM _frozen ORDER BY __time, {names}").to_arrow_table()
    return Frozen("_frozen", logical_digest(table), table.num_rows)


def _refuse_empty(
    connection: DuckDBPyConnection, rule: SplitRule | None, joined: JoinedRows, assignment: Assignment
) -> int:
    """Number of rows that are in a split, after a look at every split and fold."""
    counted = connection.execute(
        f"SELECT {assignment.named} AS s, ({assignment.fold})::INTEGER AS f, count(*) "
        f"FROM {assignment.alone or f'{joined.rows.examples} e {assignment.join}'} GROUP BY s, f"
    ).fetchall()
    sizes: Counter[str] = Counter()
    folds: Counter[int | None] = Counter()
    for split, fold, rows in counted:
        sizes[split] += rows
        folds[fold] += rows if split == "train" else 0
    kept = sum(rows for split, rows in sizes.items() if split is not None)
    if rule is None:
        return kept
    asked = rule.words
    given = ", ".join(f"{sizes[name]} {name}" for name in SPLITS if sizes[name]) or "nothing"
    for name in rule.names:
        if not sizes[name]:
            raise DataError(
                f"split {name!r} would be empty: {joined.count} example(s) divided {asked} give {given}; widen "
                "the window, shrink the gap, or give the split a larger share"
            )
    for fold in range(1, rule.folds + 1):
        if not folds[fold]:
            raise DataError(
                f"fold {fold} of {rule.folds} would be empty: train has {sizes['train']} example(s), divided "
                f"{asked}; ask for fewer folds, or widen the window"
            )
    return kept


def _files(connection: DuckDBPyConnection, rules: Sequence[Assumption], scratch: Path) -> list[Path]:
    """A file of the rows, for the rules that must read one."""
    if not any(rule.check == "distribution" for rule in rules):
        return []
    file = scratch / "dataset.parquet"
    connection.execute(f"COPY (FROM _divided) TO {literal(str(file))} (FORMAT parquet, COMPRESSION lz4_raw)")
    return [file]


def _say_coding(connection: DuckDBPyConnection, relation: str, target: str, type_: str) -> None:
    """Warn of a target of two values other than 0 and 1, which no probability can be held against."""
    name = identifier(target)
    found = connection.execute(
        f"SELECT DISTINCT {name} FROM {relation} WHERE {present_sql(name, type_)} LIMIT 3"
    ).fetchall()
    values = [value for (value,) in found]
    if len(values) == 2 and not is_binary(values):
        log.warning(
            "The target %s has the values %s. Where the model predicts probabilities, it must be the number 0 or 1. In "
            "the examples' SQL: %s",
            target,
            " and ".join(sorted(map(repr, values))),
            binary_sql(target, values),
        )


def _judge(application: str, window: tuple[str, str], findings: list[Finding], rows: int) -> None:
    """Warn of what may be, and stop at what may not."""
    if doubtful := warned(findings):
        log.warning("%d assumption(s) do not hold:\n%s", len(doubtful), summary(doubtful))
    if broken := failed(findings):
        after, until = window
        raise AssumptionError(
            f"{len(broken)} of {len(findings)} assumption(s) about the data of {application!r} do not "
            f"hold ({rows} rows after {after} up to {until}):\n{summary(broken)}\nNothing was published.",
            [found.to_json() for found in findings],
        )
