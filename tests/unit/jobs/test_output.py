"""What a job prints: safe to read, bounded, and where it ended is remembered."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_mlops.jobs.output import QUIET_BURST, Budget, JobOutput, printable, trigger_log, watch
from airflow_mlops.runners.lines import LINE_LIMIT, MISSING, LineCutter
from airflow_mlops.runners.protocol import JobState, LogLine
from airflow_mlops.triggers.job import JobTrigger
from tests.fixtures.deadlines import DEADLINE

STAMP = "2026-01-05T03:00:00.123456789Z"


class Log:
    """A task's log."""

    def __init__(self):
        self.lines, self.moments, self.warnings = [], [], []

    def info(self, message, *values, timestamp=None):
        self.lines.append(message % values)
        self.moments.append(timestamp)

    def warning(self, message, *values):
        self.warnings.append(message % values)


class Printer:
    """A job that prints its lines at once, each with what is left to do before it."""

    def __init__(self, lines, pause=0.0, end="exited"):
        self.lines, self.pause, self.end = lines, pause, end

    async def wait_async(self, name, on_log, since="", deadline=None):
        for line in self.lines:
            on_log(line)
            await asyncio.sleep(self.pause)
        return JobState(self.end)


class Memory:
    def __init__(self, *, broken=False):
        self.saved, self.broken = [], broken

    async def save(self, position):
        if self.broken:
            raise RuntimeError("no API")
        self.saved.append(position)


def numbered(count):
    return [LogLine(str(number), f"line {number}") for number in range(1, count + 1)]


class TestPrinting:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("100 % of %s {x}", "100 % of %s {x}"),
            ("a\tb ü 🎉", "a\tb ü 🎉"),
            ("\x00\x1b[31mred\x07", "��[31mred�"),
            ("\ud800", "�"),
        ],
    )
    def test_nothing_in_a_line_is_a_command(self, text, shown):
        log = Log()
        JobOutput(log, "job")(LogLine("1", text))
        assert log.lines == [shown] == [printable(text)]

    @pytest.mark.parametrize(
        ("cursor", "moment"),
        [
            (STAMP, "2026-01-05T03:00:00.123456Z"),
            ("2026-01-05T03:00:00.5Z#3", "2026-01-05T03:00:00.500000Z"),
            ("2026-01-05T03:00:00Z", "2026-01-05T03:00:00.000000Z"),
            ("4711", None),
            ("nonsense T", None),
        ],
    )
    def test_a_line_has_the_moment_of_the_engine(self, cursor, moment):
        log = Log()
        JobOutput(log, "job")(LogLine(cursor, "x"))
        assert log.moments == [moment]

    def test_behind_the_limit_only_progress_is_understood(self):
        log, seen = Log(), []
        output = JobOutput(log, "job", limit=20)
        output.progress.append(seen.append)
        for line in [*numbered(10), LogLine("11", '::mlops:: {"step": 1}')]:
            output(line)
        assert log.lines == ["line 1", "line 2", "line 3"]
        assert [warning for warning in log.warnings if "job has printed 21 bytes" in warning]
        assert len(log.warnings) == 1
        assert [line.at for line in seen] == ["11"]
        assert output.position == {"cursor": "11", "printed": 21}

        again = JobOutput(log, "job", limit=20, position=output.position)
        again(LogLine("12", "more"))
        assert len(log.lines) == 3

    def test_a_secret_that_a_long_line_was_cut_in_the_middle_of_is_not_shown(self):
        secret, log = "hunter22", Log()
        cutter = LineCutter()
        for room in (0, 1, 5, 7, 8):
            line = f"key {secret} {'x' * (LINE_LIMIT - 13 - room)}{secret} and more\n"
            (text,) = cutter.feed(line.encode())
            JobOutput(log, "job", hidden=(secret,))(LogLine("1", text))
        assert len(log.lines) == 5
        for line in log.lines:
            assert line.startswith("key *** xxx")
            assert re.search(r"xxx … \[\d+ more bytes\]$", line)

    def test_what_was_thrown_away_before_the_first_line_is_said(self):
        log = Log()
        fast = JobOutput(log, "job", behind=60)
        for line in numbered(3):
            fast(line)
        position = fast.settled
        assert (position["cursor"], position["first"]) == ("", "1")
        for at, said in (("1", []), ("2", [f"Job job: {MISSING}"])):
            again = Log()
            JobOutput(again, "job", position=position)(LogLine(at, "x"))
            assert again.warnings == said

    def test_a_line_has_no_place_in_our_code_and_all_else_that_the_tasks_logger_knows(self, tmp_path):
        subprocess.run(
            [sys.executable, "-c", LINES_OF_A_TASK, tmp_path / "log"], check=True, timeout=DEADLINE
        )
        line, token, ours = map(json.loads, (tmp_path / "log").read_text().splitlines())
        assert line == {
            "timestamp": "2026-01-05T03:00:00.123456Z",
            "level": "info",
            "event": "100 % done",
            "logger": "airflow.task.some",
            "map_index": 3,
        }
        assert token["event"] == "token eyJ*** of somebody"
        assert ours["filename"] == "output.py"


