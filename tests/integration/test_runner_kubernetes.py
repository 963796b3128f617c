"""The Kubernetes runner against an API server that starts real containers, with a real S3 server between."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_mlops.exceptions import ContractError, EngineUnavailableError, RunnerError
from airflow_mlops.operators.training.train import DescribeModelCodeOperator
from airflow_mlops.primitives.training.outcome import classify
from airflow_mlops.runners.kubernetes.manifests import job_manifest
from airflow_mlops.runners.kubernetes.runner import KubernetesRunner
from airflow_mlops.runners.protocol import Distribution, ListsJobs, Resources
from tests.fixtures.deadlines import DEADLINE, SOON
from tests.fixtures.docker import ROOT
from tests.fixtures.jobs import Heard, eventually, tiny_job
from tests.fixtures.kubernetes.cluster import TOKEN
from tests.fixtures.tasks import context

pytestmark = [pytest.mark.docker]
NAME = "mlops-Tiny_app-train-0123456789ab"
#: Tells a word from everything else that a test prints.
PASSWORD = "open-sesame-4711"


@pytest.fixture
def runner(kubernetes, s3_bucket, carried_image):
    return KubernetesRunner(staging=f"s3://{s3_bucket}/staging", adopt_after=1)


@pytest.fixture
def job(carried_image):
    def make(inputs=None, **parameters):
        return replace(tiny_job(NAME, inputs, **parameters), image=carried_image)

    return make


@pytest.fixture
def staged(s3_server, s3_bucket):
    def listed():
        found = s3_server.client().list_objects_v2(Bucket=s3_bucket)
        return [item["Key"] for item in found.get("Contents", ())]

    return listed


def finish(runner, heard=None, since=""):
    return runner.wait(NAME, heard or Heard(), since, deadline=time.time() + DEADLINE)


def test_a_job_reads_its_inputs_and_hands_over_its_results(runner, job, kubernetes, staged, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.parquet").write_bytes(b"x" * 300_000)
    heard = Heard()

    submitted = runner.submit(job(tmp_path / "in"))
    state = finish(runner, heard)
    again = runner.submit(job(tmp_path / "in"))
    runner.collect(NAME, ("model", "output"), tmp_path / "out")
    (found,) = runner.jobs()

    assert submitted.status in ("created", "running")
    assert (state.status, state.exit_code, state.out_of_memory, state.error) == ("exited", 0, False, "")
    assert again == state
    assert heard.texts == ["tiny train begins", '::mlops:: {"metrics": {"loss": 0.3}, "step": 1, "total": 1}']
    assert [line.text for line in runner.logs(NAME, heard.lines[0].at)] == heard.texts[1:]
    assert (tmp_path / "out/model/weights").read_bytes() == b"x" * 300_000
    assert isinstance(runner, ListsJobs)
    assert (found.name, found.labels["dag_id"]) == (NAME, "tiny__training")
    assert len(kubernetes.posted("jobs")) == 1
    runner.cleanup(NAME)
    assert runner.inspect(NAME).status == "gone"
    assert staged() == []
    runner.cleanup(NAME)


def test_the_job_is_limited_and_its_secrets_are_nowhere_else(runner, job, kubernetes, monkeypatch):
    secret = {"conn_type": "http", "host": "warehouse", "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE_PROD", json.dumps(secret))
    limits = Resources(cpus=0.5, memory=256 * 1024**2, shm=32 * 1024**2)
    heard = Heard()

    runner.submit(replace(job(do="whoami"), resources=limits, secrets={"warehouse": "warehouse_prod"}))
    finish(runner, heard)

    info = kubernetes.container()
    host, text = info["HostConfig"], "\n".join(heard.texts)
    assert (host["NanoCpus"], host["Memory"], host["ShmSize"]) == (500_000_000, 256 * 1024**2, 32 * 1024**2)
    assert (host["CapDrop"], host["SecurityOpt"], host["Privileged"]) == (
        ["ALL"],
        ["no-new-privileges"],
        False,
    )
    assert "uid=1000" in text
    assert "MLOPS_TRANSFER" not in text
    assert "AIRFLOW" not in text
    (volume,) = [bind.split(":")[0] for bind in host["Binds"] if "/opt/ml/input/secrets" in bind]
    file = Path(volume, "warehouse.json")
    assert (file.stat().st_mode & 0o777, file.stat().st_gid) == (0o440, 1000)
    assert json.loads(file.read_text())["password"] == PASSWORD
    data = kubernetes.the("secrets")["data"]
    transfer = base64.b64decode(data["MLOPS_TRANSFER"]).decode()
    assert "X-Amz-Signature=" in transfer
    shown = json.dumps([kubernetes.the("jobs"), kubernetes.pod()]) + text
    for hidden in (PASSWORD, transfer, "X-Amz-Signature"):
        assert hidden not in shown
    runner.cleanup(NAME)


def test_many_submits_make_one_job_and_a_dead_creators_one_is_released(runner, job, kubernetes, s3_bucket):
    manifest = job_manifest(job(), runner.pod, "0badcafe", 60)
    runner.hook.run(lambda cluster: cluster.create("jobs", manifest))  # and died
    runners = [KubernetesRunner(staging=runner.staging, adopt_after=1) for _ in range(3)]

    with ThreadPoolExecutor(3) as pool:
        states = list(pool.map(lambda each: each.submit(job()), runners))

    assert {state.status for state in states} <= {"created", "running", "exited"}
    assert finish(runner).exit_code == 0
    assert len(kubernetes.objects["pods"]) == 1
    runner.cleanup(NAME)

    foreign = json.loads(json.dumps(manifest))
    del foreign["metadata"]["annotations"]
    runner.hook.run(lambda cluster: cluster.create("jobs", foreign))
    with pytest.raises(RunnerError, match="did not make it for this job"):
        runner.submit(job())
    runner.cleanup(NAME)
    assert list(kubernetes.objects["jobs"]) == [manifest["metadata"]["name"]]
    kubernetes.objects["jobs"].clear()


WAITER = """
import sys
from airflow_mlops.runners.kubernetes.runner import KubernetesRunner
runner = KubernetesRunner()
runner.inspect("nothing")
print("LINE ready", flush=True)
sys.stdin.readline()
runner.wait(sys.argv[1], lambda line: print("LINE", line.at, line.text, flush=True))
"""


def test_output_goes_on_where_a_killed_waiter_and_an_absent_server_left_it(runner, job, kubernetes):
    command = [sys.executable, "-c", WAITER, NAME]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as waiter:
        # Airflow prints, too.
        lines = (line.rstrip("\n").split(" ", 2)[1:] for line in waiter.stdout if line.startswith("LINE "))
        assert next(lines) == ["ready"]
        runner.submit(job(do="chatter", lines="80", pause="0.05"))
        print(file=waiter.stdin, flush=True)
        printed = [next(lines) for _ in range(6)]
        waiter.send_signal(signal.SIGKILL)
    heard, events = Heard(), []

    async def wait():
        waiting = asyncio.create_task(
            runner.wait_async(NAME, heard, printed[-1][0], deadline=time.time() + DEADLINE)
        )
        await asyncio.to_thread(eventually, lambda: len(heard.lines) >= 5)
        kubernetes.go_away()
        events.append(len(heard.lines))
        with pytest.raises(EngineUnavailableError, match="does not answer"):
            await runner.stop_async(NAME)
        await asyncio.sleep(1.5)
        kubernetes.come_back()
        return await waiting

    state = asyncio.run(wait())

    assert state.exit_code == 0
    assert 5 <= events[0] < 70
    expected = ["tiny train begins", *(f"line {number + 1}" for number in range(80))]
    assert [text for _, text in printed] + heard.texts == expected
    runner.cleanup(NAME)


def sleeping(runner, job, **more):
    runner.submit(replace(job(do="resume", code="0", seconds="600"), **more))
    eventually(lambda: any("step 7" in line.text for line in runner.logs(NAME)))


def test_a_stopped_job_leaves_its_checkpoint_and_is_gone_soon(runner, job, kubernetes, tmp_path):
    sleeping(runner, job)
    began = time.monotonic()
    runner.stop(NAME)
    assert time.monotonic() - began < SOON
    state = runner.inspect(NAME)
    assert (state.status, state.exit_code, state.cause) == ("exited", 143, "")
    assert runner.submit(job()).status == "exited"
    runner.collect(NAME, ("checkpoints",), tmp_path)
    assert (tmp_path / "checkpoints/deep/.a step").read_text() == "7\n"
    runner.stop(NAME)
    runner.cleanup(NAME)
    runner.stop(NAME)
    assert runner.inspect(NAME).status == "gone"


def test_a_preempted_job_may_be_tried_again_and_goes_on(runner, job, kubernetes, tmp_path):
    sleeping(runner, job)
    kubernetes.preempt(grace=8)
    state = finish(runner)
    outcome = classify(state.to_dict())
    assert (state.cause, outcome.kind, outcome.final, outcome.resumable) == (
        "preempted",
        "preempted",
        False,
        True,
    )
    runner.collect(NAME, ("checkpoints",), tmp_path)
    assert (tmp_path / "checkpoints/deep/.a step").is_file()
    runner.cleanup(NAME)

    again = job(do="resume", code="0", seconds="600")
    runner.submit(replace(again, inputs={"checkpoints": str(tmp_path / "checkpoints")}))
    heard = Heard()
    finish(runner, heard)
    assert "tiny goes on from step 7" in heard.texts
    runner.cleanup(NAME)


@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (lambda cluster: cluster.evict("The node was low on resource: memory."), "low on resource"),
        (lambda cluster: cluster.lose_machine(), "unresponsive"),
        (lambda cluster: cluster.delete_pod(), "deleted from outside"),
    ],
    ids=["evicted", "lost", "deleted"],
)
def test_what_a_cluster_does_to_a_pod_is_said(runner, job, kubernetes, happens, words):
    sleeping(runner, job)
    happens(kubernetes)
    state = finish(runner)
    outcome = classify(state.to_dict())
    assert (state.status, outcome.kind, outcome.final) == ("exited", "preempted", False)
    assert words in outcome.message
    runner.cleanup(NAME)
    kubernetes.find_machine()


def test_a_job_that_somebody_deleted_is_gone(runner, job, kubernetes):
    sleeping(runner, job)
    kubernetes.objects["jobs"].clear()
    assert finish(runner).status == "gone"
    runner.cleanup(NAME)


def test_too_much_memory_is_reported_so(runner, job):
    runner.submit(replace(job(do="eat"), resources=Resources(memory=96 * 1024**2)))
    state = finish(runner)
    assert state.out_of_memory
    assert classify(state.to_dict()).kind == "out_of_memory"
    runner.cleanup(NAME)


def test_a_job_that_cannot_start_says_why(runner, job, kubernetes):
    runner.submit(replace(job(), image="registry.example.com/no-such:1"))
    state = finish(runner)
    outcome = classify(state.to_dict())
    assert (state.cause, outcome.final) == ("not_started", True)
    assert "image_pull_secrets" in outcome.message
    runner.cleanup(NAME)

    runner.submit(replace(job(), resources=Resources(gpus=1)))
    assert runner.inspect(NAME).status == "created"
    runner.start_timeout = 1
    state = finish(runner)
    outcome = classify(state.to_dict())
    assert (state.cause, outcome.final) == ("not_scheduled", False)
    assert "Insufficient nvidia.com/gpu" in outcome.message
    assert kubernetes.posted("jobs")[-1]["spec"]["template"]["spec"]["containers"][0]["resources"][
        "limits"
    ] == {"nvidia.com/gpu": "1"}
    runner.cleanup(NAME)


def test_what_the_server_refuses_has_a_cure_and_leaves_nothing(
    runner, job, kubernetes, staged, monkeypatch, tiny_image
):
    kubernetes.forbidden.add(("create", "secrets"))
    with pytest.raises(RunnerError, match=r"secrets is forbidden.*Cure: give the account the role"):
        runner.submit(job())
    kubernetes.forbidden.clear()
    eventually(lambda: not kubernetes.leftovers())
    assert staged() == []

    async def expire():
        async with runner.hook.session() as cluster:
            await cluster.get("jobs", "none")
            kubernetes.token = "another"
            with pytest.raises(EngineUnavailableError, match="has expired"):
                await cluster.get("jobs", "none")
            kubernetes.token = TOKEN

    asyncio.run(expire())
    with pytest.raises(RunnerError, match=r'namespaces "nowhere" not found.*Cure: create the namespace'):
        KubernetesRunner(namespace="nowhere").submit(job())
    monkeypatch.setenv(
        "AIRFLOW_CONN_STRANGER", kubernetes.connection(kube_config=kubernetes.kube_config_of("wrong"))
    )
    with pytest.raises(RunnerError, match=r"401 .*Cure: renew the credentials"):
        KubernetesRunner("stranger").inspect(NAME)
    monkeypatch.setenv(
        "AIRFLOW_CONN_EMPTY", json.dumps({"conn_type": "kubernetes", "extra": {"kube_config_path": "/no"}})
    )
    with pytest.raises(RunnerError, match=r"does not say how to reach a Kubernetes cluster.*Cure"):
        KubernetesRunner("empty").inspect(NAME)
    with pytest.raises(RunnerError, match="no Airflow connection 'nobody'"):
        KubernetesRunner("nobody").inspect(NAME)

    runner.submit(replace(job(), image=tiny_image, command="describe"))  # knows nothing of the transfer
    assert finish(runner).exit_code == 0
    with pytest.raises(ContractError, match=r"python3 -m airflow_mlops\.contract run"):
        runner.collect(NAME, ("output",), ROOT / "never")
    runner.cleanup(NAME)


def test_two_machines_find_each_other_and_the_first_one_speaks(runner, job, kubernetes, tmp_path):
    heard = Heard()
    runner.submit(replace(job(do="whoami"), distribution=Distribution(nodes=2)))
    state = finish(runner, heard)

    assert (state.status, state.exit_code) == ("exited", 0)
    name = kubernetes.the("jobs")["metadata"]["name"]
    assert f"MLOPS_RENDEZVOUS={name}-0.{name}:29400" in heard.texts
    assert "JOB_COMPLETION_INDEX=0" in heard.texts
    assert heard.texts.count("tiny train begins") == 1
    service = kubernetes.the("services")["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    hosts = [kubernetes.container(number)["HostConfig"]["ExtraHosts"] for number in (0, 1)]
    assert all(f"{name}-0.{name}:127.0.0.1" in entries for entries in hosts)
    runner.collect(NAME, ("output",), tmp_path)
    runner.cleanup(NAME)

    runner.submit(replace(job(do="exit", code="11"), distribution=Distribution(nodes=2)))
    state = finish(runner)
    assert state.exit_code == 11
    assert "of 2" in state.error
    runner.cleanup(NAME)


def test_describe_runs_there_as_it_runs_elsewhere(runner, carried_image, kubernetes, tmp_path):
    options = {"kind": "kubernetes", "staging": runner.staging}
    describe = DescribeModelCodeOperator(
        task_id="describe", application="tiny", store=str(tmp_path), code={"image": carried_image},
        runner=options, parameters={"do": "learn"}, deferrable=False,
    )  # fmt: skip
    result = describe.execute(context("describe"))
    assert result["description"]["name"] == "tiny"
    assert result["code"] == {"image": carried_image}
