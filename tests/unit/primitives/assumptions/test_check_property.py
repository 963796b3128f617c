"""The one query agrees with the plainest Python, whatever the rows."""

from __future__ import annotations

import math
import re

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from airflow_mlops.primitives.assumptions import CheckContext, check_table, parse_assumptions

NUMBERS = st.one_of(st.none(), st.just(math.nan), st.integers(-3, 3).map(float), st.floats(-3, 3, width=32))
ROWS = st.lists(
    st.fixed_dictionaries({
        "a": NUMBERS,
        "b": NUMBERS,
        "n": st.one_of(st.none(), st.integers(-2, 4)),
        "t": st.one_of(st.none(), st.sampled_from(["", "a", "ab", "A1", "ß", "a\n", "'"])),
        "s": st.sampled_from([None, "train", "test"]),
        "w": st.sampled_from([None, True, False]),
    }),
    max_size=25,
)  # fmt: skip
SCHEMA = pa.schema({
    "a": pa.float64(), "b": pa.float64(), "n": pa.int64(), "t": pa.string(), "s": pa.string(), "w": pa.bool_(),
    "__row": pa.int64(),
})  # fmt: skip


def missing(value):
    return value is None or value != value


def outside(value, holds):
    return value is not None and (value != value or not holds(value))


def less(one, two):
    """As DuckDB orders numbers: NaN is equal to itself and greater than all."""
    if two != two:
        return one == one
    return one < two


def repeats(rows, *names):
    seen, count = set(), 0
    for row in rows:
        value = tuple("nan" if row[name] != row[name] else row[name] for name in names)
        count += value in seen
        seen.add(value)
    return count


def decreases(rows, name, *groups):
    last, count = {}, 0
    for row in rows:
        value, group = row[name], tuple(row[one] for one in groups)
        if value is None:
            continue
        count += group in last and value < last[group]
        last[group] = value
    return count


def split_rows(rows, name):
    sides = {}
    for row in rows:
        if row["s"] and row[name] is not None:
            sides.setdefault(row[name], []).append(row["s"])
    return sum(len(side) for side in sides.values() if len(set(side)) > 1)


def every(test):
    return lambda rows: sum(bool(test(row)) for row in rows)


RULES = [
    ({"column": "a", "not_null": True}, every(lambda r: missing(r["a"]))),
    ({"column": "n", "not_null": True}, every(lambda r: r["n"] is None)),
    ({"column": "a", "between": [-1, 2]}, every(lambda r: outside(r["a"], lambda v: -1 <= v <= 2))),
    ({"column": "n", "between": [None, 2]}, every(lambda r: outside(r["n"], lambda v: v <= 2))),
    ({"column": "a", "above": 0}, every(lambda r: outside(r["a"], lambda v: v > 0))),
    ({"column": "n", "below": 3}, every(lambda r: outside(r["n"], lambda v: v < 3))),
    (
        {"column": "t", "one_of": ["", "a", "'"]},
        every(lambda r: outside(r["t"], lambda v: v in ("", "a", "'"))),
    ),
    (
        {"column": "t", "matches": "[a-z]+"},
        every(lambda r: outside(r["t"], lambda v: re.fullmatch("[a-z]+", v))),
    ),
    ({"column": "t", "length": [1, 1]}, every(lambda r: outside(r["t"], lambda v: len(v) == 1))),
    ({"sql": "a <= b"}, every(lambda r: None not in (r["a"], r["b"]) and less(r["b"], r["a"]))),
    (
        {"sql": "n > 0 OR t = 'a'"},
        every(lambda r: r["n"] is not None and r["n"] <= 0 and r["t"] not in (None, "a")),
    ),
    ({"unique": ["a"]}, lambda rows: repeats(rows, "a")),
    ({"unique": ["n", "t"]}, lambda rows: repeats(rows, "n", "t")),
    ({"column": "n", "increasing_per": []}, lambda rows: decreases(rows, "n")),
    ({"column": "n", "increasing_per": ["t"]}, lambda rows: decreases(rows, "n", "t")),
    ({"groups_stay_together": ["n"]}, lambda rows: split_rows(rows, "n")),
]


CHECKS = parse_assumptions([rule for rule, _ in RULES] + [{**rule, "where": "w"} for rule, _ in RULES])


@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=ROWS)
def test_failing_rows_are_as_many_as_plain_python_counts(tmp_path, rows):
    numbered = [{**row, "__row": number} for number, row in enumerate(rows)]
    table = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(numbered, SCHEMA), table)
    with duckdb.connect() as connection:
        findings = check_table(
            connection,
            CHECKS,
            table,
            {name: str(SCHEMA.field(name).type) for name in SCHEMA.names},
            order="__row",
            shown=["__row"],
            context=CheckContext(split="s"),
        )
    kept = [row for row in numbered if row["w"]]
    expected = [count(some) for some in (numbered, kept) for _, count in RULES]
    for finding, failing in zip(findings, expected, strict=True):
        assert finding.failing == failing, finding
        assert finding.passed == (failing == 0)
        shown = [row["__row"] for row in finding.examples]
        assert shown == sorted(shown)
        assert bool(shown) == bool(failing)
        assert len(shown) <= 5
