"""The AWS Batch runner against moto, whose Batch starts real containers, with data through a real S3 server."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_mlops.exceptions import ContractError, ImageNotFoundError, RunnerError
from airflow_mlops.hooks.aws.service import pinned_image
from airflow_mlops.hooks.mlflow.hook import MLflowHook
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.evaluation.evaluate import EvaluateModelOperator
from airflow_mlops.operators.training.train import DescribeModelCodeOperator, TrainModelOperator
from airflow_mlops.primitives.training.outcome import classify
from airflow_mlops.runners import get_runner, polling
from airflow_mlops.runners.protocol import Distribution, Resources
from tests.fixtures.aws import ACCOUNT
from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.jobs import Heard, eventually, tiny_job
from tests.fixtures.tasks import EXAMPLES, context, write_examples

pytestmark = pytest.mark.docker
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": "sha256:" + 64 * "0",
            "size": 1,
        },
        "layers": [],
    }
)
NAME = "mlops-tiny-train.batch-0123456789ab"


@pytest.fixture
def options(cloud, job_queue, s3_bucket, carried_image, monkeypatch):
    monkeypatch.setattr(polling, "LAST_OUTPUT", 0.2)
    return {
        "queue": job_queue,
        "staging": f"s3://{s3_bucket}/mlops/tiny",
        "aws_conn_id": "cloud",
        "time_limit": 600,
    }


@pytest.fixture
def runner(options):
    return get_runner("aws_batch", **options)


def carried(name=NAME, inputs=None, **parameters):
    return replace(tiny_job(name, inputs, **parameters), image="airflow-mlops-test-carried:1")


def test_a_training_from_its_submit_to_its_results(
    runner, options, cloud, s3_server, s3_bucket, docker_engine, tmp_path
):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.parquet").write_bytes(b"x" * 2_000_000)
    job = carried(inputs=tmp_path / "in")
    runners = [runner, *(get_runner("aws_batch", **options) for _ in range(3))]
    heard = Heard()

    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda each: each.submit(job), runners))
    state = get_runner("aws_batch", **options).wait(NAME, heard, deadline=time.time() + DEADLINE)
    runner.collect(NAME, ("model", "output"), tmp_path / "out")

    assert {each.status for each in states} <= {"created", "running", "exited"}
    assert len(cloud.bodies("submitjob")) == 1
    assert len(cloud.bodies("registerjobdefinition")) == 1
    assert (state.status, state.exit_code) == ("exited", 0)
    assert heard.texts == ["tiny train begins", '::mlops:: {"metrics": {"loss": 0.3}, "step": 1, "total": 1}']
    first, second = heard.lines
    assert [line.text for line in runner.logs(NAME, first.at)] == [second.text]
    assert runner.logs(NAME, second.at) == []
    assert (tmp_path / "out/model/weights").read_bytes() == b"x" * 2_000_000
    assert json.loads((tmp_path / "out/output/metrics.json").read_text())[0]["name"] == "auc"
    assert runner.submit(job) == state
    (found,) = runner.jobs()
    assert (found.name, found.labels) == (NAME, job.labels)
    runner.cleanup(NAME)
    assert runner.inspect(NAME).status == "gone"
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=s3_bucket)


def test_an_application_is_trained_and_evaluated(options, s3_bucket, mlflow_server, monkeypatch, tmp_path):
    """By the operators of its DAG; the training waits in a trigger."""
    for key, value in mlflow_server.environment.items():
        monkeypatch.setenv(key, value)
    write_examples(tmp_path / "data/1.parquet")
    place = {"application": "tiny", "store": f"s3://{s3_bucket}/mlops"}
    examples = {**EXAMPLES, "parquet": "*.parquet", "folder": str(tmp_path / "data")}
    split = {"by": "time", "train": 0.6, "validation": 0.2, "test": 0.2, "gap": "0s"}
    provision = ProvisionDatasetOperator(task_id="provision", examples=examples, split=split, **place)
    dataset = provision.execute(context("provision"))
    job = {"runner": {"kind": "aws_batch", **options}, **place}
    code = {"image": "airflow-mlops-test-carried:1"}

    described = DescribeModelCodeOperator(
        task_id="describe", code=code, parameters={"seconds": 0}, deferrable=False, **job
    ).execute(context("describe"))
    train = TrainModelOperator(
        task_id="train", code=code, dataset=dataset, description=described, experiment="batch", **job
    )
    with pytest.raises(TaskDeferred) as deferred:
        train.execute(context("train"))

    async def fired():
        return (await anext(deferred.value.trigger.run())).payload

    trained = train.complete(context("train"), asyncio.run(fired()), **deferred.value.kwargs)
    evaluated = EvaluateModelOperator(
        task_id="evaluate", code=code, dataset=dataset, training=trained, deferrable=False, **job
    ).execute(context("evaluate"))

    assert MLflowHook().get_conn().get_run(trained["run_id"]).info.status == "FINISHED"
    assert evaluated["metrics"][0]["name"] == "auc"
    assert get_runner("aws_batch", **options).jobs() == []


def test_every_other_end_is_classed(runner, cloud, docker_engine, tmp_path):
    """A failure, a job terminated in the console, one stopped by us, and an image that cannot bring its data."""
    failed, outside, stopped, silent = (
        f"{NAME}-{kind}" for kind in ("failed", "outside", "stopped", "silent")
    )
    runner.submit(carried(failed, do="exit", code="11"))
    runner.submit(carried(outside, do="sleep", seconds="300"))
    runner.submit(carried(stopped, do="sleep", seconds="300"))
    runner.submit(replace(tiny_job(silent), image="airflow-mlops-test-tiny:1", command="describe"))

    def ended(name):
        return runner.wait(name, Heard(), deadline=time.time() + DEADLINE)

    state = ended(failed)
    runner.collect(failed, ("output",), tmp_path / "failed")
    assert (state.exit_code, state.error) == (11, "")
    assert (tmp_path / "failed/output/failure").read_text() == "the reason is code 11\n"

    eventually(lambda: runner.inspect(outside).status == "running")
    (job_id,) = (
        job["jobId"]
        for job in cloud.client("batch").list_jobs(
            jobQueue="training", filters=[{"name": "JOB_NAME", "values": ["*"]}]
        )["jobSummaryList"]
        if "-outside-" in job["jobName"]
    )
    cloud.client("batch").terminate_job(jobId=job_id, reason="somebody pressed a button")
    outcome = classify(ended(outside).to_dict())
    assert (outcome.kind, outcome.final) == ("stopped", False)
    assert "somebody pressed a button" in outcome.message

    eventually(lambda: runner.inspect(stopped).status == "running")
    runner.stop(stopped)
    assert classify(runner.inspect(stopped).to_dict()).resumable
    runner.stop(stopped)

    described = ended(silent)
    assert described.exit_code == 0
    assert runner.logs(silent)[0].text.startswith('{"contract": 1')
    with pytest.raises(ContractError, match=r"its image does not know MLOPS_TRANSFER\. Cure: begin"):
        runner.collect(silent, ("output",), tmp_path / "silent")
    for name in (failed, outside, stopped, silent):
        runner.cleanup(name)
    eventually(
        lambda: not docker_engine("ps", "--all", "--quiet", "--filter", f"name={NAME.replace('.', '-')}")
    )


def test_a_submitter_that_died_is_succeeded(runner, options, cloud, docker_engine):
    """Before its submit: another one submits. After it: the job that it started is found by its claim."""

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    other = get_runner("aws_batch", **options, adopt_after=0.5)
    dying = get_runner("aws_batch", **options)
    dying.hook.submit = die
    with pytest.raises(Killed):
        dying.submit(carried())
    assert runner.inspect(NAME).status == "created"
    assert other.submit(carried()).status in ("created", "running")
    assert len(cloud.bodies("submitjob")) == 1

    dying = get_runner("aws_batch", **options)
    dying.claims.complete = die
    with pytest.raises(Killed):
        dying.submit(carried(f"{NAME}-2"))
    cloud.away = True
    waiting = ThreadPoolExecutor(1).submit(
        lambda: runner.wait(f"{NAME}-2", Heard(), deadline=time.time() + DEADLINE)
    )
    eventually(lambda: cloud.refused)
    cloud.away = False
    assert get_runner("aws_batch", **options).submit(carried(f"{NAME}-2")).status != "gone"
    assert waiting.result().exit_code == 0
    assert len(cloud.bodies("submitjob")) == 2
    assert runner.wait(NAME, Heard()).exit_code == 0
    for name in (NAME, f"{NAME}-2"):
        runner.cleanup(name)


def test_what_moto_cannot_do_is_asked_for_as_aws_wants_it(runner, cloud):
    cloud.answers = {
        "describejobdefinitions": lambda _: {"jobDefinitions": []},
        "registerjobdefinition": lambda body: {
            "jobDefinitionName": body["jobDefinitionName"],
            "jobDefinitionArn": "arn:definition",
            "revision": 1,
        },
        "submitjob": lambda body: {"jobName": body["jobName"], "jobId": "job-1"},
        "describejobs": lambda body: {
            "jobs": [{"jobId": "job-1", "status": "RUNNABLE", "nodeProperties": {"mainNode": 0}}]
        },
    }
    job = replace(
        carried(),
        resources=Resources(cpus=3.5, memory=8 * 1024**3, shm=2 * 1024**3, gpus=4),
        distribution=Distribution(nodes=2, processes_per_node="gpu"),
        labels={"run_id": "manual__2026-01-05T03:00:00+00:00", "store": "s3://lake/ä?"},
    )

    assert runner.submit(job).status == "created"

    (definition,) = cloud.bodies("registerjobdefinition")
    assert definition["type"] == "multinode"
    assert definition["nodeProperties"]["numNodes"] == 2
    (everywhere,) = definition["nodeProperties"]["nodeRangeProperties"]
    assert everywhere["targetNodes"] == "0:"
    container = everywhere["container"]
    assert {need["type"]: need["value"] for need in container["resourceRequirements"]} == {
        "VCPU": "4",
        "MEMORY": "8192",
        "GPU": "4",
    }
    assert container["linuxParameters"] == {"initProcessEnabled": True, "sharedMemorySize": 2048}
    assert (container["user"], container["privileged"]) == ("1000:1000", False)
    assert definition["timeout"] == {"attemptDurationSeconds": 600}
    assert definition["retryStrategy"] == {"attempts": 1}
    (request,) = cloud.bodies("submitjob")
    (override,) = request["nodeOverrides"]["nodePropertyOverrides"]
    assert override["targetNodes"] == "0:"
    assert override["containerOverrides"]["command"] == ["train"]
    (variable,) = override["containerOverrides"]["environment"]
    assert variable["name"] == "MLOPS_TRANSFER"
    assert request["jobDefinition"] == "arn:definition"
    assert request["tags"]["airflow-mlops:run_id"] == "manual__2026-01-05T03:00:00+00:00"
    assert request["tags"]["airflow-mlops:store"] == "s3://lake/ä_"
    assert request["jobName"].startswith("mlops-tiny-train-batch-0123456789ab-")
    runner.cleanup(NAME)
    assert cloud.bodies("terminatejob") == [{"jobId": "job-1", "reason": "Removed by airflow-mlops"}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secrets": {"hub": "hub_default"}}, "Cure: remove training.secrets"),
        ({"resources": Resources(gpus="all")}, "AWS counts them"),
        ({"image": ""}, "has no image"),
    ],
)
def test_what_batch_cannot_do_is_refused_before_anything_is_staged(runner, cloud, change, words):
    with pytest.raises(RunnerError, match=words):
        runner.submit(replace(carried(), **change))
    assert cloud.requests == []
    assert runner.inspect(NAME).status == "gone"


def test_a_queue_that_is_not_there_is_said_at_once(options, cloud, s3_server, s3_bucket):
    runner = get_runner("aws_batch", **{**options, "queue": "nowhere"})
    with pytest.raises(RunnerError, match="nowhere does not exist"):
        runner.submit(carried())
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=s3_bucket)


def test_an_image_in_ecr_is_run_by_its_digest(cloud):
    ecr = cloud.client("ecr")
    ecr.create_repository(repositoryName="team/tiny")
    digest = ecr.put_image(repositoryName="team/tiny", imageTag="1.0", imageManifest=MANIFEST)["image"][
        "imageId"
    ]["imageDigest"]
    place = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/team/tiny"
    assert pinned_image(f"{place}:1.0", "cloud") == f"{place}@{digest}"
    assert pinned_image("ghcr.io/team/tiny:1.0", "cloud") == "ghcr.io/team/tiny:1.0"
    with pytest.raises(ImageNotFoundError, match=r"no image .*:2\.0"):
        pinned_image(f"{place}:2.0", "cloud")