#: As in the first example of RFC 7519.
TOKEN = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UifQ.c2lnbmF0dXJl"
LINES_OF_A_TASK = f"""
import os, sys, structlog
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "INFO"
from airflow.sdk.log import configure_logging
from airflow_mlops.runners.protocol import LogLine
from airflow_mlops.jobs.output import JobOutput

configure_logging(json_output=True, output=open(sys.argv[1], "wb", 0), sending_to_supervisor=True)
output = JobOutput(structlog.get_logger("airflow.task.some").bind(map_index=3), "job")
output(LogLine("{STAMP}", "100 % done"))
output(LogLine("{STAMP}", "token {TOKEN} of somebody"))
output.warn("ours")
"""


class TestWaiting:
    def wait(self, runner, memory=None, **arguments):
        output = JobOutput(Log(), "job")
        status, _ = asyncio.run(watch(runner, "job", output, memory=memory, **arguments))
        return status, output

    def test_where_it_ended_is_saved_before_anybody_is_told(self):
        memory = Memory()
        assert self.wait(Printer(numbered(5)), memory)[0] == "exited"
        assert memory.saved[-1]["cursor"] == "5"

    def test_many_lines_are_few_savings(self):
        memory = Memory()
        self.wait(Printer(numbered(300), pause=0.001), memory)
        assert 1 <= len(memory.saved) <= 4

    def test_what_cannot_be_saved_is_said_once(self):
        _, output = self.wait(Printer(numbered(300), pause=0.004), Memory(broken=True))
        assert len(output._log.warnings) == 1
        assert len(output._log.lines) == 300

    def test_an_end_of_patience(self):
        class Silent:
            async def wait_async(self, name, on_log, since="", deadline=None):
                await asyncio.sleep(0.05)
                return JobState("running")

        assert self.wait(Silent(), stall_timeout=0.1)[0] == "stalled"
        assert self.wait(Silent(), stall_timeout=60, deadline=0)[0] == "timeout"


FLOOD = """
import asyncio, re, sys
from pathlib import Path
from airflow_mlops.runners import get_runner
from airflow_mlops.runners.protocol import ContainerJob
from airflow_mlops.jobs.output import JobOutput, watch

class Log:
    bytes, warnings = 0, 0
    def info(self, message, text, **_): Log.bytes += len(text)
    def warning(self, *_): Log.warnings += 1

script = "yes $(head -c 600 /dev/zero | tr '\\\\0' x) | head -c 100m; head -c 30m /dev/zero; head -c 5m /dev/urandom; echo; echo END"
runner = get_runner("process", root=sys.argv[1])
runner.submit(ContainerJob("flood", "train", entrypoint=("sh", "-c", script)))
output = JobOutput(Log(), "flood", limit=2_000_000)
def peak():  # of this program, whatever had started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = peak()
status, _ = asyncio.run(watch(runner, "flood", output))
grown = (peak() - before) // 1024
last = runner.logs("flood")[-1].text
runner.cleanup("flood")
print(status, Log.bytes, Log.warnings, last, int(output.cursor) > 135 * 1024 ** 2, grown, before // 1024 + grown)
"""


def test_a_flood_of_lines_bytes_and_nulls_costs_neither_memory_nor_the_end(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FLOOD, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    status, printed, warnings, last, whole, grown, peak = done.stdout.split()
    assert (status, warnings, last, whole) == ("exited", "1", "END", "True")
    assert 1_900_000 < int(printed) < 2_100_000
    assert int(grown) < 30
    assert int(peak) < 300


class TestBudget:
    """A trigger prints so much and no more: the others of its triggerer want to go on."""

    def test_what_is_too_much_is_left_to_the_worker_in_front_of_which_the_position_stays(self, monkeypatch):
        monkeypatch.setattr("airflow_mlops.jobs.output.BURST", 5)
        monkeypatch.setattr("airflow_mlops.jobs.output.LINES_PER_SECOND", 0)
        log, lines = Log(), numbered(20)
        output = JobOutput(log, "job", behind=0.01)
        for line in lines:
            output(line)
        assert len(log.lines) == 5
        assert len(log.warnings) == 1
        time.sleep(0.02)  # what it takes until a printed line is sure to be in the log
        assert output.settled["cursor"] == lines[4].at
        rest = JobOutput(log, "job", position=output.settled)
        assert rest.cursor == lines[4].at
        assert output.cursor == lines[-1].at

    def test_the_jobs_of_a_triggerer_share_it_and_who_says_little_is_heard(self, monkeypatch):
        monkeypatch.setattr("airflow_mlops.jobs.output._TOGETHER", Budget(4_000, 0))
        loud = [Log() for _ in range(10)]
        for output in [JobOutput(log, "job", behind=60) for log in loud]:
            for line in numbered(1_000):
                output(line)
        assert 4_000 <= sum(len(log.lines) for log in loud) < 4_000 + 10 * 2 * QUIET_BURST
        quiet = Log()
        output = JobOutput(quiet, "job", behind=60)
        for line in numbered(QUIET_BURST):
            output(line)
        assert (len(quiet.lines), quiet.warnings) == (QUIET_BURST, [])

    def test_a_worker_prints_all(self, monkeypatch):
        monkeypatch.setattr("airflow_mlops.jobs.output.BURST", 5)
        log = Log()
        output = JobOutput(log, "job")
        for line in numbered(20):
            output(line)
        assert len(log.lines) == 20


def test_what_a_worker_prints_of_a_job_has_the_name_of_the_triggers_log():
    """Airflow shows a line once that both have printed, if it is equal."""
    assert JobTrigger(runner="docker", options={}, name="mlops-a").log.name == trigger_log().name
