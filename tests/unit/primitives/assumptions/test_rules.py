"""Every kind of rule against small tables: what it finds, what it shows, and what it makes of nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import ClassVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import SourceError, SpecError
from airflow_mlops.primitives.assumptions import (
    CheckContext,
    check_table,
    failed,
    parse_assumptions,
    report,
    warned,
)

START = datetime(2024, 5, 1, tzinfo=UTC)
NAN = float("nan")


@pytest.fixture
def check(tmp_path):
    """Hold rules against columns; the rows are numbered in ``__row``."""

    def run(columns, *rules, **context):
        table = tmp_path / "rows.parquet"
        rows = len(next(iter(columns.values())))
        pq.write_table(pa.table({"__row": pa.array(range(rows), pa.int64()), **columns}), table)
        with duckdb.connect() as connection:
            connection.execute(f"SET TimeZone='UTC'; SET file_search_path='{tmp_path}'")
            return check_table(
                connection,
                parse_assumptions(rules),
                table,
                {field.name: str(field.type) for field in pq.read_schema(table)},
                order="__row",
                shown=["__row"],
                context=CheckContext(**context),
            )

    return run


def times(*hours):
    return pa.array(
        [None if hour is None else START + timedelta(hours=hour) for hour in hours], pa.timestamp("us", "UTC")
    )


def rows_of(finding):
    return [row["__row"] for row in finding.examples]


TABLE = {
    "x": pa.array([1.0, None, NAN, -5.0, 7.5]),
    "n": pa.array([1, 2, 3, None, 5], pa.int32()),
    "price": pa.array([Decimal("1.10"), Decimal("2.20"), None, Decimal("9.99"), Decimal("0.00")]),
    "name": pa.array(["abc", "ABC", "", None, "Straße"]),
    "tags": pa.array([["a"], [], None, ["a", "b"], ["c"]], pa.list_(pa.string())),
    "day": pa.array([None, *[START.date() + timedelta(days=n) for n in range(4)]]),
    "at": times(0, 1, 2, 3, None),
    "plain": times(0, 1, 2, 3, 4).cast(pa.timestamp("us")),
    "flag": pa.array([True, False, None, True, True]),
}


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ({"column": "x", "not_null": True}, [1, 2]),
        ({"column": "n", "not_null": True}, [3]),
        ({"column": "x", "max_null_share": 0.4}, []),
        ({"column": "x", "max_null_share": 0.39}, [1, 2]),
        ({"column": "x", "between": [-5, 7.5]}, [2]),
        ({"column": "x", "between": [0, None]}, [2, 3]),
        ({"column": "x", "above": -5}, [2, 3]),
        ({"column": "x", "below": 7.5}, [2, 4]),
        ({"column": "x", "below": 7.6, "where": "NOT isnan(x)"}, []),
        ({"column": "price", "between": [0, 9.98]}, [3]),
        ({"column": "price", "above": 0}, [4]),
        ({"column": "price", "one_of": [1.1, 2.2, 9.99, 0]}, []),
        ({"column": "flag", "one_of": [True]}, [1]),
        ({"column": "at", "between": ["2024-05-01", "2024-05-01 02:30:00+00:00"]}, [3]),
        ({"column": "at", "below": "2024-05-01T03:00:00Z"}, [3]),
        ({"column": "at", "below": "2024-05-01T05:00:01+02:00"}, []),
        ({"column": "plain", "above": "2024-05-01 00:00:00"}, [0]),
        ({"column": "day", "below": "2024-05-04"}, [4]),
        ({"column": "name", "matches": "[A-Za-zß]+"}, [2]),
        ({"column": "name", "matches": "(?i)abc|stra.e"}, [2]),
        ({"column": "name", "matches": "b"}, [0, 1, 2, 4]),
        ({"column": "name", "length": [1, 6]}, [2]),
        ({"column": "name", "length": [None, 5]}, [4]),
        ({"column": "tags", "length": [1, None]}, [1]),
        ({"sql": "x < n"}, [0, 2, 4]),
        ({"sql": "x < n OR isnan(x) -- unless it is none"}, [0, 4]),
        ({"sql": "X < N", "where": "flag AND n > 4"}, [4]),
        ({"sql": "name <> 'it''s' AND plain >= \"at\""}, []),
        ({"sql": "len(list_filter(tags, lambda t: t = 'a')) < 2"}, []),
        ({"unique": ["flag"]}, [0, 3, 4]),
        ({"unique": ["name"]}, []),
        ({"unique": ["flag", "n"], "where": "n < 3 OR n IS NULL"}, []),
        ({"column": "at", "increasing_per": []}, []),
        ({"column": "x", "increasing_per": []}, [3]),
        ({"column": "price", "increasing_per": ["flag"]}, [4]),
        ({"column": "n", "known_by": "plain"}, [2]),
        ({"column": "x", "known_by": "at"}, []),
    ],
)
def test_the_rows_that_break_a_rule(check, rule, broken):
    timestamp = "at" if rule.get("known_by") != "plain" else "early"
    early = times(0, 1, 1, 3, 4)
    (finding,) = check({**TABLE, "early": early}, rule, timestamp=timestamp if "known_by" in rule else None)
    assert (rows_of(finding), finding.passed) == (broken, not broken), finding
    assert finding.failing in (len(broken), 2) or "repeat" in finding.observed
    json.dumps(finding.to_json(), allow_nan=False)
    assert not finding.volatile


EMPTY = {name: pa.array([], column.type) for name, column in TABLE.items()}


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        ({"column": "x", "not_null": True, "max_null_share": 0.0, "between": [0, 1], "above": 0}, True),
        ({"column": "name", "matches": "a", "length": [1, 2], "one_of": ["b"]}, True),
        ({"column": "at", "increasing_per": ["name"], "known_by": "plain"}, True),
        ({"unique": ["x"]}, True),
        ({"sql": "x > 1"}, True),
        ({"groups_stay_together": ["name"]}, True),
        ({"no_duplicates_across_splits": True}, True),
        ({"max_target_leakage": 0.9}, True),
        ({"rows_vs_previous": [None, 2]}, True),
        ({"rows_vs_previous": [0.5, None]}, False),
        ({"min_rows": 1}, False),
        ({"max_rows": 1}, True),
        ({"newest": {"within": "1d"}}, False),
    ],
)
def test_no_rows_at_all(check, rule, passed):
    known = {"timestamp": "at", "targets": ("flag",), "split": "name", "previous_rows": (5,)}
    findings = check(EMPTY, rule, **known)
    assert {finding.passed for finding in findings} == {passed}, findings


def test_where_counts_only_its_rows(check):
    (share, rows) = check(
        TABLE,
        {"column": "x", "max_null_share": 0.5, "where": "n >= 2"},
        {"min_rows": 4, "where": "n IS NOT NULL"},
    )
    assert share.observed == "2 of 3 rows null (0.666667)"
    assert share.assumption.expected == "nulls ≤ 0.5 where n >= 2"
    assert share.examples[0] == {"__row": 1, "x": None, "n": 2}
    assert (rows.passed, rows.observed) == (True, "4 rows")


class TestFoundIn:
    COLUMNS: ClassVar = {"code": pa.array(["A", None, "X", "B"]), "n": pa.array([1, 2, 3, 4])}

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_values_that_are_not_there(self, check, tmp_path, kind):
        (tmp_path / "codes.csv").write_text("code,n\nA,1\nB,2\nB,3\n")
        duckdb.sql(f"SELECT * FROM read_csv('{tmp_path}/codes.csv')").write_parquet(
            str(tmp_path / "codes.parquet")
        )
        findings = check(
            self.COLUMNS,
            {"column": "code", "found_in": {kind: f"codes.{kind}", "column": "code"}},
            {"column": "n", "found_in": {kind: f"codes.{kind}", "column": "n"}, "where": "n < 4"},
        )
        assert [(rows_of(finding), finding.passed) for finding in findings] == [([2], False), ([], True)]
        assert findings[0].observed == "1 of 4 rows have a value that is not there"
        assert findings[0].volatile, "another file tomorrow must not be another dataset version"

    @pytest.mark.parametrize("pattern", ["codes/*.csv", "codes/**/*.csv", "{folder}/codes/*.csv"])
    def test_files_that_are_hidden_or_being_written_say_nothing(self, check, tmp_path, pattern):
        for name, code in {
            "a.csv": "A",
            "b.csv": "B",
            ".c.csv": "X",
            "_d.csv": "X",
            "_new/e.csv": "X",
        }.items():
            file = tmp_path / "codes" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"code\n{code}\n")
        found_in = {"csv": pattern.format(folder=tmp_path), "column": "code"}
        (finding,) = check(self.COLUMNS, {"column": "code", "found_in": found_in})
        assert rows_of(finding) == [2]

    def test_a_file_or_a_column_that_is_not_there(self, check, tmp_path):
        (tmp_path / "codes.csv").write_text("code\nA\n")
        with pytest.raises(SourceError, match=r"codes.parquet cannot be read.*Cure: correct the path"):
            check(
                self.COLUMNS, {"column": "code", "found_in": {"parquet": "codes.parquet", "column": "code"}}
            )
        with pytest.raises(SourceError, match="has no column 'iata'; it has code"):
            check(self.COLUMNS, {"column": "code", "found_in": {"csv": "codes.csv", "column": "iata"}})


class TestRows:
    COLUMNS: ClassVar = {"at": times(*range(10))}

    @pytest.mark.parametrize(
        ("bounds", "previous", "passed"),
        [
            ([0.5, 2], (), True),
            ([0.5, 2], (0, 0), True),
            ([0.5, 2], (20, 19, 5, 20, 22, 1000), True),
            ([0.5, 2], (21,), False),
            ([None, 2], (4,), False),
            ([0.5, None], (4,), True),
        ],
    )
    def test_against_the_median_of_the_last_versions(self, check, bounds, previous, passed):
        (finding,) = check(self.COLUMNS, {"rows_vs_previous": bounds}, previous_rows=previous)
        assert (finding.passed, finding.volatile) == (passed, True), finding

    @pytest.mark.parametrize(
        ("newest", "passed", "observed"),
        [
            ({"within": "2h"}, True, "1:00:00 before"),
            ({"within": "59m"}, False, "newest 2024-05-01T09:00:00+00:00, 1:00:00 before"),
            ({"within": "2h", "of": "window"}, True, "0:30:00 after"),
            ({"within": "20m", "of": "window"}, False, "after"),
            ({"within": "1h", "column": "plain"}, True, "0:00:00 before"),
        ],
    )
    def test_freshness(self, check, newest, passed, observed):
        columns = {**self.COLUMNS, "plain": times(*[10] * 10).cast(pa.timestamp("us"))}
        (finding,) = check(
            columns,
            {"newest": newest},
            timestamp="at",
            now=START + timedelta(hours=10),
            moment=START + timedelta(hours=8, minutes=30),
        )
        assert finding.passed is passed
        assert observed in finding.observed
        assert finding.volatile == (newest.get("of") != "window")

    def test_a_time_far_ahead_is_no_fresh_one(self, check):
        (finding,) = check(
            self.COLUMNS, {"newest": {"within": "2d"}}, timestamp="at", now=START - timedelta(days=30)
        )
        assert not finding.passed
        assert "30 days, 9:00:00 after" in finding.observed


class TestSplits:
    COLUMNS: ClassVar = {
        "customer": pa.array(["a", "a", "b", "b", None, None, "c"]),
        "x": pa.array([1.0, 2.0, 1.0, None, None, None, 5.0]),
        "z": pa.array([1, 2, 1, 3, None, None, 5]),
        "y": pa.array([0, 1, 0, 1, 0, 1, 0]),
        "__split": pa.array(["train", "train", "test", "train", "train", "test", None]),
    }

    def test_an_entity_on_both_sides(self, check):
        (finding,) = check(self.COLUMNS, {"groups_stay_together": ["customer"]}, split="__split")
        assert finding.observed == "1 in several splits, with 2 rows"
        assert finding.examples == (
            {"__row": 2, "customer": "b", "__split": "test"},
            {"__row": 3, "customer": "b", "__split": "train"},
        )

    def test_rows_without_split_and_unknown_entities_do_not_count(self, check):
        columns = {**self.COLUMNS, "customer": pa.array(["a", "a", "c", None, None, None, "c"])}
        (finding,) = check(columns, {"groups_stay_together": ["customer"]}, split="__split")
        assert finding.passed

    def test_an_entity_in_two_folds(self, check):
        fold = pa.array([1, 2, None, 1, 1, None, None], pa.int32())
        (finding,) = check(
            {**self.COLUMNS, "__fold": fold}, {"groups_stay_together": ["customer"]}, split="__split"
        )
        assert rows_of(finding) == [0, 1, 2, 3]

    def test_examples_alike_in_all_inputs(self, check):
        (finding,) = check(
            self.COLUMNS,
            {"no_duplicates_across_splits": True},
            split="__split",
            keys=("customer",),
            targets=("y",),
        )
        assert finding.observed == "2 rows with a twin in another split (1 different ones)"
        assert rows_of(finding) == [0, 2], "two examples of which nothing is known are no twins"

    def test_without_splits_there_is_nothing_to_check(self, check):
        findings = check(
            {"customer": self.COLUMNS["customer"]},
            {"groups_stay_together": ["customer"], "severity": "warn"},
            {"no_duplicates_across_splits": True, "severity": "warn"},
        )
        assert [finding.observed for finding in findings] == ["the rows are not split here"] * 2
        assert len(failed(findings)) == 2, "a rule about nothing must not pass as a warning for ever"


@pytest.mark.parametrize(
    ("rule", "observed"),
    [
        ({"max_target_leakage": 0.9}, "there is no target here"),
        ({"newest": {"within": "1d"}}, "no column with the time of an example"),
        ({"newest": {"within": "1d", "of": "window", "column": "at"}}, "no window here"),
        ({"column": "x", "known_by": "at"}, "no column with the time of an example"),
        ({"distribution": {}}, "no dataset version to compare with"),
        ({"sql": "xx > 1"}, "no column 'xx'; did you mean 'x'?"),
        ({"column": "x", "not_null": True, "where": "nn > 1"}, "no column 'nn'; did you mean 'n'?"),
        ({"column": "x", "known_by": "seen"}, "no column 'seen'"),
        ({"unique": ["x", "wo"]}, "no column 'wo'"),
    ],
)
def test_a_rule_that_lacks_what_it_needs_fails_and_says_what(check, rule, observed):
    (finding,) = check(TABLE, {**rule, "severity": "warn"})
    assert finding.observed.startswith(observed)
    assert failed([finding])


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            {"column": "n", "one_of": ["JFK"]},
            r"one_of of n \(one of JFK\) does not fit the type of its column \(int32\)",
        ),
        ({"column": "n", "matches": "a"}, "matches of n"),
        ({"column": "n", "length": [1, 2]}, "length of n"),
        ({"sql": "n + 'x' > 2"}, "sql of n"),
        ({"sql": "nosuchfunction(n)"}, "nosuchfunction"),
        ({"column": "x", "not_null": True, "where": "name > 5"}, "not_null of x"),
    ],
)
def test_a_value_that_does_not_fit_names_its_rule(check, rule, words):
    with pytest.raises(SpecError, match=words):
        check(TABLE, {"min_rows": 1}, rule, {"unique": ["n"]})


def test_a_report_has_everything(check):
    findings = check(
        TABLE,
        {"column": "x", "not_null": True},
        {"column": "n", "not_null": True, "severity": "warn"},
        {"min_rows": 1},
        {"rows_vs_previous": [1, 1]},
    )
    found = report(findings)
    assert (found["passed"], found["checked"], found["failed"], found["warned"]) == (False, 4, 1, 1)
    assert [one["volatile"] for one in found["findings"]] == [False, False, False, True]
    assert found["findings"][0]["examples"] == [{"__row": 1, "x": None}, {"__row": 2, "x": "NaN"}]
    assert [finding.assumption.columns for finding in warned(findings)] == [("n",)]
    json.dumps(found, allow_nan=False)


def test_the_same_rows_give_the_same_findings_again(check):
    rules = ({"column": "x", "not_null": True}, {"unique": ["flag"]}, {"sql": "x < n"})
    assert check(TABLE, *rules) == check(TABLE, *rules)
