"""The SageMaker runner: its requests against moto, and its data through a real S3 server.

moto completes a training job without running it. So these tests do what SageMaker does with the request: lay the
channels out, run the command line with its environment, and keep what SageMaker keeps.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_mlops.exceptions import ContractError
from airflow_mlops.jobs import ending
from airflow_mlops.runners import get_runner, polling
from airflow_mlops.runners.protocol import Distribution
from airflow_mlops.triggers.job import JobTrigger
from tests.fixtures.deadlines import DEADLINE, SOON
from tests.fixtures.docker import ROOT, TINY
from tests.fixtures.jobs import Heard, tiny_job

NAME = "mlops-tiny_app-train-0123456789ab"
ROLE = "arn:aws:iam::123456789012:role/training"


@pytest.fixture
def options(cloud, s3_bucket, monkeypatch):
    monkeypatch.setattr(polling, "LAST_OUTPUT", 0.05)
    return {"role": ROLE, "instance_type": "ml.g5.xlarge", "staging": f"s3://{s3_bucket}/mlops",
            "aws_conn_id": "cloud", "time_limit": 7200}  # fmt: skip


class SageMaker:
    """Does with a request what the service does."""

    def __init__(self, s3, bucket, folder, request):
        self.s3, self.bucket, self.request = s3, bucket, request
        self.root = folder / "sagemaker"
        for channel in request["InputDataConfig"]:
            self._download(
                channel["DataSource"]["S3DataSource"]["S3Uri"],
                self.root / "input/data" / channel["ChannelName"],
            )
        self._download(request["CheckpointConfig"]["S3Uri"] + "/", self.root / "checkpoints")
        (self.root / "input/config").mkdir()
        hosts = {"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]}
        (self.root / "input/config/resourceconfig.json").write_text(json.dumps(hosts))
        parameters = json.dumps(request["HyperParameters"], indent=2)
        (self.root / "input/config/hyperparameters.json").write_text(parameters)

    def run(self):
        arguments = self.request["AlgorithmSpecification"]["ContainerArguments"]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "airflow_mlops.contract",
                "run",
                "--",
                "sh",
                str(TINY / "entry.sh"),
                *arguments,
            ],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "MLOPS_ROOT": str(self.root)},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        results = (
            self.request["OutputDataConfig"]["S3OutputPath"] + f"/{self.request['TrainingJobName']}/output"
        )
        if done.returncode == 0:
            self._upload(self.root / "model", f"{results}/model.tar.gz")
        self._upload(self.root / "output/data", f"{results}/output.tar.gz")
        for file in filter(Path.is_file, (self.root / "checkpoints").rglob("*")):
            key = (
                self._key(self.request["CheckpointConfig"]["S3Uri"])
                + f"/{file.relative_to(self.root / 'checkpoints')}"
            )
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=file.read_bytes())
        return done

    def _download(self, uri, folder):
        folder.mkdir(parents=True)
        prefix = self._key(uri)
        for item in self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", ()):
            target = folder / item["Key"].removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.s3.download_file(self.bucket, item["Key"], str(target))

    def _upload(self, folder, uri):
        if not folder.is_dir():
            return
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(folder, ".")
        self.s3.put_object(Bucket=self.bucket, Key=self._key(uri), Body=packed.getvalue())

    def _key(self, uri):
        assert uri.startswith(f"s3://{self.bucket}/mlops/jobs/{NAME}/")
        return uri.removeprefix(f"s3://{self.bucket}/")


def test_a_training_by_channels_and_archives(options, cloud, s3_server, s3_bucket, tmp_path):
    for path, content in (("in/0.parquet", "rows"), ("manifest.json", "{}"), ("checkpoints/epoch/1", "half")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    runner = get_runner("sagemaker", **options)
    job = replace(
        tiny_job(NAME, tmp_path / "in", do="learn", rate="0.5"),
        image="123456789012.dkr.ecr.us-east-1.amazonaws.com/tiny@sha256:" + 64 * "0",
        distribution=Distribution(nodes=2),
    )
    job = replace(job, inputs={
        **job.inputs,
        "input/data/manifest.json": str(tmp_path / "manifest.json"),
        "checkpoints": str(tmp_path / "checkpoints"),
    })  # fmt: skip

    runner.submit(job)
    again = get_runner("sagemaker", **options).submit(job)

    (request,) = cloud.bodies("CreateTrainingJob")
    name = request["TrainingJobName"]
    assert name.startswith("mlops-tiny-app-train-0123456789ab-")
    assert request["AlgorithmSpecification"] == {
        "TrainingImage": job.image, "TrainingInputMode": "File", "ContainerArguments": ["train"]}  # fmt: skip
    assert request["HyperParameters"] == {"do": "learn", "rate": "0.5"}
    assert [channel["ChannelName"] for channel in request["InputDataConfig"]] == ["mlops", "train"]
    assert request["ResourceConfig"] == {
        "InstanceType": "ml.g5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 30}  # fmt: skip
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200}
    assert request["RoleArn"] == ROLE
    assert request["EnableNetworkIsolation"] is True
    assert {"Key": "airflow-mlops:dag_id", "Value": "tiny__training"} in request["Tags"]

    service = SageMaker(s3_server.client(), s3_bucket, tmp_path, request)
    done = service.run()

    assert done.returncode == 0, done.stderr
    assert (service.root / "input/data/manifest.json").read_text() == "{}"
    assert json.loads((service.root / "input/config/mlops.json").read_text())["command"] == "train"
    state = runner.wait(NAME, Heard())
    assert (state.status, state.exit_code, state.image_digest) == ("exited", 0, job.image)
    assert again == state
    runner.collect(NAME, ("model", "output", "checkpoints"), tmp_path / "out")
    assert (tmp_path / "out/model/weights").read_text() == "rows"
    assert json.loads((tmp_path / "out/output/metrics.json").read_text())[0]["name"] == "auc"
    assert (tmp_path / "out/checkpoints/epoch/1").read_text() == "half"
    runner.cleanup(NAME)
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=s3_bucket)
    assert runner.inspect(NAME).status == "gone"


def test_the_lines_of_the_first_machine_are_read(options, cloud):
    runner = get_runner("sagemaker", **options)
    runner.submit(replace(tiny_job(NAME), image="tiny:1"))
    assert runner.logs(NAME) == []
    (request,) = cloud.bodies("CreateTrainingJob")
    group, stream = "/aws/sagemaker/TrainingJobs", f"{request['TrainingJobName']}/algo-1-1"
    logs = cloud.client("logs")
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
    now = int(time.time()) * 1000 - 60_000 + 7
    events = [{"timestamp": now + (number > 1), "message": f"line {number}"} for number in range(4)]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)

    lines = runner.logs(NAME)

    assert [line.text for line in lines] == [f"line {number}" for number in range(4)]
    assert lines[1].at == datetime.fromtimestamp(now // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.007Z#1")
    for number, line in enumerate(lines):
        assert [later.text for later in runner.logs(NAME, line.at)] == [
            f"line {n}" for n in range(number + 1, 4)
        ]
    runner.cleanup(NAME)


def test_a_running_job_is_stopped_and_a_bad_one_keeps_its_reason(
    options, cloud, s3_server, s3_bucket, tmp_path
):
    described = {
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Training",
        "TrainingStartTime": 1_790_000_000,
    }

    def stop(_):
        described.update(TrainingJobStatus="Stopped", SecondaryStatus="Stopped")
        return {}

    runner = get_runner("sagemaker", **{**options, "spot": True, "isolated": False, "subnets": ["subnet-1"],
                                        "security_groups": ["sg-1"]})  # fmt: skip
    runner.submit(replace(tiny_job(NAME), image="tiny:1"))
    cloud.answers = {"DescribeTrainingJob": lambda _: described, "StopTrainingJob": stop}
    (request,) = cloud.bodies("CreateTrainingJob")
    assert request["EnableManagedSpotTraining"] is True
    assert request["StoppingCondition"]["MaxWaitTimeInSeconds"] == 7200
    assert request["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert request["EnableNetworkIsolation"] is False

    assert runner.inspect(NAME).status == "running"
    runner.stop(NAME)
    runner.stop(NAME)
    assert cloud.bodies("StopTrainingJob") == [{"TrainingJobName": request["TrainingJobName"]}]
    assert runner.inspect(NAME).exit_code == 143

    described.update(
        TrainingJobStatus="Failed", FailureReason="AlgorithmError: no such column, exit code: 11"
    )
    assert runner.inspect(NAME).exit_code == 11
    runner.collect(NAME, ("output",), tmp_path / "out")
    assert "no such column" in (tmp_path / "out/output/failure").read_text()

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        (link := tarfile.TarInfo("model")).type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        archive.addfile(link)
    key = f"mlops/jobs/{NAME}/results/{request['TrainingJobName']}/output/model.tar.gz"
    s3_server.client().put_object(Bucket=s3_bucket, Key=key, Body=packed.getvalue())
    with pytest.raises(ContractError, match="is a link"):
        runner.collect(NAME, ("model",), tmp_path / "evil")
    shutil.rmtree(tmp_path / "out")
    runner.cleanup(NAME)


def test_a_task_that_is_ended_does_not_wait_for_a_service_that_takes_minutes(
    options, cloud, s3_server, s3_bucket, monkeypatch
):
    """On a worker, and in the triggerer by its trigger: the end is asked for, and nothing is left."""
    described = {
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Training",
        "TrainingStartTime": 1_790_000_000,
    }
    monkeypatch.setattr(ending, "ON_WORKER", 0.2)
    monkeypatch.setattr(ending, "IN_TRIGGERER", 0.2)
    trigger = JobTrigger(runner="sagemaker", options=options, name=NAME)
    for end in (
        lambda: asyncio.run(trigger.on_kill()),
        lambda: ending.discard(get_runner("sagemaker", **options), NAME),
    ):
        cloud.answers, cloud.requests = {}, []
        get_runner("sagemaker", **options).submit(replace(tiny_job(NAME), image="tiny:1"))
        cloud.answers = {"DescribeTrainingJob": lambda _: described, "StopTrainingJob": lambda _: {}}
        began = time.monotonic()
        end()
        assert time.monotonic() - began < SOON
        assert len(cloud.bodies("StopTrainingJob")) == 1
        assert "Contents" not in s3_server.client().list_objects_v2(Bucket=s3_bucket)
