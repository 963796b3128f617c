r"""Which split and which fold each example belongs to, decided in DuckDB.

The hash is a published one, so that any language can repeat it: the first eight hexadecimal digits of
``sha256(seed + ":" + key)`` as a number, modulo 10000; an example is in train below ``10000 * train``, in
validation below ``10000 * (train + validation)``, else in test. Folds take ``sha256(seed + ":fold:" + key)``
modulo their number. The text of a key is decimal for whole numbers, ``true`` or ``false``, microseconds since
1970 UTC for times, ``YYYY-MM-DD`` for dates, UTF-8 text as it is, and ``\\N`` for null; several columns are
joined by the control character U+001F.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import DataError, SpecError
from airflow_mlops.primitives.datasets.splits.rule import SPLITS, iso
from airflow_mlops.primitives.sql.present import is_float
from airflow_mlops.primitives.sql.spelling import Spellings
from airflow_mlops.primitives.sql.words import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.datasets.splits.rule import SplitRule

__all__ = ["BUCKETS", "Assignment", "Frozen", "assign", "bucket_sql", "key_text", "whole"]

BUCKETS = 10_000
_TRAIN, _VALIDATION, _TEST = range(3)
_WHOLE_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_AS_TEXT = ("VARCHAR", "UUID", "ENUM", "DATE", "BOOLEAN", "DECIMAL")


@dataclass(frozen=True)
class Frozen:
    """Test examples of an earlier version.

    :param relation: what stands behind FROM: their keys and times, under the names of the new examples.
    :param digest: logical digest of that relation in order of time and keys.
    :param rows: how many they are.
    """

    relation: str
    digest: str
    rows: int


@dataclass(frozen=True)
class Assignment:
    """The split and the fold of each example, as SQL.

    :param split: number of the split in :data:`~.split.SPLITS`, or null for an example that is left out.
    :param fold: number of the fold, or null.
    :param join: what to put behind the examples ``e`` for both.
    :param alone: what stands behind FROM to have both of every example without the examples, if they are in a table.
    :param in_order: whether the splits follow each other in time, so that rows need no other order.
    :param segment: a number that changes wherever rows of one split and fold are interrupted, if ``in_order``.
    :param facts: rule and outcome as JSON values.
    :param name: the one split, when there is no rule.
    """

    split: str
    fold: str = "NULL"
    join: str = ""
    alone: str | None = None
    in_order: bool = True
    segment: str = "0"
    facts: dict[str, Any] = field(default_factory=dict)
    name: str | None = None

    @property
    def named(self) -> str:
        """The split's name as SQL, null for an example that is left out."""
        if self.name is not None:
            return literal(self.name)
        cases = " ".join(f"WHEN {number} THEN {literal(name)}" for number, name in enumerate(SPLITS))
        return f"CASE {self.split} {cases} END"


@dataclass(frozen=True)
class _Table:
    """Numbered examples, called ``e``: ``relation`` has ``row`` (a number), the time and the columns.

    :param time: the time as SQL of type TIMESTAMPTZ.
    """

    connection: DuckDBPyConnection
    relation: str
    row: str
    time: str

    def one(self, sql: str) -> tuple[Any, ...]:
        found: tuple[Any, ...] | None = self.connection.execute(sql).fetchone()
        return found or ()


def whole(name: str) -> Assignment:
    """All rows in one split."""
    facts = {"by": None, "bounds": {name: [None, None]}}
    return Assignment(split="0", facts=facts, name=name)


def assign(
    connection: DuckDBPyConnection,
    relation: str,
    rule: SplitRule,
    *,
    row: str,
    timestamp: str,
    types: Mapping[str, str],
    keys: Sequence[str],
    frozen: Frozen | None = None,
) -> Assignment:
    """Decide for each example.

    :param relation: what stands behind FROM, before ``e``: examples numbered by time and keys from 0.
    :param row: quoted name of the number.
    :param timestamp: column of the time.
    :param types: DuckDB type of each column.
    :param keys: the examples' keys.
    :param frozen: the test examples of the version that the rule freezes.
    :raises SpecError: a column is missing or of a type that cannot be hashed.
    :raises DataError: there are too few different times or values.
    """
    table = _Table(connection, relation, row, f"e.{identifier(timestamp)}::TIMESTAMPTZ")
    if missing := [name for name in rule.columns if name not in types]:
        raise SpecError(
            f"split: no column {', '.join(missing)} among the examples; they have {', '.join(types)}. "
            "A split knows only columns that the examples bring along, no features"
        )
    if rule.by == "time":
        return _by_time(table, rule) if frozen is None else _by_time_frozen(table, rule, keys, frozen)
    return _by_value(table, rule, types, keys, frozen)


