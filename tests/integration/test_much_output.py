"""More output than a Docker Engine keeps, and none of it text."""

from __future__ import annotations

import asyncio

import pytest

from airflow_mlops.jobs.log import print_rest
from airflow_mlops.runners import get_runner
from airflow_mlops.runners.lines import MISSING
from airflow_mlops.triggers.job import JobTrigger
from tests.fixtures.jobs import tiny_job
from tests.fixtures.tiny_operator import lines_of

NAME, OPTIONS = "mlops-test-flood", {"docker_conn_id": ""}
#: Six times as many in the engine's files, of which it keeps 128 MB at most.
WRITTEN = 22 * 1024**2
LIMIT = 256 * 1024


@pytest.mark.docker
@pytest.mark.usefixtures("tiny_image", "no_leftovers")
def test_what_the_engine_threw_away_is_said_and_the_rest_is_shown(monkeypatch):
    runner = get_runner("docker", **OPTIONS)
    trigger = JobTrigger(runner="docker", options=OPTIONS, name=NAME, log_limit=LIMIT)
    lines = lines_of(trigger, monkeypatch)
    try:
        runner.submit(tiny_job(NAME, do="flood", seconds="0.5", bytes=str(WRITTEN)))
        event = asyncio.run(anext(trigger.run())).payload
        assert lines[0] == "tiny train begins"
        first = event["position"]["first"]
        assert event["position"]["cursor"] == "", "all of it is the worker's to print again"
        shown = len(lines)

        monkeypatch.setattr("airflow_mlops.jobs.log.trigger_log", lambda: trigger.log)
        end = print_rest(runner, NAME, {"cursor": first}, (), LIMIT, trigger.log)
        assert lines[shown] == MISSING
        assert set("".join(lines[shown + 1 : -1])) == {"\N{REPLACEMENT CHARACTER}"}
        assert "the limit of what goes to this log" in lines[-1]
        assert end["printed"] >= LIMIT
        assert end["cursor"] > first
    finally:
        runner.cleanup(NAME)
