"""What AWS says of jobs, and what is asked of it."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace

import pytest

from airflow_mlops.contract.container.tarball import Tarball
from airflow_mlops.exceptions import RunnerError
from airflow_mlops.primitives.training.outcome import classify
from airflow_mlops.runners.aws import batch as aws_batch
from airflow_mlops.runners.aws import sagemaker
from airflow_mlops.runners.aws.channels import _gunzip
from airflow_mlops.runners.aws.claims import Claim
from airflow_mlops.runners.aws.requests import container_properties, tags
from airflow_mlops.runners.protocol import Resources
from tests.fixtures.jobs import tiny_job

MOMENT = 1_790_000_000_123


@pytest.mark.parametrize(
    ("job", "kind", "final"),
    [
        ({"status": "SUCCEEDED"}, "success", True),
        ({"container": {"exitCode": 137}, "statusReason": "Job attempt duration exceeded timeout"}, "timeout", False),
        ({"container": {"exitCode": 11}, "statusReason": "Essential container in task exited"}, "data", True),
        ({"container": {"exitCode": 137, "reason": "OutOfMemoryError: Container killed due to memory usage"},
          "statusReason": "Essential container in task exited"}, "out_of_memory", False),
        ({"container": {"exitCode": 143}, "statusReason": "Stopped in the console", "isTerminated": True}, "stopped", False),
        ({"statusReason": "Host EC2 (instance i-0123) terminated."}, "preempted", False),
        ({"container": {"reason": "CannotPullContainerError: manifest unknown"}, "statusReason": "Task failed to start"},
         "not_started", True),
        ({"statusReason": "Cancelled", "isCancelled": True}, "stopped", False),
        ({}, "engine_gone", False),
    ],
)  # fmt: skip
def test_every_end_on_batch_is_classed(job, kind, final):
    state = aws_batch.job_state({"status": "FAILED", "stoppedAt": MOMENT, **job})
    outcome = classify(state.to_dict())
    assert (outcome.kind, outcome.final) == (kind, final)
    for words in (job.get("container", {}).get("reason"), job.get("statusReason")):
        if kind in ("preempted", "not_started", "stopped", "timeout"):
            assert not words or words.rstrip(".") in outcome.message
    assert kind != "timeout" or (outcome.resumable and "Cure: raise training.timeout" in outcome.message)


def test_a_job_on_batch_is_created_until_it_runs():
    for status in ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING"):
        assert aws_batch.job_state({"status": status}).status == "created"
    state = aws_batch.job_state({"status": "RUNNING", "startedAt": MOMENT}, "repo@sha256:1")
    assert (state.status, state.started_at) == ("running", "2026-09-21T14:13:20.123000+00:00")
    assert state.image_digest == "repo@sha256:1"
    assert aws_batch.job_state(None).status == "gone"
    assert aws_batch.job_state({"status": "RUNNING"}, "repo:tag").image_digest == ""


@pytest.mark.parametrize(
    ("job", "kind", "final"),
    [
        ({"TrainingJobStatus": "Completed"}, "success", True),
        ({"FailureReason": "AlgorithmError: wrong column, exit code: 10"}, "parameters", True),
        ({"FailureReason": "AlgorithmError: ExecuteUserScriptError"}, "failed", False),
        ({"FailureReason": "ClientError: Please use an instance type with more memory"}, "out_of_memory", False),
        ({"FailureReason": "ClientError: Cannot pull the image"}, "not_started", True),
        ({"FailureReason": "CapacityError: Unable to provision requested ML compute capacity"}, "not_started", False),
        ({"FailureReason": "InternalServerError: We encountered an internal error"}, "preempted", False),
        ({"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}, "timeout", False),
        ({"TrainingJobStatus": "Stopped", "SecondaryStatus": "Stopped"}, "stopped", False),
        ({"TrainingJobStatus": "Stopped", "SecondaryStatus": "Interrupted"}, "preempted", False),
    ],
)  # fmt: skip
def test_every_end_on_sagemaker_is_classed(job, kind, final):
    outcome = classify(sagemaker.job_state({"TrainingJobStatus": "Failed", **job}).to_dict())
    assert (outcome.kind, outcome.final) == (kind, final)
    if kind == "timeout":
        assert "MaxRuntimeExceeded. Cure: raise training.timeout" in outcome.message


def test_names_fit_the_services_and_keep_what_tells_them_apart():
    claim = Claim("0badcafe", 0.0)
    name = "mlops-" + "a" * 100 + ".é-0123456789ab"
    batch = aws_batch.AwsBatchRunner(queue="q", staging="s3://bucket").name_of(name, claim)
    training = sagemaker.SageMakerRunner(role="r", instance_type="i", staging="s3://bucket").name_of(
        name, claim
    )
    assert len(batch) <= 128
    assert len(training) <= 63
    assert batch.endswith("-0123456789ab-0badcafe")
    assert training.endswith("-0123456789ab-0badcafe")
    assert set(batch + training) <= set("mlopsabcdef-0123456789_éb")


def test_a_container_asks_for_whole_cores_and_some_memory():
    job = replace(tiny_job("mlops-x"), resources=Resources(cpus=None, memory=None, gpus=0))
    needs = container_properties(job, "tiny:1", None, "arn:execution")
    assert needs["resourceRequirements"] == [
        {"type": "VCPU", "value": "1"},
        {"type": "MEMORY", "value": "4096"},
    ]
    assert needs["executionRoleArn"] == "arn:execution"
    assert "jobRoleArn" not in needs


def test_tags_are_of_the_signs_that_aws_takes():
    job = replace(tiny_job("mlops-x"), labels={"run_id": "manual__2026 {x}" + 300 * "a", "why": ""})
    found = tags(job)
    assert found["airflow-mlops:run_id"].startswith("manual__2026 _x_aaa")
    assert len(found["airflow-mlops:run_id"]) == 256
    assert "airflow-mlops:why" not in found


def test_a_tarball_can_be_read_from_anywhere(tmp_path):
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / ("long" * 60)).write_bytes(b"x" * 1000)
    (folder / "empty").touch()
    (folder / "ü").write_bytes(b"y" * 512)
    (folder / "link").symlink_to("/etc/passwd")
    tar = Tarball(folder)

    whole = b"".join(tar.read(0, tar.size))

    assert len(whole) == tar.size
    for step in (1, 511, 512, 700, tar.size):
        pieces = (b"".join(tar.read(at, min(at + step, tar.size))) for at in range(0, tar.size, step))
        assert step == 1 or b"".join(pieces) == whole
    assert b"".join(tar.read(1500, 1501)) == whole[1500:1501]
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        assert sorted(archive.getnames()) == sorted(
            ["model", "model/deep", "model/deep/" + "long" * 60, "model/empty", "model/link", "model/ü"]
        )
        assert archive.getmember("model/link").issym()
    (folder / "ü").write_bytes(b"")
    with pytest.raises(OSError, match="became shorter"):
        list(tar.read(0, tar.size))


def test_an_archive_unpacks_a_piece_at_a_time_and_a_broken_one_is_said():
    import gzip

    packed = gzip.compress(b"0" * 5_000_000)
    assert len(packed) < 10_000
    pieces = list(_gunzip([packed]))
    assert max(map(len, pieces)) <= 1024**2
    assert sum(map(len, pieces)) == 5_000_000
    with pytest.raises(RunnerError, match="broken"):
        list(_gunzip([b"no archive"]))
