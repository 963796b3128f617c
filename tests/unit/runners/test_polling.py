"""Looking at a service that can only be asked."""

from __future__ import annotations

import asyncio
import time

import pytest

from airflow_mlops.runners import polling
from airflow_mlops.runners.aws.cloudwatch_lines import new_lines
from airflow_mlops.runners.polling import poll
from airflow_mlops.runners.protocol import JobState
from tests.fixtures.deadlines import SOON
from tests.fixtures.jobs import Heard

#: More than ``Runner.logs`` gives, in fewer milliseconds than lines.
BURST = 25_000


class Stream:
    """A stream of CloudWatch that has had a burst."""

    def events(self, _, since=0):
        for number in range(BURST):
            if (moment := 1_790_000_000_000 + number // 7) >= since:
                yield moment, f"line {number}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(polling, "LAST_OUTPUT", 0.01)


def test_a_burst_of_output_loses_no_line():
    heard = Heard()
    state = asyncio.run(
        poll(
            lambda: JobState("exited", 0),
            lambda cursor: new_lines(Stream(), "s", cursor),
            heard,
            "",
            None,
        )
    )
    assert state.exit_code == 0
    assert heard.texts == [f"line {number}" for number in range(BURST)]


def test_the_deadline_holds_for_a_job_that_speaks_without_end():
    def endless(_):
        while True:
            yield from new_lines(Stream(), "s")

    began = time.monotonic()
    state = asyncio.run(poll(lambda: JobState("running"), endless, Heard(), "", time.time() + 0.2))
    assert state.status == "running"
    assert time.monotonic() - began < SOON
