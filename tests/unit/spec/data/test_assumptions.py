"""What may stand below ``assumptions:``, and what is said of the rest."""

from __future__ import annotations

import pytest

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.assumptions import parse_assumptions
from airflow_mlops.spec import load_application
from airflow_mlops.spec.data.assumptions import OF_COLUMN, OF_TABLE
from airflow_mlops.spec.data.expressions import ExpressionError, expression_columns, pattern_problem
from tests.unit.spec.samples import MINIMAL

EVERY_RULE = """\
  assumptions:
    - {column: x, type: double, not_null: true, between: [0, null], above: -1, below: "2024-05-01"}
    - {column: x, max_null_share: 0.1, one_of: [1, a, true], matches: '[A-Z]{3}', length: [1, null]}
    - {column: code, found_in: {csv: codes.csv, column: code}, where: "x > 0"}
    - {column: x, known_by: seen_at, increasing_per: []}
    - {column: x, increasing_per: [device, line]}
    - {unique: [id]}
    - {min_rows: 10, where: "x > 0"}
    - {max_rows: 100}
    - {rows_vs_previous: [0.5, 2.0]}
    - {newest: {within: 2d}}
    - {newest: {within: 12h, of: window, column: seen_at}, severity: warn}
    - {sql: "arrival > departure"}
    - {distribution: {against: serving, columns: [x], max_drifted: 1, false_alarm_rate: 0.001, min_rows: 50}}
    - {groups_stay_together: [customer]}
    - {no_duplicates_across_splits: true}
    - {max_target_leakage: 0.95, severity: warn}
    - {column: x, max_target_leakage: 0.95}
"""


