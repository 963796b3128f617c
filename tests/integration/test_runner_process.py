"""The process runner with real processes: the same behaviours as of the Docker runner."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_mlops.exceptions import ContractError, EngineUnavailableError, RunnerError
from airflow_mlops.runners.files import disk
from airflow_mlops.runners.process import runner as process
from airflow_mlops.runners.process.runner import ProcessRunner
from airflow_mlops.runners.protocol import Resources
from tests.fixtures.deadlines import DEADLINE, SOON
from tests.fixtures.jobs import Heard, eventually, tiny_job

NAME = "mlops-test-process"


@pytest.fixture
def runner(tmp_path):
    runner = ProcessRunner(str(tmp_path / "jobs"))
    yield runner
    for folder in runner.root.glob("*"):
        runner.cleanup(folder.name)


def run(runner, job, heard=None):
    runner.submit(job)
    return runner.wait(job.name, heard or Heard(), deadline=time.time() + DEADLINE)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return process_fields(pid)[0] != "Z"


def process_fields(pid):
    """State, parent, ... of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def test_a_job_reads_its_inputs_and_hands_over_its_results(runner, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.parquet").write_bytes(b"x" * 3_000_000)
    heard = Heard()

    state = run(runner, tiny_job(NAME, tmp_path / "in"), heard)
    runner.collect(NAME, ("model", "output", "output/predictions.parquet"), tmp_path / "out")

    assert (state.status, state.exit_code) == ("exited", 0)
    assert state.started_at <= state.finished_at
    assert (tmp_path / "out/model/weights").read_bytes() == b"x" * 3_000_000
    metrics = json.loads((tmp_path / "out/output/metrics.json").read_text())
    assert [metric["name"] for metric in metrics] == ["auc", "brier"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model", "output"]
    assert heard.texts[0] == "tiny train begins"
    runner.cleanup(NAME)
    assert runner.inspect(NAME).status == "gone"
    assert list(runner.root.iterdir()) == []


def test_the_environment_holds_nothing_of_airflow(runner, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "a secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    heard = Heard()

    run(runner, replace(tiny_job(NAME, do="whoami"), resources=Resources(cpus=1.5)), heard)

    assert not [text for text in heard.texts if "secret" in text or "AIRFLOW" in text]
    assert "OMP_NUM_THREADS=2" in heard.texts
    assert any(text.startswith("MLOPS_ROOT=") for text in heard.texts)


def test_python_is_the_workers_own_and_knows_the_contract(runner, tmp_path):
    (tmp_path / "code.py").write_text("import sys, airflow_mlops.contract\nprint(sys.executable, sys.argv)\n")
    heard = Heard()

    job = replace(tiny_job(NAME), entrypoint=("python", "code.py"), directory=str(tmp_path))
    state = run(runner, job, heard)

    assert state.exit_code == 0, heard.texts
    assert heard.texts == [f"{sys.executable} ['code.py', 'train']"]
    assert not (tmp_path / "__pycache__").exists()


def test_two_submits_start_one_job(runner, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_bytes(b"x" * 20_000_000)
    job = tiny_job(NAME, tmp_path / "in", do="chatter", lines="3", pause="0.2")
    runners = [ProcessRunner(str(runner.root)) for _ in range(6)]

    with ThreadPoolExecutor(6) as pool:
        states = list(pool.map(lambda each: each.submit(job), runners))
    state = runner.wait(NAME, Heard(), deadline=time.time() + DEADLINE)

    assert {each.status for each in states} <= {"running", "exited"}
    assert [line.text for line in runner.logs(NAME)] == ["tiny train begins", "line 1", "line 2", "line 3"]
    assert runner.submit(job) == state


def test_lines_come_while_the_job_runs(runner):
    heard = Heard()

    run(runner, tiny_job(NAME, do="chatter", lines="6", pause="0.4"), heard)
    ended = time.monotonic()

    assert heard.texts == ["tiny train begins", *(f"line {number}" for number in range(1, 7))]
    assert ended - heard.moments[1] > 1


def test_giant_lines_and_progress_bars_are_cut(runner):
    heard = Heard()

    run(runner, tiny_job(NAME, do="progress"), heard)

    assert heard.texts[1:4] == ["10%", "50%", "100%"]
    assert heard.texts[4].endswith("[31808 more bytes]")
    assert heard.texts[5:] == ["to stderr", "the end, without a newline"]
    lines = runner.logs(NAME)
    assert [line.text for line in lines] == heard.texts
    assert runner.logs(NAME, since=lines[2].at) == lines[3:]


@pytest.mark.parametrize("code", [10, 11, 12, 13, 75, 143, 1])
def test_exit_codes_and_reasons_come_through(runner, tmp_path, code):
    state = run(runner, tiny_job(NAME, do="exit", code=str(code)))
    runner.collect(NAME, ("output",), tmp_path)

    assert (state.status, state.exit_code) == ("exited", code)
    assert (tmp_path / "output/failure").read_text() == f"the reason is code {code}\n"


@pytest.mark.parametrize(("do", "code"), [("deaf", 137), ("sleep", 143)])
def test_stop_ends_a_job_before_it_would_end(runner, do, code):
    runner.submit(tiny_job(NAME, do=do, seconds="600"))
    eventually(lambda: runner.logs(NAME))
    began = time.monotonic()

    runner.stop(NAME)

    assert time.monotonic() - began < SOON
    assert (runner.inspect(NAME).status, runner.inspect(NAME).exit_code) == ("exited", code)
    runner.stop(NAME)


def test_what_a_job_leaves_running_dies_with_it(runner, tmp_path):
    run(runner, tiny_job(NAME, do="orphan"))
    runner.collect(NAME, ("output",), tmp_path)

    pid = int((tmp_path / "output/orphan").read_text())
    eventually(lambda: not alive(pid))


def test_what_it_started_in_another_session_dies_with_it_too(runner, tmp_path):
    """As the processes of a distributed training, whose launcher is killed before it can end them."""
    script = 'setsid sleep 600 & echo $! >"$MLOPS_ROOT/output/orphan"; sleep 600'
    runner.submit(replace(tiny_job(NAME), entrypoint=("sh", "-c", script)))
    orphan = runner.root / NAME / "ml/output/orphan"
    eventually(lambda: orphan.exists() and orphan.read_text().endswith("\n"))
    pid = int(orphan.read_text())

    assert alive(pid)
    runner.cleanup(NAME)
    eventually(lambda: not alive(pid))


def test_stop_and_cleanup_of_nothing_are_no_error(runner):
    runner.stop("nothing")
    asyncio.run(runner.stop_async("nothing"))
    runner.cleanup("nothing")
    assert runner.logs("nothing") == []
    assert runner.wait("nothing", Heard()).status == "gone"


@pytest.mark.parametrize("do", ["link", "linked_folder", "pipe"])
def test_links_and_pipes_are_not_taken_over(runner, tmp_path, do):
    run(runner, tiny_job(NAME, do=do))

    with pytest.raises(ContractError, match="not taken over"):
        runner.collect(NAME, ("output",), tmp_path / "out")
    assert not (tmp_path / "out/output").exists()


def test_more_than_the_limit_is_not_taken_over(runner, tmp_path):
    run(runner, tiny_job(NAME, do="big"))

    with pytest.raises(ContractError, match="more than 2000000 bytes"):
        ProcessRunner(str(runner.root), limit_bytes=2_000_000).collect(NAME, ("output",), tmp_path / "out")
    assert not (tmp_path / "out/output").exists()


def test_the_waiter_dies_and_the_next_one_adopts(runner):
    code = (
        "import sys; from tests.fixtures.jobs import *; from airflow_mlops.runners import get_runner\n"
        f"runner = get_runner('process', root={str(runner.root)!r})\n"
        f"job = tiny_job({NAME!r}, do='chatter', lines='6', pause='0.5')\n"
        "runner.submit(job); runner.wait(job.name, lambda line: print(line.text, flush=True))"
    )
    waiter = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert waiter.stdout.readline() == "tiny train begins\n"
    os.killpg(waiter.pid, signal.SIGKILL)
    waiter.wait()
    heard = Heard()

    state = run(runner, tiny_job(NAME, do="chatter", lines="6", pause="0.5"), heard)

    assert state.exit_code == 0
    assert heard.texts == ["tiny train begins", *(f"line {number}" for number in range(1, 7))]


def test_a_dead_supervisor_makes_the_job_gone_and_a_submit_starts_it_anew(runner):
    runner.submit(tiny_job(NAME, do="sleep", seconds="600"))
    pid = json.loads((runner.root / NAME / "started.json").read_text())["pid"]
    supervisor = int(process_fields(pid)[1])

    os.kill(supervisor, signal.SIGKILL)

    assert runner.wait(NAME, Heard(), deadline=time.time() + DEADLINE).status == "gone"
    assert "supervisor died" in runner.inspect(NAME).error
    eventually(lambda: not alive(pid))
    assert run(runner, tiny_job(NAME)).exit_code == 0


def test_a_supervisor_that_died_before_it_began_makes_the_job_gone(runner, monkeypatch, tmp_path):
    (tmp_path / "dies.py").write_text("import sys; sys.exit(0)")
    monkeypatch.setattr(Path, "with_name", lambda _, __: tmp_path / "dies.py")
    runner.submit(tiny_job(NAME))

    state = runner.wait(NAME, Heard(), deadline=time.time() + DEADLINE)

    assert (state.status, "supervisor died" in state.error) == ("gone", True)


def test_a_number_that_belongs_to_somebody_else_is_not_signalled(runner):
    runner.submit(tiny_job(NAME, do="sleep", seconds="600"))
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    started = runner.root / NAME / "started.json"
    content = json.loads(started.read_text())
    try:
        started.write_text(json.dumps({**content, "pid": bystander.pid}))
        runner.stop(NAME, grace=0)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        started.write_text(json.dumps(content))


def test_a_deadline_ends_the_waiting_and_nothing_else(runner):
    runner.submit(tiny_job(NAME, do="sleep", seconds="600"))

    state = runner.wait(NAME, Heard(), deadline=time.time() + 0.5)

    assert state.status == "running"
    assert runner.inspect(NAME).status == "running"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"directory": "/no/such/folder"}, "code.process.directory"),
        ({"entrypoint": ()}, "code.process.command"),
        ({"inputs": {"input/data/train": "/no/such/data"}}, "neither a file nor a folder"),
        ({"inputs": {"../../outside": __file__}}, "without '..'"),
        ({"name": "../escape"}, "must be letters"),
    ],
)
def test_a_job_that_cannot_be_leaves_nothing(runner, change, words):
    with pytest.raises(RunnerError, match=words):
        runner.submit(replace(tiny_job(NAME), **change))
    assert list(runner.root.glob("*")) == []


def test_a_program_that_is_not_there_is_the_jobs_failure(runner):
    state = run(runner, replace(tiny_job(NAME), entrypoint=("no-such-program",)))

    assert (state.status, state.exit_code) == ("exited", 127)
    assert "no-such-program" in state.error


def test_a_worker_that_stands_still_while_it_starts_a_job_is_not_waited_for_for_ever(
    runner, tmp_path, monkeypatch
):
    monkeypatch.setattr(process, "START_WAIT", 0.3)
    folder = runner._folder("job")
    folder.mkdir(parents=True)
    with process._locked(folder) as lock:
        assert lock is not None
        with pytest.raises(EngineUnavailableError, match=r"another worker has been starting it.*fuser"):
            runner.submit(tiny_job("job", do="learn"))


def test_a_job_that_writes_more_than_it_may_is_killed(runner, monkeypatch):
    monkeypatch.setattr(disk, "LOOK_EVERY", 0.2)
    job = replace(tiny_job(NAME, do="fill"), resources=Resources(disk=30 * 1024**2))

    assert run(runner, job).cause == "over_disk"

    state = runner.inspect(NAME)
    assert (state.exit_code, state.cause) == (137, "over_disk")
    assert "30 MiB may. Cure" in state.error
