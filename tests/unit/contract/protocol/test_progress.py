from __future__ import annotations

import pytest

from airflow_mlops.contract.protocol.progress import parse_progress, progress_line


def test_a_line_says_metrics_step_and_total():
    line = progress_line({"loss": 0.3}, step=3, total=10)
    assert line == '::mlops:: {"metrics": {"loss": 0.3}, "step": 3, "total": 10}'
    assert parse_progress(line) == {"metrics": {"loss": 0.3}, "step": 3, "total": 10}


def test_what_json_cannot_say_is_left_out():
    assert parse_progress(progress_line({"loss": float("nan"), "auc": 0.5})) == {"metrics": {"auc": 0.5}}


def test_a_line_break_in_a_name_stays_one_line():
    assert "\n" not in progress_line({"a\nb": 1})


@pytest.mark.parametrize(
    "line",
    [
        "epoch 3",
        "::mlops:: ",
        "::mlops:: [1]",
        "::mlops:: {",
        ' ::mlops:: {"step": 1}',
        "::mlops:: " + "[" * 8000,
    ],
)
def test_any_other_line_is_no_progress(line):
    assert parse_progress(line) is None


def test_wrong_values_from_a_container_are_dropped():
    line = '::mlops:: {"metrics": {"a": "x", "b": 1, "c": NaN, "d": true}, "step": "x", "total": 5, "z": 1}'
    line = line.replace('"a": "x"', '"a": "x", "e": ' + "9" * 400)
    assert parse_progress(line) == {"metrics": {"b": 1.0}, "total": 5}
