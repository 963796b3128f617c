"""The trigger with real jobs: what it reports, logs and stops."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from airflow_mlops.exceptions import EngineUnavailableError
from airflow_mlops.runners import get_runner
from airflow_mlops.triggers.job import HOPELESS, JobTrigger
from tests.fixtures.deadlines import SOON
from tests.fixtures.jobs import eventually, tiny_job
from tests.fixtures.tiny_operator import lines_of


@pytest.fixture
def options(tmp_path):
    return {"root": str(tmp_path / "jobs")}


@pytest.fixture
def runner(options):
    runner = get_runner("process", **options)
    yield runner
    for folder in runner.root.glob("*"):
        runner.cleanup(folder.name)


def fire(trigger):
    async def first():
        return (await anext(trigger.run())).payload

    return asyncio.run(first())


def made_again(trigger):
    """The trigger as the triggerer gets it: out of JSON."""
    path, kwargs = json.loads(json.dumps(trigger.serialize()))
    assert path == "airflow_mlops.triggers.job.JobTrigger"
    return JobTrigger(**kwargs)


def test_it_logs_every_line_and_reports_the_end(runner, options, monkeypatch):
    runner.submit(tiny_job("job", do="chatter", lines="3", pause="0.2"))
    trigger = made_again(JobTrigger(runner="process", options=options, name="job"))
    lines = lines_of(trigger, monkeypatch)

    event = fire(trigger)

    assert lines == ["tiny train begins", "line 1", "line 2", "line 3"]
    assert (event["status"], event["state"]["exit_code"]) == ("exited", 0)
    assert event["rest"], "the worker prints what the triggerer may have lost"
    json.dumps(event)


def test_a_job_that_is_not_there_is_gone(runner, options):
    assert fire(JobTrigger(runner="process", options=options, name="nothing"))["status"] == "gone"


def test_the_deadline_is_reported_and_the_job_goes_on(runner, options):
    runner.submit(tiny_job("job", do="sleep", seconds="600"))

    event = fire(JobTrigger(runner="process", options=options, name="job", deadline=time.time() + 0.5))

    assert (event["status"], event["state"]["status"]) == ("timeout", "running")
    assert runner.inspect("job").status == "running"


def test_errors_on_the_way_are_survived_without_losing_a_line(runner, options, monkeypatch):
    runner.submit(tiny_job("job", do="chatter", lines="4", pause="0.1"))
    trigger = JobTrigger(runner="process", options=options, name="job")
    lines, failures = lines_of(trigger, monkeypatch), []
    wait = type(runner).wait_async

    async def fail_first(self, name, on_log, since="", deadline=None):
        if not failures:
            failures.append(1)
            await wait(self, name, on_log, since, time.time() + 0.3)
            raise EngineUnavailableError("away for a moment")
        return await wait(self, name, on_log, since, deadline)

    monkeypatch.setattr(type(runner), "wait_async", fail_first)

    event = fire(trigger)

    assert event["status"] == "exited"
    assert "Watching job job failed, trying again in 1 s: away for a moment" in lines
    said = [line for line in lines if not line.startswith("Watching")]
    assert said == ["tiny train begins", "line 1", "line 2", "line 3", "line 4"]


def test_what_passes_is_waited_for_without_end(runner, options, monkeypatch):
    runner.submit(tiny_job("job"))
    trigger, failures = JobTrigger(runner="process", options=options, name="job"), []
    lines, wait = lines_of(trigger, monkeypatch), type(runner).wait_async
    monkeypatch.setattr("airflow_mlops.triggers.job.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("airflow_mlops.triggers.job.LONGEST_PAUSE", 0.001)

    async def away(self, *arguments):
        failures.append(1)
        if len(failures) <= 3 * HOPELESS:
            raise EngineUnavailableError("away")
        return await wait(self, *arguments)

    monkeypatch.setattr(type(runner), "wait_async", away)
    assert fire(trigger)["status"] == "exited"
    assert len([line for line in lines if line.endswith("away")]) == 3 * HOPELESS


def test_what_does_not_pass_is_told_to_a_worker(monkeypatch):
    monkeypatch.setattr("airflow_mlops.triggers.job.LONGEST_PAUSE", 0.001)
    monkeypatch.setattr("airflow_mlops.triggers.job.FIRST_PAUSE", 0.001)
    trigger = JobTrigger(runner="process", options={"rot": "/tmp"}, name="job")
    lines = lines_of(trigger, monkeypatch)

    event = fire(trigger)

    assert event["status"] == "error"
    assert "RunnerError: Options of runner 'process' do not fit" in event["message"]
    assert len(lines) == HOPELESS - 1
    json.dumps(event)


def test_a_wrong_option_ends_at_the_deadline(monkeypatch):
    trigger = JobTrigger(runner="process", options={"rot": "/tmp"}, name="job", deadline=time.time() + 0.5)

    assert fire(trigger) == {"status": "timeout", "state": None, "position": {}, "rest": True}


def test_the_end_of_the_triggerer_leaves_the_job_alone(runner, options):
    runner.submit(tiny_job("job", do="sleep", seconds="600"))
    trigger = JobTrigger(runner="process", options=options, name="job")

    async def cancelled():
        task = asyncio.create_task(anext(trigger.run()))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await trigger.cleanup()

    asyncio.run(cancelled())

    assert runner.inspect("job").status == "running"


def test_a_user_who_ends_the_task_ends_the_job(runner, options):
    runner.submit(tiny_job("job", do="sleep", seconds="600"))

    asyncio.run(made_again(JobTrigger(runner="process", options=options, name="job")).on_kill())

    assert runner.inspect("job").status == "gone"


@pytest.mark.docker
@pytest.mark.usefixtures("tiny_image", "no_leftovers")
def test_it_waits_for_and_stops_containers(docker_engine):
    name, options = "mlops-test-trigger", {"docker_conn_id": ""}
    runner = get_runner("docker", **options)
    try:
        runner.submit(tiny_job(name, do="chatter", lines="3", pause="0.1"))
        event = fire(JobTrigger(runner="docker", options=options, name=name))
        assert (event["status"], event["state"]["exit_code"]) == ("exited", 0)
        runner.cleanup(name)

        runner.submit(tiny_job(name, do="sleep", seconds="600"))
        eventually(lambda: runner.logs(name))
        began = time.monotonic()
        asyncio.run(JobTrigger(runner="docker", options=options, name=name).on_kill())
        assert time.monotonic() - began < SOON
        assert docker_engine.containers(name) == []
    finally:
        runner.cleanup(name)
