"""The Docker runner against a real engine."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from airflow_mlops.exceptions import ContractError, EngineUnavailableError, ImageNotFoundError, RunnerError
from airflow_mlops.hooks.docker.address import EngineAddress
from airflow_mlops.runners import get_runner
from airflow_mlops.runners.docker.runner import DockerRunner
from airflow_mlops.runners.protocol import Resources
from tests.fixtures.deadlines import DEADLINE, SOON
from tests.fixtures.jobs import Heard, eventually, tiny_job
from tests.fixtures.proxy import Proxy

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("tiny_image", "no_leftovers")]
NAME = "mlops-test-docker"


@pytest.fixture
def runner(docker_engine):
    return DockerRunner(docker_conn_id=None, adopt_after=1)


@pytest.fixture
def name(docker_engine, request):
    yield (name := f"{NAME}-{request.node.name.replace('[', '-').rstrip(']')}"[:100])
    if docker_engine.containers(name):
        docker_engine("rm", "--force", "--volumes", name)


def run(runner, job, heard=None):
    runner.submit(job)
    return runner.wait(job.name, heard or Heard(), deadline=time.time() + DEADLINE)


def test_a_job_reads_its_inputs_and_hands_over_its_results(runner, name, docker_engine, tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/a.parquet").write_bytes(b"x" * 3_000_000)
    (tmp_path / "in/deep/b.parquet").write_bytes(b"y")
    job = tiny_job(name, tmp_path / "in")
    heard = Heard()

    state = run(runner, replace(job, inputs={**job.inputs, "input/data/manifest.json": __file__}), heard)
    runner.collect(name, ("model", "output", "output/predictions.parquet"), tmp_path / "out")

    assert (state.status, state.exit_code, state.out_of_memory) == ("exited", 0, False)
    assert state.image_digest == docker_engine("image", "inspect", "--format", "{{.Id}}", job.image)
    assert (tmp_path / "out/model/weights").read_bytes() == b"x" * 3_000_000
    metrics = json.loads((tmp_path / "out/output/metrics.json").read_text())
    assert [metric["name"] for metric in metrics] == ["auc", "brier"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model", "output"]
    assert heard.texts[0] == "tiny train begins"
    runner.cleanup(name)
    assert runner.inspect(name).status == "gone"
    assert docker_engine.containers(name) == []


def test_the_job_is_limited_and_unprivileged(runner, name, docker_engine):
    job = replace(
        tiny_job(name, do="whoami"),
        resources=Resources(cpus=0.5, memory=256 * 1024**2, shm=32 * 1024**2, pids=77),
    )
    heard = Heard()

    run(runner, job, heard)
    (info,) = json.loads(docker_engine("inspect", name))

    limits = info["HostConfig"]
    assert (limits["NanoCpus"], limits["Memory"], limits["MemorySwap"]) == (
        500_000_000,
        256 * 1024**2,
        256 * 1024**2,
    )
    assert (limits["ShmSize"], limits["PidsLimit"], limits["Init"]) == (32 * 1024**2, 77, True)
    assert (limits["CapDrop"], limits["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
    assert (limits["NetworkMode"], limits["Privileged"], limits["Binds"]) == ("none", False, None)
    assert info["Image"].startswith("sha256:")
    labels = info["Config"]["Labels"]
    assert labels["ai.airflow-mlops.name"] == name
    assert labels["ai.airflow-mlops.application"] == "tiny"
    assert labels["ai.airflow-mlops.image-digest"] == info["Image"]
    assert any(line.startswith("uid=1000") and "gid=1000" in line for line in heard.texts)
    assert any(line.startswith("drwxr-xr-x") and "/opt/ml/output" in line for line in heard.texts)
    assert not [line for line in heard.texts if "AIRFLOW" in line]


def test_two_submits_make_one_container(runner, name, docker_engine, tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 20_000_000)
    job = tiny_job(name, tmp_path)
    runners = [DockerRunner(docker_conn_id=None) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda each: each.submit(job), runners))
    state = runner.wait(name, Heard(), deadline=time.time() + DEADLINE)
    again = runner.submit(job)

    assert {each.status for each in states} <= {"running", "exited"}
    assert len(docker_engine.containers(name)) == 1
    assert again == state
    assert state.exit_code == 0
    (identifier,) = docker_engine("ps", "-aq", "--no-trunc", "--filter", f"name={name}").split()
    asked = ("--since", "1m", "--until", str(int(time.time()) + 1), "--format", "{{.Action}}")
    events = docker_engine("events", *asked, "--filter", f"container={identifier}").split()
    assert (events.count("create"), events.count("start")) == (1, 1)


def test_a_container_that_was_never_started_is_adopted(runner, name, docker_engine, tmp_path):
    (tmp_path / "a").write_bytes(b"data")
    docker_engine("create", "--name", name, "--label", f"ai.airflow-mlops.name={name}", "--user", "1000",
                  "airflow-mlops-test-tiny:1", "train")  # fmt: skip

    state = run(runner, tiny_job(name, tmp_path))
    runner.collect(name, ("model",), tmp_path / "out")

    assert state.exit_code == 0
    assert (tmp_path / "out/model/weights").read_bytes() == b"data"


def test_a_foreign_container_is_left_alone(runner, name, docker_engine):
    docker_engine("create", "--name", name, "airflow-mlops-test-tiny:1", "train")
    try:
        with pytest.raises(RunnerError, match="airflow-mlops did not make it"):
            runner.submit(tiny_job(name))
        assert docker_engine("inspect", "--format", "{{.State.Status}}", name) == "created"
    finally:
        docker_engine("rm", "--force", name)


def test_lines_come_while_the_job_runs(runner, name):
    heard = Heard()

    state = run(runner, tiny_job(name, do="chatter", lines="8", pause="0.3"), heard)
    ended = time.monotonic()

    assert state.exit_code == 0
    assert heard.texts == ["tiny train begins", *(f"line {number}" for number in range(1, 9))]
    assert ended - heard.moments[2] > 1


def test_giant_lines_and_progress_bars_are_cut(runner, name):
    heard = Heard()

    run(runner, tiny_job(name, do="progress"), heard)

    assert [text for text in heard.texts if text.endswith("%")] == ["10%", "50%", "100%"]
    (giant,) = (text for text in heard.texts if text.startswith("xx"))
    assert len(giant) < 8300
    assert giant.endswith("[31808 more bytes]")
    assert {"to stderr", "the end, without a newline"} <= set(heard.texts)
    assert [line.text for line in runner.logs(name)] == heard.texts


def test_the_cursor_goes_on_where_it_was(runner, name):
    run(runner, tiny_job(name, do="chatter", lines="20", pause="0"))
    lines = runner.logs(name)

    assert runner.logs(name, since=lines[7].at) == lines[8:]
    assert runner.logs(name, since=lines[-1].at) == []


@pytest.mark.parametrize("code", [10, 11, 12, 13, 75, 143, 1])
def test_exit_codes_and_reasons_come_through(runner, name, tmp_path, code):
    state = run(runner, tiny_job(name, do="exit", code=str(code)))
    runner.collect(name, ("output",), tmp_path)

    assert (state.status, state.exit_code) == ("exited", code)
    assert (tmp_path / "output/failure").read_text() == f"the reason is code {code}\n"


def test_out_of_memory_is_seen(runner, name):
    job = replace(tiny_job(name, do="eat"), resources=Resources(memory=32 * 1024**2))

    state = run(runner, job)

    assert state.status == "exited"
    assert state.exit_code != 0
    assert state.out_of_memory


@pytest.mark.parametrize(("do", "code"), [("deaf", 137), ("sleep", 143)])
def test_stop_ends_a_job_before_it_would_end(runner, name, do, code):
    runner.submit(tiny_job(name, do=do, seconds="600"))
    eventually(lambda: runner.logs(name))
    began = time.monotonic()

    runner.stop(name)

    assert time.monotonic() - began < SOON
    state = runner.inspect(name)
    assert (state.status, state.exit_code, state.out_of_memory) == ("exited", code, False)
    runner.stop(name)


def test_stop_and_cleanup_of_nothing_are_no_error(runner):
    runner.stop(f"{NAME}-nothing")
    asyncio.run(runner.stop_async(f"{NAME}-nothing"))
    runner.cleanup(f"{NAME}-nothing")
    assert runner.wait(f"{NAME}-nothing", Heard()).status == "gone"


@pytest.mark.parametrize("do", ["link", "linked_folder", "pipe"])
def test_links_and_pipes_are_not_taken_over(runner, name, tmp_path, do):
    run(runner, tiny_job(name, do=do))

    with pytest.raises(ContractError, match="not taken over"):
        runner.collect(name, ("output",), tmp_path / "out")
    assert not (tmp_path / "out/output").exists()


def test_more_than_the_limit_is_not_taken_over(name, tmp_path):
    runner = DockerRunner(docker_conn_id=None, limit_bytes=2_000_000)
    run(runner, tiny_job(name, do="big"))

    with pytest.raises(ContractError, match="more than 2000000 bytes"):
        runner.collect(name, ("output",), tmp_path / "out")
    assert not (tmp_path / "out/output").exists()


def test_the_waiter_dies_and_the_next_one_adopts(runner, name, docker_engine):
    code = (
        "import sys; from tests.fixtures.jobs import *; from airflow_mlops.runners import get_runner\n"
        "runner = get_runner('docker', docker_conn_id=None)\n"
        f"job = tiny_job({name!r}, do='chatter', lines='12', pause='0.5')\n"
        "runner.submit(job); runner.wait(job.name, lambda line: print(line.text, flush=True))"
    )
    waiter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert waiter.stdout.readline() == "tiny train begins\n"
    waiter.send_signal(signal.SIGKILL)
    waiter.wait()
    first = docker_engine("inspect", "--format", "{{.Id}}", name)
    heard = Heard()

    state = run(runner, tiny_job(name, do="chatter", lines="12", pause="0.5"), heard)

    assert state.exit_code == 0
    assert docker_engine("inspect", "--format", "{{.Id}}", name) == first
    assert len(heard.texts) == 13


def test_an_engine_that_is_away_loses_and_doubles_no_line(name, tmp_path, runner):
    proxy = Proxy(tmp_path / "engine.sock", "/var/run/docker.sock")
    proxy.mend()
    through = DockerRunner(docker_conn_id=None)
    through.hook.__dict__["address"] = EngineAddress(proxy.url)
    heard = Heard()
    runner.submit(tiny_job(name, do="chatter", lines="60", pause="0.1"))
    try:
        waiting = ThreadPoolExecutor(1).submit(through.wait, name, heard, "", time.time() + 60)
        for count in (5, 20, 35):
            eventually(lambda count=count: len(heard.lines) > count)
            proxy.cut()
            threading.Event().wait(0.5)
            proxy.mend()
        state = waiting.result(timeout=DEADLINE)
    finally:
        proxy.cut()

    assert state.exit_code == 0
    assert heard.texts == ["tiny train begins", *(f"line {number}" for number in range(1, 61))]


def test_a_deadline_ends_the_waiting_and_nothing_else(runner, name):
    runner.submit(tiny_job(name, do="sleep", seconds="600"))
    began = time.monotonic()

    state = runner.wait(name, Heard(), deadline=time.time() + 1)

    assert time.monotonic() - began < SOON
    assert state.status == "running"
    assert runner.inspect(name).status == "running"


def test_a_container_removed_by_hand_is_gone(runner, name, docker_engine):
    runner.submit(tiny_job(name, do="sleep", seconds="600"))
    waiting = ThreadPoolExecutor(1).submit(runner.wait, name, Heard())

    docker_engine("rm", "--force", name)

    assert waiting.result(timeout=DEADLINE).status == "gone"


def test_an_absent_image_says_where_and_what_to_do(runner, name, docker_engine):
    with pytest.raises(ImageNotFoundError) as caught:
        runner.submit(replace(tiny_job(name), image="mlops-no-such-image:1"))

    assert "mlops-no-such-image:1" in str(caught.value)
    assert "unix://" in str(caught.value)
    assert "docker build" in str(caught.value)
    assert docker_engine.containers(name) == []


def test_a_registry_out_of_reach_is_an_absent_image(runner, name):
    with pytest.raises(ImageNotFoundError, match=r"cannot be pulled.*Cure"):
        runner.submit(replace(tiny_job(name), image="127.0.0.1:9/mlops:1"))


def test_an_image_without_the_label_is_refused(runner, name, base_image, docker_engine):
    with pytest.raises(
        ContractError, match=r"ai\.airflow-mlops\.contract=1; it has no such label.*Dockerfile"
    ):
        runner.submit(replace(tiny_job(name), image=base_image))
    assert docker_engine.containers(name) == []


def test_an_unknown_network_leaves_no_container(runner, name, docker_engine):
    with pytest.raises(RunnerError, match="mlops-no-such-network"):
        runner.submit(replace(tiny_job(name), network="mlops-no-such-network"))
    assert docker_engine.containers(name) == []


def test_a_missing_input_leaves_no_container(runner, name, docker_engine, tmp_path):
    with pytest.raises(RunnerError, match="neither a file nor a folder"):
        runner.submit(tiny_job(name, tmp_path / "nothing"))
    assert docker_engine.containers(name) == []


def test_an_engine_that_is_not_there_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    runner = get_runner("docker", docker_conn_id=None)

    with pytest.raises(EngineUnavailableError, match=r"none\.sock does not answer.*Cure"):
        runner.inspect("anything")
    assert EngineUnavailableError.retriable