def test_every_rule_goes_from_the_file_to_the_check(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(MINIMAL + EVERY_RULE + f"store: {tmp_path}\n")
    stated = load_application(file).provisioning.assumptions
    found = parse_assumptions([rule.model_dump(mode="json", exclude_none=True) for rule in stated])
    assert {check.check for check in found} == {*OF_COLUMN, *OF_TABLE}
    assert len(found) == 25
    assert all(check.expected for check in found)
    known_by = next(check for check in found if check.check == "known_by")
    assert known_by.columns == ("x", "seen_at")
    newest = [check for check in found if check.check == "newest"]
    assert [check.expected for check in newest] == [
        "newest within 2d of now",
        "newest within 12h of the window's end",
    ]
    assert next(check for check in found if check.check == "sql").columns == ("arrival", "departure")


@pytest.mark.parametrize(
    ("rule", "key", "words"),
    [
        ("{column: x, matches: '('}", "[0].matches", "is not a regular expression: missing )"),
        ("{column: x, matches: '(?=a)'}", "[0].matches", "RE2, which has no look-around"),
        ("{sql: 'a >'}", "[0].sql", "cannot be read: syntax error"),
        ("{sql: '(SELECT true)'}", "[0].sql", "has a query in it"),
        ("{sql: 'sum(a) > 1'}", "[0].sql", "uses sum(), which is about many rows"),
        ("{sql: 'a > random()'}", "[0].sql", "uses random(), which does not give the same"),
        ("{sql: 'a > now()'}", "[0].sql", "uses now()"),
        ("{sql: 'a > 1; b > 2'}", "[0].sql", "cannot be read"),
        ("{sql: 'a > 1) , (b'}", "[0].sql", "is more than one expression"),
        ("{sql: '1 = 1'}", "[0].sql", "names no column"),
        ("{min_rows: 1, where: 'a ='}", "[0].where", "cannot be read"),
        ("{column: x, type: double, where: 'a = 1'}", "[0]", "mixes where with type"),
        ("{distribution: {}, where: 'a = 1'}", "[0]", "mixes where with distribution"),
        ("{column: x, above: [1]}", "[0].above", "is not a bound"),
        ("{column: x, length: [3, 1]}", "[0].length", "low bound above its high bound"),
        ("{column: x, length: [-1, 1]}", "[0].length", "is not a least and a most"),
        ("{column: x, length: [1.5, 2]}", "[0].length[0]", "a whole number"),
        ("{rows_vs_previous: [0.5]}", "[0].rows_vs_previous", "write rows_vs_previous: [0.5, 2.0]"),
        ("{rows_vs_previous: [null, null]}", "[0].rows_vs_previous", "is not a least and a most"),
        ("{newest: {within: 2 days}}", "[0].newest.within", "s, m, h, d, w"),
        ("{newest: {of: now}}", "[0].newest.within", "is missing"),
        ("{newest: {within: 2d, of: today}}", "[0].newest.of", "now or window"),
        ("{column: x, found_in: {column: y}}", "[0].found_in", "names no file"),
        ("{column: x, found_in: {csv: a, parquet: b, column: y}}", "[0].found_in", "names two files"),
        ("{not_null: true}", "[0]", "does not say which column not_null is about"),
        ("{column: x, newest: {within: 1d}}", "[0]", "mixes column with newest"),
        ("{max_target_leakage: 1.5}", "[0].max_target_leakage", "less than 1"),
        ("{groups_stay_together: []}", "[0].groups_stay_together", "at least 1 item"),
        ("{no_duplicates_across_splits: false}", "[0].no_duplicates_across_splits", "expected: true"),
        ("{distribution: {max_drift: 1}}", "[0].distribution.max_drift", "max_drifted"),
        ("{column: x, not_null: true, beetween: [1, 2]}", "[0].beetween", "between"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_at_its_place(problems, tmp_path, rule, key, words):
    found = problems(MINIMAL + f"  assumptions:\n    - {rule}\nstore: {tmp_path}\n")
    assert [problem.key for problem in found] == [f"provisioning.assumptions{key}"]
    assert words in str(found[0])
    assert found[0].place.line == 11
    assert found[0].cure


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"column": "x", "beetween": [1, 2]}, "beetween is no rule; did you mean between?"),
        ({"column": "x", "unique": ["a"]}, "it mixes column with unique"),
        ({"sql": "a >"}, "sql cannot be read"),
        ({"newest": {"within": "soon"}}, "newest.within is not a duration"),
        ({"min_rows": "many"}, "min_rows: Input should be a valid integer"),
    ],
)
def test_a_rule_of_a_dag_written_by_hand_is_refused_with_its_number(rule, words):
    with pytest.raises(SpecError, match="assumption 2") as caught:
        parse_assumptions([{"min_rows": 1}, rule])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("arrival > departure", ("arrival", "departure")),
        ("a > 1 -- a comment", ("a",)),
        ('"at" < b AND b < "at"', ("at", "b")),
        ("place.lat BETWEEN -90 AND 90", ("place",)),
        ("len(list_filter(l, lambda x: x > low)) = 0", ("l", "low")),
        ("CASE WHEN a THEN b ELSE c END", ("a", "b", "c")),
        ("a ~ 'x' AND lower(b) LIKE 'y%'", ("a", "b")),
        ("age(a, b) > INTERVAL 1 DAY", ("a", "b")),
    ],
)
def test_the_columns_of_a_condition(sql, columns):
    assert expression_columns(sql) == columns


@pytest.mark.parametrize(
    "sql",
    [
        "*", "COLUMNS(*) > 1", "a > ?", "a > $b", "row_number() OVER () > a", "a IN (SELECT 1)", "getenv('HOME') = a",
        "current_setting('x') = a", "age(a) > INTERVAL 1 DAY", "pg_typeof(a) = 'x'", "1) FROM t WHERE (a", "", "a\0b",
        "read_text('/etc/passwd') = a AND count(a) > 1", "EXISTS (FROM 'x.parquet')",
    ],
)  # fmt: skip
def test_what_is_no_condition_on_a_row(sql):
    with pytest.raises(ExpressionError):
        expression_columns(sql)


def test_patterns_are_those_of_re2():
    assert pattern_problem(r"\pL+[[:digit:]]*") is None
    assert "invalid perl operator" in pattern_problem("a(?!b)")