def key_text(columns: Sequence[str], types: Mapping[str, str]) -> str:
    """The text of a key as SQL.

    :raises SpecError: a column's type has no one text in all languages.
    """
    parts = [f"coalesce({_text(name, types[name])}, '\\N')" for name in columns]
    return " || chr(31) || ".join(parts)


def bucket_sql(text: str, prefix: str, buckets: int) -> str:
    """The number of the bucket of a key, as SQL.

    :param text: the key's text as SQL.
    :param prefix: what stands before it, such as ``7:``.
    """
    return f"('0x' || substr(sha256({literal(prefix)} || {text}), 1, 8))::BIGINT % {buckets}"


# By time ------------------------------------------------------------------------------------------


def _by_time(table: _Table, rule: SplitRule) -> Assignment:
    """The oldest train; bounds lie between two times, where the rows come nearest to the shares."""
    total = int(table.one(f"SELECT count(*) FROM {table.relation} e")[0])
    gap = int(rule.gap.total_seconds() * 1_000_000)
    names = [name for name in SPLITS if rule.shares.get(name)]
    asked, after, cases, bounds = 0.0, None, [], {}
    for name in names:
        asked += rule.shares[name]
        until = None if name == names[-1] else _bound(table, asked * total, total)
        bounds[name] = [None if at is None else iso(at) for at in (after, until)]
        cases.append(f"WHEN {_between(table.time, after, until)} THEN {SPLITS.index(name)}")
        after = None if until is None else until + gap
    split = f"CASE {' '.join(cases)} END"
    facts = {**rule.to_json(), "bounds": bounds}
    if not rule.folds:
        return Assignment(split, facts=facts)
    fold, segment, origins = _rolling(table, rule, split, gap)
    return Assignment(split, fold=fold, segment=segment, facts={**facts, "origins": origins})


def _rolling(table: _Table, rule: SplitRule, split: str, gap: int) -> tuple[str, str, list[str]]:
    """Fold 0 is only learnt from; fold i is judged by a model that learnt from all before it."""
    total = int(table.one(f"SELECT count(*) FROM {table.relation} e WHERE ({split}) = 0")[0])
    ends = [_bound(table, total * n / (rule.folds + 1), total) for n in range(1, rule.folds + 1)]
    if not total or len(set(ends)) < rule.folds:
        raise DataError(
            f"split: {rule.folds} folds need more different times than the {total} example(s) of train have; "
            "ask for fewer folds or a longer window"
        )
    afters = [None, *(end + gap for end in ends)]
    folds = [
        f"WHEN {_between(table.time, after, until)} THEN {n}"
        for n, (after, until) in enumerate(zip(afters, [*ends, None], strict=True))
    ]
    segments = [f"WHEN {_between(table.time, None, end)} THEN {n}" for n, end in enumerate(ends)]
    fold = f"CASE WHEN ({split}) = 0 THEN CASE {' '.join(folds)} END END"
    return fold, f"CASE {' '.join(segments)} ELSE {rule.folds} END", [iso(end) for end in ends]


def _bound(table: _Table, rows: float, total: int) -> int:
    """The time up to which the number of examples is nearest to ``rows``; the earlier of equals."""
    at = f"SELECT epoch_us({table.time}) FROM {table.relation} e WHERE {table.row} = {min(int(rows), total - 1)}"
    found = table.one(at)
    if not found:
        return 0
    moment = int(found[0])
    before, upto, earlier = table.one(
        f"SELECT count(*) FILTER (WHERE t < {moment}), count(*), max(t) FILTER (WHERE t < {moment}) "
        f"FROM (SELECT epoch_us({table.time}) AS t FROM {table.relation} e) WHERE t <= {moment}"
    )
    # Only rows below ``total`` count: those of train, when its folds are cut.
    nearer = before and rows - before <= upto - rows
    return int(earlier) if nearer else moment


