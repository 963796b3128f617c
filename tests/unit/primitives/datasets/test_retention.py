"""Retention: what a rule lets go, and every reason to stay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.datasets.retention import (
    Keep,
    Made,
    RetentionRule,
    VersionFacts,
    decide,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
STRICT = RetentionRule(Keep(2, timedelta(days=7)), Keep(1, timedelta(days=1)))


def made(days: float, line: str = "latest", retention: str = "production") -> Made:
    return Made(NOW - timedelta(days=days), line, retention)


def version(name: str, *times: Made, **facts) -> VersionFacts:
    return VersionFacts(name, times, **facts)


def kept(*versions: VersionFacts, rule: RetentionRule = STRICT) -> set[str]:
    return {verdict.id for verdict in decide(versions, rule, NOW) if verdict.keep}


def test_the_newest_and_the_young_stay():
    versions = [version(name, made(days)) for name, days in zip("abcde", (1, 2, 3, 30, 40), strict=True)]
    assert kept(*versions) == {"a", "b", "c"}
    assert kept(*versions[3:]) == {"d", "e"}


def test_each_line_has_its_own_newest():
    production = [version(f"p{days}", made(days)) for days in (50, 60, 70)]
    experiments = [version(f"e{days}", made(days, "latest-try", "experiment")) for days in (2, 3)]
    assert kept(*production, *experiments) == {"p50", "p60", "e2"}


def test_a_version_of_two_classes_stays_while_one_keeps_it():
    both = version("both", made(5), made(1.5, "try", "experiment"))
    newer = [version(f"n{days}", made(days, "try", "experiment")) for days in (0.1, 0.2)]
    assert "both" in kept(both, *newer)


def test_an_unknown_class_is_kept_as_production():
    assert kept(version("a", made(6, "x", "gold")), version("b", made(5, "x", "gold"))) == {"a", "b"}


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"refs": ("latest",)}, "reference latest"),
        ({"uses": ("model m version 3",)}, "used by model m version 3"),
    ],
)
def test_what_is_used_stays_however_old(facts, why):
    old = version("old", made(900), **facts)
    newer = [version(f"n{days}", made(days)) for days in (0, 1, 2)]
    verdict = {verdict.id: verdict for verdict in decide([old, *newer], STRICT, NOW)}["old"]
    assert verdict.keep
    assert verdict.reasons == (why,)


def test_what_goes_says_why_nothing_holds_it():
    verdicts = decide(
        [version(name, made(days)) for name, days in (("a", 8), ("b", 9), ("c", 10))], STRICT, NOW
    )
    assert [(verdict.id, verdict.keep) for verdict in verdicts] == [("a", True), ("b", True), ("c", False)]
    assert verdicts[2].reasons == ("number 3 of latest, 10 d old, production",)


def test_a_version_from_the_future_is_young():
    """A worker's clock was ahead."""
    assert kept(version("a", made(-3)), rule=RetentionRule(Keep(0, timedelta(days=1)))) == {"a"}


def test_a_rule_of_nothing_is_refused():
    with pytest.raises(SpecError, match="no less than 0"):
        Keep(last=-1)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.floats(0, 400),
            st.sampled_from("xy"),
            st.sampled_from(["production", "experiment"]),
        ),
        min_size=1,
    ),
    st.sets(st.integers(0, 9)),
)
def test_nothing_that_is_used_ever_goes_and_every_line_keeps_its_newest(commits, used):
    by_id: dict[int, list[Made]] = {}
    for name, days, line, retention in commits:
        by_id.setdefault(name, []).append(made(days, line, retention))
    versions = [
        version(str(name), *times, uses=("run",) if name in used else ()) for name, times in by_id.items()
    ]
    stay = kept(*versions)
    assert {str(name) for name in used & set(by_id)} <= stay
    for line in "xy":
        for retention, last in (("production", 2), ("experiment", 1)):
            times = {
                str(name): max(m.time for m in of_line)
                for name, all_times in by_id.items()
                if (of_line := [m for m in all_times if (m.line, m.retention) == (line, retention)])
            }
            newest = sorted(times, key=lambda name: (times[name], name), reverse=True)[:last]
            assert set(newest) <= stay
