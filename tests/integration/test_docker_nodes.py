"""Jobs with GPUs on two real engines behind TLS, whose driver only pretends."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_mlops.exceptions import EngineUnavailableError, GpusMissingError, GpusTakenError
from airflow_mlops.hooks.docker.hook import DockerEngineHook
from airflow_mlops.jobs import gpus as waiting
from airflow_mlops.operators.model_code import ModelCodeOperator
from airflow_mlops.runners import get_runner
from airflow_mlops.runners.protocol import Resources
from airflow_mlops.triggers.gpus import FreeGpuTrigger
from airflow_mlops.triggers.job import JobTrigger
from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.gpu_engines import GPU_IMAGE, SEEN, TOLD
from tests.fixtures.jobs import Heard, tiny_job
from tests.fixtures.tasks import context

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("gpu_nodes")]

BOTH = {"nodes": ["gpu_a", "gpu_b"]}


def nodes(**options):
    return get_runner("docker_nodes", **BOTH, **options)


def job(gpus, tried=1, **parameters):
    made = tiny_job(f"mlops-test-node-{uuid.uuid4().hex[:12]}", **parameters)
    labels = {**made.labels, "try": str(tried)}
    return replace(made, image=GPU_IMAGE, labels=labels, resources=Resources(gpus=gpus))


def given(engine, name):
    """GPUs of a container, as the engine was told and as the container sees it."""
    (info,) = json.loads(engine("inspect", name))
    (request,) = info["HostConfig"]["DeviceRequests"]
    return request["DeviceIDs"]


def test_a_job_goes_where_gpus_are_free_and_is_found_there_again(gpu_nodes):
    a, b = gpu_nodes
    first, second, third = (job(2, do="sleep", seconds="600") for _ in range(3))
    states = [nodes().submit(each) for each in (first, second)]

    assert [state.node for state in states] == ["gpu_a", "gpu_b"]
    assert given(a, first.name) == list(TOLD)
    assert given(b, second.name) == list(SEEN)
    with pytest.raises(GpusTakenError, match=first.name):
        nodes().submit(third)
    assert not nodes().gpus_free(third.name, 2, GPU_IMAGE)
    # A retry adopts the job where it is; who knows the node asks nobody else.
    assert nodes().submit(second).node == "gpu_b"
    assert nodes(node="gpu_b").inspect(second.name).status == "running"
    assert nodes(node="gpu_a").inspect(second.name).status == "gone"
    asyncio.run(nodes().stop_async(second.name))
    heard = Heard()
    assert asyncio.run(nodes().wait_async(second.name, heard)).exit_code == 143
    assert "tiny was asked to stop" in heard.texts

    # Its result is still there, and its GPUs are another's already.
    assert nodes().gpus_free(third.name, 2, GPU_IMAGE)
    assert nodes().submit(third).node == "gpu_b"
    nodes().cleanup(second.name)
    assert given(b, third.name) == list(SEEN)
    for each in (first, third):
        nodes().cleanup(each.name)
    assert a("ps", "-aq") == b("ps", "-aq") == ""


def test_a_job_sees_its_own_gpus_and_without_any_none(gpu_nodes):
    heard = {1: Heard(), 0: Heard()}
    for gpus, lines in heard.items():
        asked = job(gpus, do="whoami")
        nodes().submit(asked)
        nodes().wait(asked.name, lines, deadline=time.time() + DEADLINE)
        nodes().cleanup(asked.name)

    assert f"NVIDIA_VISIBLE_DEVICES={TOLD[0]}" in heard[1].texts
    # The image itself asks for all.
    assert "NVIDIA_VISIBLE_DEVICES=void" in heard[0].texts


def test_a_type_is_found_where_it_is(gpu_nodes):
    for kind, gpu in (("h100", SEEN[0]), ("L4", SEEN[1])):
        asked = job({"type": kind, "count": 1})
        assert nodes().submit(asked).node == "gpu_b"
        assert given(gpu_nodes[1], asked.name) == [gpu]
        nodes().cleanup(asked.name)
    with pytest.raises(GpusMissingError, match="type H200"):
        nodes().submit(job({"type": "H200", "count": 1}))


def test_jobs_that_start_at_once_never_share_a_gpu(gpu_nodes):
    """Ten jobs for four GPUs, each on its own until it is over."""

    def train(_):
        asked, runner = job(1, do="nap", seconds="1"), nodes()
        while True:
            try:
                state = runner.submit(asked)
                break
            except GpusTakenError:
                time.sleep(random.uniform(0.05, 0.3))
        ended = runner.wait(asked.name, Heard(), deadline=time.time() + DEADLINE)
        (gpu,) = given(gpu_nodes[state.node == "gpu_b"], asked.name)
        runner.cleanup(asked.name)
        return gpu, ended.started_at, ended.finished_at

    with ThreadPoolExecutor(10) as pool:
        ran = sorted(pool.map(train, range(10)))

    assert {gpu for gpu, _, _ in ran} == {*TOLD, *SEEN}
    for (gpu, _, finished), (next_gpu, started, _) in pairwise(ran):
        assert gpu != next_gpu or finished <= started


def test_a_node_that_is_away_loses_and_doubles_no_job(gpu_nodes, monkeypatch):
    away = '{"conn_type": "docker", "extra": {"engine": "tcp://127.0.0.1:9"}}'
    monkeypatch.setenv("AIRFLOW_CONN_GPU_AWAY", away)
    runner = get_runner("docker_nodes", nodes=["gpu_away", "gpu_a"])
    asked = job(1, do="sleep", seconds="600")

    assert runner.submit(asked).node == "gpu_a"
    assert runner.submit(replace(asked, labels={**asked.labels, "try": "2"})).node == "gpu_a"
    with pytest.raises(
        EngineUnavailableError, match=r"may be on a node that does not answer.*gpu_away.*nodes"
    ):
        runner.submit(job(1, tried=2))
    assert asked.name in [found.name for found in runner.jobs()]
    runner.cleanup(asked.name)
    with pytest.raises(EngineUnavailableError, match="may be on a node"):
        runner.cleanup(asked.name)
    assert len(gpu_nodes[0]("ps", "-aq")) == 0


def test_a_stranger_is_not_let_in(gpu_nodes, monkeypatch):
    engine = f"tcp://127.0.0.1:{gpu_nodes[0].port}"
    monkeypatch.setenv("AIRFLOW_CONN_GPU_A", json.dumps({"conn_type": "docker", "extra": {"engine": engine}}))

    with pytest.raises(EngineUnavailableError, match=r"does not answer.*HTTPS"):
        DockerEngineHook("gpu_a").info()


class SleepyOperator(ModelCodeOperator):
    """Trains on both GPUs of a node."""

    command: ClassVar[str] = "train"

    def __init__(self, *, do="sleep", **kwargs):
        options = {"code": {"image": GPU_IMAGE}, "runner": {"kind": "docker_nodes", "nodes": ["gpu_a"]}}
        super().__init__(application="tiny", limits={"gpus": 2}, **options, **kwargs)
        self.do = do

    def inputs(self, context, scratch):
        return {}

    def config(self, context):
        return {"parameters": {"do": self.do, "seconds": "600" if self.do == "sleep" else "3"}}

    def take_over(self, context, output, state):
        return state.node


def made_again(deferred):
    """The trigger as the triggerer gets it: out of JSON."""
    path, kwargs = json.loads(json.dumps(deferred.trigger.serialize()))
    return {"FreeGpuTrigger": FreeGpuTrigger, "JobTrigger": JobTrigger}[path.rpartition(".")[2]](**kwargs)


def deferral(call, *arguments):
    with pytest.raises(TaskDeferred) as caught:
        call(*arguments)
    return caught.value


def test_a_task_without_a_gpu_waits_in_the_triggerer_and_then_runs(gpu_nodes, tmp_path, capsys):
    operator = SleepyOperator(task_id="first", store=str(tmp_path))
    holder = deferral(operator.execute, context("first"))
    assert holder.trigger.options["node"] == "gpu_a"
    late = SleepyOperator(task_id="late", do="nap", store=str(tmp_path))
    waiter = deferral(late.execute, context("late"))
    assert isinstance(waiter.trigger, FreeGpuTrigger)

    async def both():
        trigger = made_again(waiter)
        trigger.poll = 0.2
        fired = asyncio.create_task(anext(trigger.run()))
        done, _ = await asyncio.wait({fired}, timeout=1.5)
        assert not done
        await made_again(holder).on_kill()  # somebody marks the first task failed
        return (await fired).payload

    event = asyncio.run(both())
    assert event == {"status": "free", "message": ""}
    # Another process goes on, and stays with the node that it is given.
    late = SleepyOperator(task_id="late", do="nap", store=str(tmp_path))
    capsys.readouterr()
    running = deferral(late.begin_again, context("late"), event)
    assert isinstance(running.trigger, JobTrigger)
    ended = asyncio.run(anext(made_again(running).run())).payload
    assert late.complete(context("late"), ended, **running.kwargs) == "gpu_a"
    assert "cannot be called outside" not in capsys.readouterr().out
    assert gpu_nodes[0]("ps", "-aq") == ""

    with pytest.raises(AirflowFailException, match="none of that"):
        late.begin_again(context("late"), {"status": "missing", "message": "none of that"})


def test_a_task_that_may_not_be_deferred_waits_itself(gpu_nodes, tmp_path, monkeypatch):
    holder = deferral(SleepyOperator(task_id="first", store=str(tmp_path)).execute, context("first"))
    monkeypatch.setattr(waiting, "POLL", 0.2)
    late = SleepyOperator(task_id="late", do="learn", store=str(tmp_path), deferrable=False)

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(late.execute, context("late"))
        time.sleep(1)
        assert not result.done()
        asyncio.run(made_again(holder).on_kill())
        assert result.result(timeout=DEADLINE) == "gpu_a"