def _between(time: str, after: int | None, until: int | None) -> str:
    parts = [f"{time} > make_timestamptz({after})"] if after is not None else []
    parts += [f"{time} <= make_timestamptz({until})"] if until is not None else []
    return " AND ".join(parts) or "TRUE"


def _by_time_frozen(table: _Table, rule: SplitRule, keys: Sequence[str], frozen: Frozen) -> Assignment:
    """The frozen test stays; the rest is divided by time, but for the examples around that test."""
    connection, gap = table.connection, int(rule.gap.total_seconds() * 1_000_000)
    facts = _mark_frozen(table, keys, frozen)
    connection.execute(
        f"CREATE TEMP TABLE _assigned AS SELECT {table.row} AS _row, {_TEST} AS _split, NULL::INTEGER AS _fold "
        f"FROM {table.relation} e WHERE {table.row} IN (FROM _frozen_rows)"
    )
    first, last = table.one(
        f"SELECT min(epoch_us({table.time})) - {gap}, max(epoch_us({table.time})) + {gap} "
        f"FROM {table.relation} e WHERE {table.row} IN (FROM _frozen_rows)"
    )
    apart = f"NOT ({_between(table.time, first - 1, last)})"
    connection.execute(
        f"CREATE TEMP TABLE _free AS SELECT row_number() OVER (ORDER BY {table.row}) - 1 AS _rank, "
        f"{table.row} AS _row, {table.time} AS _time FROM {table.relation} e WHERE {apart}"
    )
    others = {name: rule.shares.get(name, 0.0) for name in ("train", "validation")}
    shares = {name: share / sum(others.values()) for name, share in others.items() if share}
    free = _by_time(_Table(connection, "_free", "_rank", "e._time"), _with_shares(rule, shares))
    connection.execute(f"INSERT INTO _assigned SELECT _row, {free.split}, {free.fold} FROM _free e")
    connection.execute(
        f"INSERT INTO _assigned SELECT {table.row}, NULL, NULL FROM {table.relation} e "
        f"WHERE NOT ({apart}) AND {table.row} NOT IN (FROM _frozen_rows)"
    )
    bounds = {**free.facts, "shares": rule.to_json()["shares"]}
    return _assigned({**bounds, "frozen": facts}, table)


def _with_shares(rule: SplitRule, shares: Mapping[str, float]) -> SplitRule:
    from dataclasses import replace

    return replace(rule, shares=shares, freeze=None)


# By value -----------------------------------------------------------------------------------------


def _by_value(
    table: _Table, rule: SplitRule, types: Mapping[str, str], keys: Sequence[str], frozen: Frozen | None
) -> Assignment:
    """By the hash of a key or by a column, decided once for each different value."""
    connection = table.connection
    key = rule.key or tuple(keys)
    hashed = rule.by != "column" or rule.folds
    facts = {**rule.to_json(), **({"key": list(key), "seed": rule.seed} if hashed else {})}
    if hashed and frozen is None and not rule.stratify and _mostly_different(table, key):
        _decide_rows(table, rule, key, types)
        return _assigned(facts, table)
    if hashed:
        _decide_keys(table, rule, key, types, frozen=frozen is not None)
    split = _column_split(table, rule) if rule.by == "column" else "k._split"
    on = " AND ".join(f"e.{identifier(name)} IS NOT DISTINCT FROM k._k{n}" for n, name in enumerate(key))
    source = f"{table.relation} e" + (f" JOIN _keys k ON {on}" if hashed else "")
    fold = "k._fold" if rule.folds else "NULL::INTEGER"
    if frozen is not None:
        facts["frozen"] = _mark_frozen(table, keys, frozen)
        split = _around_frozen(table, rule, key, split)
        source += f" LEFT JOIN _frozen_rows z ON z._row = e.{table.row}"
    connection.execute(
        "CREATE TEMP TABLE _assigned AS SELECT _row, _split, CASE WHEN _split = 0 THEN _fold END AS _fold "
        f"FROM (SELECT e.{table.row} AS _row, ({split})::INTEGER AS _split, {fold} AS _fold FROM {source})"
    )
    return _assigned(facts, table)


def _mostly_different(table: _Table, key: Sequence[str]) -> bool:
    """Whether keys hardly ever repeat, so that deciding for each row is less work than for each key."""
    names = ", ".join(f"e.{identifier(name)}" for name in key)
    rows, keys = table.one(f"SELECT count(*), approx_count_distinct(hash({names})) FROM {table.relation} e")
    return int(keys) * 2 > int(rows)


