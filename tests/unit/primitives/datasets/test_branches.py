"""Names of lines, and the references that belong to them."""

from __future__ import annotations

import pytest

from airflow_mlops.primitives.datasets.branches import line_name, line_of_reference, line_reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ((None, None), "main"),
        (("", ""), "main"),
        (("Weather V2", None), "weather-v2"),
        (("weather_v2", f"reg:5000/team/app@{DIGEST}"), "weather_v2-reg-5000-team-app-0123456789ab"),
        ((None, f"app:1.0@{DIGEST}"), "app-1.0-0123456789ab"),
        (("main", None), "line-main"),
        (("latest", None), "line-latest"),
        (("...", None), "line"),
    ],
)
def test_a_line_is_called_after_what_it_is_for(parts, name):
    assert line_name(*parts) == name


def test_long_names_are_cut_and_stay_different():
    one, other = (line_name("a" * 80 + end) for end in "bc")
    assert one != other
    assert {len(one), len(other)} == {63}
    assert line_reference(one) == f"{one}/latest"


@pytest.mark.parametrize("line", ["main", "calm"])
@pytest.mark.parametrize("purpose", ["training", "prediction"])
def test_a_reference_says_its_line(line, purpose):
    assert line_of_reference(line_reference(line, purpose)) == line


@pytest.mark.parametrize("text", ["3f9a", "calm", ""])
def test_what_is_no_reference_of_a_line_says_none(text):
    assert line_of_reference(text) is None
