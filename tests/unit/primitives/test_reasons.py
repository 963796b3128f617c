"""Every reason is answered once: whatever Airflow hands over, whenever a run dies."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.primitives.reasons import (
    ID_LIMIT,
    OVERLAP,
    UNCLOSED,
    WORDS_LIMIT,
    Answers,
    Reason,
    answer,
    carries,
    describe,
    drain_from,
    reason_from_event,
    short_ids,
    take,
    unanswered,
    unclosed,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def alarm(number: int, *, minutes: float = 0, kind: str = "performance", event: int | None = None) -> Reason:
    return Reason(f"alarm{number}", kind, (NOON + timedelta(minutes=minutes)).isoformat(), event=event)


def ids(reasons: list[Reason]) -> list[str]:
    return [reason.id for reason in reasons]


def deep(levels: int) -> dict[str, object]:
    return {"a": deep(levels - 1)} if levels else {}


class TestReasonFromEvent:
    def test_an_alarm_is_known_by_its_alarm_id(self):
        reason = reason_from_event(7, NOON, {"reason": "performance", "alarm_id": "ab12", "message": "worse"})
        assert reason == Reason(
            "ab12", "performance", NOON.isoformat(), {"alarm_id": "ab12", "message": "worse"}
        )

    def test_an_event_from_outside_is_a_wish(self):
        reason = reason_from_event(7, NOON, None)
        assert (reason.kind, reason.at, reason.evidence, reason.event) == (
            "on_demand",
            NOON.isoformat(),
            {},
            7,
        )

    def test_handed_over_or_read_it_is_the_same_event(self):
        """Airflow hands it over without its number, and in whatever time zone."""
        there = NOON.astimezone(timezone(timedelta(hours=5)))
        handed, drained = (reason_from_event(n, at, {"message": "x"}) for n, at in (("", there), (17, NOON)))
        assert handed == drained
        assert reason_from_event(18, NOON, {"message": "y"}).id != drained.id

    @pytest.mark.parametrize(
        "extra",
        [
            {"alarm_id": "n\0ul"},
            {"alarm_id": "\ud800"},
            {"alarm_id": "a" * 10**6},
            {"alarm_id": {"a": 1}},
            {"reason": ["x"]},
            {"reason": {"a": 1}},
            {"message": "m" * 10**6},
            {"message": "<b>\n\x1b[31m\n::group::x\0"},
            {"from_trigger": True, "payload": {"id": [1], "message": "\0"}},
            {"figures": {f"k{n}": "v" * 100 for n in range(10_000)}},
            {"figures": deep(900)},
            {"id": deep(900)},
            {"from_trigger": True, "payload": deep(900)},
            {"figures": 10**4000, "alarm_id": 10**4000},
            ["no", "object"],
        ],
        ids=range(15),
    )
    def test_whatever_was_posted_can_be_kept_and_said(self, extra):
        reason = reason_from_event(1, NOON, extra)
        text = json.dumps(reason.to_json())
        assert len(text) < 70_000
        assert len(reason.id) <= ID_LIMIT
        assert "\\u0000" not in text
        json.dumps(reason.to_json(), ensure_ascii=False).encode()
        assert "\n" not in describe([reason])
        assert len(describe([reason] * 1000)) <= WORDS_LIMIT
        assert take(Answers(), "run1", [reason])[0] == [reason]

    def test_what_had_to_be_changed_is_known(self):
        assert reason_from_event(1, NOON, {"message": "a\0"}).altered
        assert not reason_from_event(1, NOON, {"message": "a"}).altered

    def test_no_event_takes_the_id_of_a_run(self):
        forged = reason_from_event(1, NOON, {"alarm_id": "on_demand:manual__x"})
        assert forged.id == "said:on_demand:manual__x"

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


class TestClocks:
    """Times of events are those of whichever machine wrote them."""

    def seen(self, answers, *events, now=NOON):
        since = datetime.fromisoformat(drain_from(answers, now) or "0001-01-01T00:00:00+00:00")
        return [event for event in events if datetime.fromisoformat(event.at) >= since]

    @pytest.mark.parametrize("hours", [2, 24 * 400])
    def test_one_that_was_ahead_hides_no_alarm(self, hours):
        ahead, later = alarm(1, minutes=60 * hours, event=1), alarm(2, minutes=10, event=2)
        _, answers = take(Answers(), "run1", [ahead], now=NOON)
        assert datetime.fromisoformat(answers.watermark) <= NOON
        answers = answer(answers, "run1", succeeded=True)
        reasons, answers = take(answers, "run2", self.seen(answers, ahead, later), now=NOON)
        assert ids(reasons) == ["alarm2"]
        assert datetime.fromisoformat(answers.watermark) <= NOON

    def test_nor_one_of_the_machine_that_also_took_the_time(self):
        ahead, later = alarm(1, minutes=60 * 24 * 400, event=1), alarm(2, minutes=10, event=2)
        wrong = datetime.fromisoformat(ahead.at)
        answers = answer(take(Answers(), "run1", [ahead], now=wrong)[1], "run1", succeeded=True)
        assert ids(take(answers, "run2", self.seen(answers, ahead, later), now=NOON)[0]) == ["alarm2"]

    def test_one_that_is_behind_hides_none_of_a_day_ago(self):
        first, behind = alarm(1, event=1), alarm(2, minutes=-60 * 24, event=2)
        answers = answer(take(Answers(), "run1", [first])[1], "run1", succeeded=True)
        assert ids(take(answers, "run2", self.seen(answers, first, behind))[0]) == ["alarm2"]

    def test_the_event_that_was_committed_last_moves_the_watermark(self):
        _, answers = take(Answers(), "run1", [alarm(1, event=2), alarm(2, minutes=30, event=1)])
        assert answers.watermark == NOON.isoformat()

    def test_a_run_of_another_day_moves_nothing(self):
        wish = Reason("on_demand:run1", "on_demand", (NOON + timedelta(days=900)).isoformat())
        assert datetime.fromisoformat(drain_from(take(Answers(), "run1", [alarm(1)], [wish])[1], NOON)) < NOON


class TestUnclosed:
    def test_a_run_that_never_said_what_became_of_it_is_known(self):
        _, answers = take(Answers(), "run1", [alarm(1)])
        _, answers = take(answers, "run2", [alarm(1), alarm(2)])
        assert unclosed(answers, "run2") == {"run1": ("alarm1",)}
        assert unclosed(answer(answers, "run1", succeeded=True), "run2") == {}

    def test_not_more_of_them_are_kept_than_anyone_looks_up(self):
        answers = Answers()
        for number in range(500):
            _, answers = take(answers, f"run{number}", [alarm(1)])
        assert len(answers.taken) <= UNCLOSED + 1
        assert "run499" in answers.taken

    def test_a_tag_names_the_ids_that_it_answers(self):
        tag = short_ids(f"alarm{number}" for number in range(300))
        assert len(tag) < 5000
        assert carries(tag, ["alarm7", "alarm299"])
        assert not carries(tag, ["alarm7", "alarm300"])
        assert not carries("", ["alarm7"])

    def test_more_reasons_than_a_tag_holds_are_known_again_together(self):
        many = [f"alarm{number}" for number in range(2_000)]
        tag = short_ids(many)
        assert len(tag) <= 5_000
        assert carries(tag, reversed(many))
        assert not carries(tag, [*many, "another"])


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