def _decide_rows(table: _Table, rule: SplitRule, key: Sequence[str], types: Mapping[str, str]) -> None:
    """The table ``_assigned``, by the same hashes as :func:`_decide_keys`, without a table of the keys."""
    hashed = rule.by != "column"
    split = _cut_hash(rule, _TEST) if hashed else "_said"
    fold = f"({bucket_sql('_text', f'{rule.seed}:fold:', rule.folds)} + 1)" if rule.folds else "NULL"
    given = f"{bucket_sql('_text', f'{rule.seed}:', 1 << 32)} AS _hash" if hashed else "_said"
    said = "NULL" if hashed else _column_split(table, rule)
    texts = f"SELECT e.{table.row} AS _row, {key_text(key, types)} AS _text, {said} AS _said FROM {table.relation} e"
    table.connection.execute(
        f"CREATE TEMP TABLE _assigned AS SELECT _row, _split, (CASE WHEN _split = 0 THEN {fold} END)::INTEGER AS _fold "
        f"FROM (SELECT _row, _text, ({split})::INTEGER AS _split FROM (SELECT _row, _text, {given} FROM ({texts})))"
    )


def _decide_keys(
    table: _Table, rule: SplitRule, key: Sequence[str], types: Mapping[str, str], *, frozen: bool
) -> None:
    """A table ``_keys`` of the different keys with their split and fold."""
    names = ", ".join(f"{identifier(name)} AS _k{n}" for n, name in enumerate(key))
    text = key_text(
        [f"_k{n}" for n in range(len(key))], {f"_k{n}": types[name] for n, name in enumerate(key)}
    )
    fold = bucket_sql("_text", f"{rule.seed}:fold:", rule.folds) if rule.folds else "NULL::BIGINT"
    stratum = f"arg_min({identifier(rule.stratify)}, {table.row})" if rule.stratify else "NULL"
    distinct = f"SELECT {names}, {stratum} AS _class FROM {table.relation} e GROUP BY ALL"
    table.connection.execute(
        f"CREATE TEMP TABLE _hashed AS SELECT *, {bucket_sql('_text', f'{rule.seed}:', 1 << 32)} AS _hash, "
        f"{fold} AS _f FROM (SELECT *, {text} AS _text FROM ({distinct}))"
    )
    rest = _TRAIN if frozen else _TEST
    if rule.stratify:
        train = rule.shares.get("train", 0.0)
        upper = train + rule.shares.get("validation", 0.0)
        ranked = (
            "SELECT *, row_number() OVER (PARTITION BY _class ORDER BY _hash, _text) - 1 AS _rank, "
            "count(*) OVER (PARTITION BY _class) AS _n FROM _hashed"
        )
        split = _cut("_rank", f"round(_n * {train!r})", f"round(_n * {upper!r})", rest)
        folds = f"row_number() OVER (PARTITION BY _class, _split ORDER BY _f, _text) % {rule.folds or 1} + 1"
        decided = f"SELECT *, {folds} AS _fold FROM (SELECT *, {split} AS _split FROM ({ranked}))"
    else:
        decided = f"SELECT *, _f + 1 AS _fold, {_cut_hash(rule, rest)} AS _split FROM _hashed"
    columns = ", ".join(f"_k{n}" for n in range(len(key)))
    table.connection.execute(f"CREATE TEMP TABLE _keys AS SELECT {columns}, _split, _fold FROM ({decided})")


def _cut_hash(rule: SplitRule, rest: int) -> str:
    """The split by the number ``_hash``."""
    train = rule.shares.get("train", 0.0)
    lower, higher = (
        str(round(BUCKETS * share)) for share in (train, train + rule.shares.get("validation", 0.0))
    )
    return _cut(f"_hash % {BUCKETS}", lower, higher, rest)


def _cut(value: str, train: str, upper: str, rest: int) -> str:
    return (
        f"CASE WHEN {value} < {train} THEN {_TRAIN} WHEN {value} < {upper} THEN {_VALIDATION} ELSE {rest} END"
    )


