"""What the end of a job means."""

from __future__ import annotations

import pytest

from airflow_mlops.primitives.training.outcome import assumption_lines, broken_assumptions, classify, gave_up


def exited(code, **more):
    return {"status": "exited", "exit_code": code, "out_of_memory": False, "error": "", **more}


@pytest.mark.parametrize(
    ("state", "kind", "final", "words"),
    [
        (exited(0), "success", True, "succeeded"),
        (exited(0, out_of_memory=True), "success", True, "succeeded"),
        (exited(10), "parameters", True, "training.parameters"),
        (exited(11), "data", True, "dataset version"),
        (exited(12), "assumption", True, "assumption"),
        (exited(12, out_of_memory=True), "assumption", True, "assumption"),
        (exited(13), "tests", True, "output/tests.xml"),
        (exited(75), "try_again", False, "tried again"),
        (exited(143), "stopped", False, "SIGTERM"),
        (exited(143, error="Stopped in the console."), "stopped", False, "SIGTERM): Stopped in the console."),
        (exited(143, out_of_memory=True), "out_of_memory", False, "resources.memory"),
        (exited(137), "out_of_memory", False, "the machine ran out of memory"),
        (exited(137, out_of_memory=True), "out_of_memory", False, "more memory than its limit"),
        (exited(1, out_of_memory=True), "out_of_memory", False, "resources.memory"),
        (exited(1), "failed", False, "exit code 1. Cure: its last log lines say why"),
        (exited(255, error="engine words"), "failed", False, "255 (engine words)"),
        (exited(127, error="no such program"), "failed", True, "could not be run: no such program"),
        ({"status": "gone"}, "engine_gone", False, "tried again"),
    ],
)
def test_an_end_has_a_kind_and_a_cure(state, kind, final, words):
    outcome = classify(state)

    assert (outcome.kind, outcome.final) == (kind, final)
    assert words in outcome.message


def test_the_model_codes_own_words_are_quoted_but_not_without_end():
    message = classify(exited(11), "  column dep_delay is missing\n" + "x" * 100_000).message

    assert "It says: column dep_delay is missing" in message
    assert len(message) < 3_000


@pytest.mark.parametrize("status", ["created", "running"])
def test_a_job_that_has_not_ended_has_no_outcome(status):
    with pytest.raises(ValueError, match=status):
        classify({"status": status})


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"a": 1}', b"[" * 100_000, b"\xff", b"null"])
def test_a_report_that_is_none_says_nothing(content):
    assert broken_assumptions(content) == []


def test_broken_assumptions_are_a_line_each_and_bounded():
    found = broken_assumptions(
        b'[{"column": "a\\nb", "observed": NaN, "rule": "finite", "examples": "none"}]'
    )
    assert assumption_lines(found) == "  a b: expected finite, observed NaN"
    assert len(assumption_lines([{"observed": "x" * 10_000}])) == 500


@pytest.mark.parametrize(
    ("cause", "kind", "final", "resumable"),
    [
        ("preempted", "preempted", False, True),
        ("not_started", "not_started", True, False),
        ("not_scheduled", "not_started", False, False),
        ("over_limit", "failed", False, False),
        ("over_time", "timeout", False, True),
    ],
)
def test_what_is_not_the_jobs_own_doing_is_said_by_its_runner(cause, kind, final, resumable):
    state = {"status": "exited", "exit_code": None, "cause": cause, "error": "Evicted: low on disk."}
    outcome = classify(state, "stopped in step 7")
    assert (outcome.kind, outcome.final, outcome.resumable) == (kind, final, resumable)
    assert outcome.message.endswith(": Evicted: low on disk. It says: stopped in step 7")


@pytest.mark.parametrize(
    ("seconds", "said"), [(1.0, "1 s"), (90, "90 s"), (7200.0, "2h"), (86400, "1d"), (150.5, "150 s")]
)
def test_a_time_limit_is_said_in_the_unit_of_the_yaml(seconds, said):
    assert f"longer than {said} and was stopped" in gave_up("timeout", seconds).message
    assert f"printed nothing for {said} and was stopped" in gave_up("stalled", seconds).message
