"""The conformance suite itself: its answers agree with a plain look at every row, and it notices what is wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_mlops.testing.offline_store.cases import CASES
from airflow_mlops.testing.offline_store.judge import Alias, Case, CaseResult, View, judge

BY_NAME = {case.name: case for case in CASES}


def utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def look(view: View, example: Any, keys: dict[str, str], *, created_filter: bool) -> Any:
    """The row that an example takes, by looking at all of them."""
    names = dict(view.renamed)
    best = None
    for raw in view.rows:
        row = {names.get(column, column): value for column, value in raw.items()}
        time, moment = row["time"], utc(example["event_timestamp"])
        if any(
            example[keys.get(key, key)] is None or example[keys.get(key, key)] != row[key]
            for key in view.keys
        ):
            continue
        if time > moment or (view.ttl and time < moment - view.ttl):
            continue
        if created_filter and row["created"] > moment:
            continue
        order = (time, row["created"]) if view.created else (time,)
        if best is None or order >= best[0]:
            best = (order, row)
    return best[1] if best else {}


@pytest.mark.parametrize("case", [case for case in CASES if not case.refused], ids=lambda case: case.name)
def test_expected_values_are_those_of_a_look_at_every_row(case: Case):
    rows = []
    for example in case.examples:
        answer = dict(example)
        uses = [(view, Alias(view.name, view.name, {})) for view in case.views]
        uses += [(next(v for v in case.views if v.name == alias.view), alias) for alias in case.aliases]
        for view, alias in uses:
            taken = look(view, example, dict(alias.join_keys), created_filter=case.created_filter)
            for name in view.features:
                answer[f"{alias.name}__{name}" if case.full_names else name] = taken.get(name)
        rows.append(answer)
    assert judge(case, rows[::-1]) == ""  # in whatever order
    assert all(len(values) == len(case.examples) for values in case.expected.values())


def test_there_is_a_case_for_every_rule():
    assert len(CASES) == len(BY_NAME) >= 30
    assert sum(case.created_filter for case in CASES) == 3
    assert sum(case.sql for case in CASES) == 1


def test_what_is_wrong_is_said():
    case = BY_NAME["beyond_ttl_stays_without_value"]
    right = [{"n": 0, "v": None}, {"n": 1, "v": 7}]
    assert judge(case, right) == ""
    assert judge(case, [{"n": 0, "v": float("nan")}, {"n": 1, "v": 7}]) == ""
    assert judge(case, right[1:]) == "1 rows for 2 examples"
    assert judge(case, [*right, right[1]]) == "3 rows for 2 examples"
    assert judge(case, [{"n": 0, "v": 7}, {"n": 1, "v": 7}]) == "example 0: v is 7, expected None"
    assert judge(case, [{"n": 0}, {"n": 1}]) == "no column v; there are n"
    whole = replace(case, integers=("v",))
    assert judge(whole, [{"n": 0, "v": None}, {"n": 1, "v": 7.0}]) == "example 1: v is 7.0, no integer"
    refused = BY_NAME["feature_named_as_an_example_column"]
    assert judge(refused, [{"n": 0, "v": 1}]) == "gave 1 row(s) instead of an error"


def test_a_result_is_json():
    result = CaseResult("name", "about", "fails", "detail")
    assert result.to_json() == {"case": "name", "about": "about", "outcome": "fails", "detail": "detail"}