def _column_split(table: _Table, rule: SplitRule) -> str:
    """The split by the column's value; a null leaves the example out."""
    column = f"e.{identifier(rule.column or '')}"
    found, kind = _column_values(table, column, 1000 + len(rule.values))
    spellings = Spellings(rule.values, booleans=kind == "BOOLEAN" or set(rule.values) <= {"true", "false"})
    named = {text: text if kind == "VARCHAR" else spellings.find(text) for text in found}
    if odd := [text for text, name in named.items() if name not in rule.values]:
        shown = ", ".join(f"{text!r} ({found[text]} rows)" for text in odd[:5])
        raise DataError(
            f"split: column {rule.column!r} says {shown}; expected {', '.join(rule.values)}, or null to leave an "
            "example out. Say what the value stands for in split.values"
        )
    cases = " ".join(
        f"WHEN {literal(text)} THEN {SPLITS.index(rule.values[name])}" for text, name in named.items()
    )
    return f"CASE {column}::VARCHAR {cases} END" if cases else "NULL"


def _column_values(table: _Table, column: str, most: int) -> tuple[dict[str, int], str]:
    """How many rows have each of a column's values, as text, the most frequent first, and the column's type.

    NULL and NaN are left out.
    """
    rows = table.connection.execute(
        f"SELECT {column}::VARCHAR, count(*), any_value(typeof({column})) FROM {table.relation} e "
        f"WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {most}"
    ).fetchall()
    kind = rows[0][2] if rows else ""
    return {text: count for text, count, _ in rows if not (is_float(kind) and text == "nan")}, kind


# A frozen test ------------------------------------------------------------------------------------


def _mark_frozen(table: _Table, keys: Sequence[str], frozen: Frozen) -> dict[str, Any]:
    """A table ``_frozen_rows`` with the numbers of the frozen examples.

    :raises DataError: none of them is there any more.
    """
    on = [f"e.{identifier(name)} IS NOT DISTINCT FROM f.{identifier(name)}" for name in keys]
    table.connection.execute(
        f"CREATE TEMP TABLE _frozen_rows AS SELECT e.{table.row} AS _row FROM {table.relation} e "
        f"JOIN {frozen.relation} f ON {' AND '.join([f'{table.time} = f.__time', *on])}"
    )
    found = int(table.one("SELECT count(*) FROM _frozen_rows")[0])
    if not found:
        raise DataError(
            f"split: none of the {frozen.rows} frozen test example(s) is among the examples; widen the window "
            "until it holds them, or freeze another version"
        )
    return {"digest": frozen.digest, "rows": frozen.rows, "missing": frozen.rows - found}


def _around_frozen(table: _Table, rule: SplitRule, key: Sequence[str], split: str) -> str:
    """Frozen examples are the test; no other one is, and none that shares their key is learnt from."""
    free = f"CASE ({split}) WHEN {_TEST} THEN NULL ELSE ({split}) END"
    if rule.by != "column":
        names = ", ".join(f"{identifier(name)} AS _k{n}" for n, name in enumerate(key))
        table.connection.execute(
            f"CREATE TEMP TABLE _frozen_keys AS SELECT DISTINCT {names} FROM {table.relation} "
            f"WHERE {table.row} IN (FROM _frozen_rows)"
        )
        same = " AND ".join(
            f"e.{identifier(name)} IS NOT DISTINCT FROM q._k{n}" for n, name in enumerate(key)
        )
        free = f"CASE WHEN EXISTS (SELECT 1 FROM _frozen_keys q WHERE {same}) THEN NULL ELSE {split} END"
    return f"CASE WHEN z._row IS NOT NULL THEN {_TEST} ELSE {free} END"


def _assigned(facts: dict[str, Any], table: _Table) -> Assignment:
    return Assignment(
        split="a._split",
        fold="a._fold",
        # Every row is in it: of an outer join behind an inner one, DuckDB 1.5.6 may make a cross product.
        join=f"JOIN _assigned a ON a._row = e.{table.row}",
        alone="_assigned a",
        in_order=False,
        facts=facts,
    )


def _text(name: str, kind: str) -> str:
    column = identifier(name)
    if kind.startswith("TIMESTAMP"):
        return f"epoch_us({column}::TIMESTAMPTZ)::VARCHAR"
    if kind.removeprefix("U") in _WHOLE_NUMBERS or kind.startswith(_AS_TEXT):
        return f"{column}::VARCHAR"
    raise SpecError(
        f"split: a key of type {kind} has no text that all languages agree on; cast it in the query of the "
        "examples, to a whole number or to text"
    )
