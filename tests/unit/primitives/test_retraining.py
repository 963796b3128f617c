"""Every reason is answered once: whatever Airflow hands over, whenever a run dies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.primitives.retraining import (
    OVERLAP,
    Answers,
    Reason,
    answer,
    describe,
    drain_from,
    reason_from_event,
    take,
    unanswered,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def alarm(number: int, *, minutes: float = 0, kind: str = "performance") -> Reason:
    return Reason(f"alarm{number}", kind, (NOON + timedelta(minutes=minutes)).isoformat())


def ids(reasons: list[Reason]) -> list[str]:
    return [reason.id for reason in reasons]


class TestReasonFromEvent:
    def test_an_alarm_is_known_by_its_alarm_id(self):
        reason = reason_from_event(7, NOON, {"reason": "performance", "alarm_id": "ab12", "message": "worse"})
        assert reason == Reason(
            "ab12", "performance", NOON.isoformat(), {"alarm_id": "ab12", "message": "worse"}
        )

    def test_an_event_from_outside_is_a_wish(self):
        assert reason_from_event(7, NOON, None) == Reason("event:7", "on_demand", NOON.isoformat(), {})

    def test_an_unknown_reason_is_a_wish_that_keeps_its_words(self):
        reason = reason_from_event(7, NOON, {"reason": "moon phase"})
        assert reason is not None
        assert (reason.kind, reason.evidence["said"]) == ("on_demand", "moon phase")

    def test_rearming_is_no_reason(self):
        assert reason_from_event(7, NOON, {"reason": "rearm"}) is None


class TestTake:
    def test_a_burst_of_events_is_one_runs_work(self):
        burst = [alarm(number, minutes=number) for number in range(5)]
        reasons, answers = take(Answers(), "run1", burst)
        assert ids(reasons) == ["alarm0", "alarm1", "alarm2", "alarm3", "alarm4"]
        answers = answer(answers, "run1", succeeded=True)
        assert take(answers, "run2", burst)[0] == []

    def test_the_same_alarm_raised_twice_counts_once(self):
        reasons, _ = take(Answers(), "run1", [alarm(1), alarm(1, minutes=3)])
        assert ids(reasons) == ["alarm1"]

    def test_taking_again_after_a_crash_gives_the_same_reasons(self):
        events = [alarm(1), alarm(2, minutes=1)]
        first, answers = take(Answers(), "run1", events)
        assert take(answers, "run1", events)[0] == first

    def test_reasons_of_a_failed_run_are_free_for_the_next(self):
        reasons, answers = take(Answers(), "run1", [alarm(1)])
        answers = answer(answers, "run1", succeeded=False)
        assert take(answers, "run2", [alarm(1)])[0] == reasons

    def test_an_event_committed_late_is_still_found(self):
        _, answers = take(Answers(), "run1", [alarm(2, minutes=10)])
        answers = answer(answers, "run1", succeeded=True)
        since = datetime.fromisoformat(drain_from(answers) or "")
        late = alarm(1, minutes=9)
        assert since <= datetime.fromisoformat(late.at)
        assert ids(take(answers, "run2", [late, alarm(2, minutes=10)])[0]) == ["alarm1"]

    def test_the_watermark_waits_for_open_reasons(self):
        old, new = alarm(1), alarm(2, minutes=600)
        _, answers = take(Answers(), "run1", [old, new])
        answers = answer(answers, "run1", succeeded=False)
        assert datetime.fromisoformat(drain_from(answers) or "") <= NOON - OVERLAP

    def test_a_person_who_starts_the_run_is_a_reason(self):
        wish = Reason("on_demand:run1", "on_demand", NOON.isoformat(), {"who": "ann", "why": "new idea"})
        reasons, _ = take(Answers(), "run1", [], [wish])
        assert reasons == [wish]
        assert describe(reasons) == "on_demand: new idea"


class TestUnanswered:
    def test_what_came_meanwhile_is_seen(self):
        _, answers = take(Answers(), "run1", [alarm(1)])
        assert ids(unanswered(answers, "run1", [alarm(1), alarm(2, minutes=1)])) == ["alarm2"]

    def test_what_this_run_took_does_not_wake_it_again(self):
        _, answers = take(Answers(), "run1", [alarm(1)])
        assert unanswered(answers, "run1", [alarm(1)]) == []


def test_memory_survives_json():
    _, answers = take(Answers(), "run1", [alarm(1), alarm(2, minutes=1)])
    assert Answers.from_dict(answers.to_dict()) == answers
    assert Answers.from_dict(None) == Answers()


@given(
    arrivals=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2000)), max_size=12),
    outcomes=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_no_alarm_is_lost_and_none_answered_twice(arrivals, outcomes):
    """Whatever arrives when, and whichever runs fail: each alarm ends in exactly one successful run."""
    events = [alarm(number, minutes=at) for number, at in arrivals]
    answers, answered = Answers(), []
    for number, outcome in enumerate([*outcomes, True]):
        run, visible = f"run{number}", events[: number + 1] if number < len(outcomes) else events
        since = drain_from(answers)
        seen = [
            e
            for e in visible
            if since is None or datetime.fromisoformat(e.at) >= datetime.fromisoformat(since)
        ]
        reasons, answers = take(answers, run, seen)
        answers = answer(answers, run, succeeded=outcome)
        answered += ids(reasons) if outcome else []
    assert len(answered) == len(set(answered))
    late = {e.id for e in events} - set(answered)
    # An event may only be missed when it was committed later than the overlap allows.
    newest = max((datetime.fromisoformat(e.at) for e in events), default=NOON)
    assert all(
        any(newest - datetime.fromisoformat(e.at) > OVERLAP for e in events if e.id == i) for i in late
    )
