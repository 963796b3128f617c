"""Data in and out of jobs through a real S3 server, by what runs in the container."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_mlops.exceptions import ContractError, MLOpsError
from airflow_mlops.runners.files import staging as staging_module
from airflow_mlops.runners.files.staging import Staging
from tests.fixtures.deadlines import DEADLINE, SOON
from tests.fixtures.docker import ROOT
from tests.fixtures.jobs import eventually, tiny_job

NAME = "mlops-test-transfer"


@pytest.fixture
def staging(s3_bucket):
    return Staging(f"s3://{s3_bucket}/mlops/tiny")


@pytest.fixture
def keys(s3_server, s3_bucket):
    def listed():
        found = s3_server.client().list_objects_v2(Bucket=s3_bucket)
        return [item["Key"] for item in found.get("Contents", ())]

    return listed


class Container:
    """What a container does, as a process: its own root, and nothing of this process's environment."""

    def __init__(self, folder: Path, environment: dict[str, str], *command: str) -> None:
        self.root = folder / "ml"
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-m", "airflow_mlops.contract", "run", "--", *command],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "MLOPS_ROOT": str(self.root),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, output


def tiny(folder, environment):
    return Container(folder, environment, "sh", str(ROOT / "tests/fixtures/tiny_model/entry.sh"), "train")


@pytest.mark.docker
def test_a_container_brings_its_inputs_and_sends_its_results(
    staging, keys, docker_engine, carried_image, tmp_path, monkeypatch
):
    monkeypatch.setattr(staging_module, "PIECE", 1_000_000)
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/a.parquet").write_bytes(os.urandom(3_000_000))
    (tmp_path / "in/.b").write_bytes(b"")
    job = tiny_job(NAME, tmp_path / "in")
    staged = staging.stage(replace(job, inputs={**job.inputs, "input/data/manifest.json": __file__}))
    (variable,) = staged.environment.items()

    output = docker_engine(
        "run", "--rm", "--network", "host", "--env", "=".join(variable), carried_image, "train"
    )
    assert staging.collect(NAME, ("model", "output/metrics.json", "checkpoints"), tmp_path / "out")

    assert output.splitlines() == [
        "tiny train begins",
        '::mlops:: {"metrics": {"loss": 0.3}, "step": 1, "total": 1}',
    ]
    assert (tmp_path / "out/model/weights").read_bytes() == (tmp_path / "in/a.parquet").read_bytes()
    assert [path.name for path in (tmp_path / "out/output").iterdir()] == ["metrics.json"]
    assert len([key for key in keys() if "/out/model" in key]) == 4
    assert variable[1] not in repr(staged)
    staging.cleanup(NAME)
    assert keys() == []
    staging.cleanup(NAME)


def test_the_command_sees_no_address_and_its_failure_comes_out(staging, tmp_path):
    staged = staging.stage(tiny_job(NAME, do="exit", code="11"))
    assert tiny(tmp_path, staged.environment).end()[0] == 11
    assert staging.collect(NAME, ("model", "output"), tmp_path / "out")
    assert (tmp_path / "out/output/failure").read_text() == "the reason is code 11\n"
    assert not (tmp_path / "out/model").exists()

    code, output = Container(tmp_path, staged.environment, "env").end()
    assert code == 0
    assert "MLOPS_ROOT" in output
    assert "MLOPS_TRANSFER" not in output


#: In Python, for a shell may be told to end between beginning its child and knowing it, and the child goes on. In short
#: naps, for a signal that comes just before a nap is heard after it.
CHECKPOINT = """
exec python3 -c '
import os, pathlib, signal, sys, time

def stop(*_):
    checkpoints = pathlib.Path(os.environ["MLOPS_ROOT"], "checkpoints")
    checkpoints.mkdir(exist_ok=True)
    (checkpoints / "state").write_text("half\\n")
    sys.exit(143)

signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True:
    time.sleep(0.1)'
"""
DEAF = 'trap "" TERM; mkdir -p "$MLOPS_ROOT/checkpoints"; echo old >"$MLOPS_ROOT/checkpoints/state"; echo ready; while :; do sleep 1; done'


@pytest.mark.parametrize(
    ("script", "grace", "code", "kept"), [(CHECKPOINT, 600, 143, "half\n"), (DEAF, 8, 137, "old\n")]
)
def test_sigterm_leaves_a_checkpoint(staging, tmp_path, script, grace, code, kept):
    """Code that does not listen is killed when half of its time is over, and what it had left is sent."""
    staged = staging.stage(tiny_job(NAME), grace=grace)
    container = Container(tmp_path, staged.environment, "sh", "-c", script)
    assert container.process.stdout.readline() == "ready\n"
    began = time.monotonic()
    container.process.send_signal(signal.SIGTERM)
    assert container.end()[0] == code
    assert time.monotonic() - began < SOON
    assert staging.delivered(NAME).exit_code == code
    staging.collect(NAME, ("checkpoints",), tmp_path / "out")
    assert (tmp_path / "out/checkpoints/state").read_text() == kept


def test_sigterm_before_the_inputs_are_there_ends_at_once(s3_proxy, s3_bucket, tmp_path):
    staging = Staging(f"s3://{s3_bucket}/slow")
    staged = staging.stage(tiny_job(NAME))
    s3_proxy.fate = lambda method, path: "slow" if "/in/" in path else None
    container = tiny(tmp_path, staged.environment)
    eventually(lambda: any("/in/" in path for method, path in s3_proxy.seen if method == "GET"))
    container.process.send_signal(signal.SIGTERM)
    assert container.end()[0] == 143
    assert staging.delivered(NAME) is None
    assert staging.collect(NAME, ("output",), tmp_path / "out") is False


def test_a_store_that_stumbles_is_asked_again(s3_proxy, s3_bucket, tmp_path):
    staging = Staging(f"s3://{s3_bucket}/stumbling")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/0.parquet").write_bytes(os.urandom(200_000))
    staged = staging.stage(tiny_job(NAME, tmp_path / "data"))
    fates = {"transfer.json": "short", "/in/": "short", "/out/model": "lost", "done.json": 503}

    def decide(_method, path):
        return fates.pop(next((part for part in fates if part in path), ""), None)

    s3_proxy.fate = decide
    code, output = tiny(tmp_path, staged.environment).end()
    assert code == 0, output
    assert fates == {}
    assert output.count("try 1 of 7") == 4
    assert "Signature" not in output
    staging.collect(NAME, ("model",), tmp_path / "out")
    assert (tmp_path / "out/model/weights").read_bytes() == (tmp_path / "data/0.parquet").read_bytes()


def test_an_address_that_is_no_longer_valid_says_so(staging, tmp_path):
    staged = staging.stage(tiny_job(NAME))
    environment = {key: value[:-3] + "000" for key, value in staged.environment.items()}
    code, output = tiny(tmp_path, environment).end()
    assert code == 1
    assert "403" in output
    assert "no longer valid" in output
    assert "Signature=" not in output


def test_inputs_that_changed_on_their_way_are_refused(staging, tmp_path, monkeypatch):
    (tmp_path / "data").write_bytes(b"right")
    staged = staging.stage(tiny_job(NAME, tmp_path / "data"))
    number = next(
        entry["url"].partition("?")[0].rpartition("/")[2]
        for entry in staging.store.read_json(f"jobs/{NAME}/transfer.json")["inputs"]
        if entry["path"] == "input/data/train"
    )
    staging.store.put(f"jobs/{NAME}/in/{number}", b"wrong")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = "import sys; from airflow_mlops.contract.container import transfer; from airflow_mlops.contract.container import supervision; transfer.TRIES = 1; sys.exit(supervision.run(['true']))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "MLOPS_ROOT": str(tmp_path / "ml"), **staged.environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 75, done.stderr
    assert "or other ones" in done.stderr
    assert "other ones" in staging.delivered(NAME).problem


def test_what_should_not_come_out_does_not(staging, s3_bucket, tmp_path, monkeypatch):
    staged = staging.stage(tiny_job(NAME, do="link"))
    assert tiny(tmp_path, staged.environment).end()[0] == 0
    with pytest.raises(ContractError, match="'output/secrets' is a link"):
        staging.collect(NAME, ("output",), tmp_path / "out")
    assert not (tmp_path / "out/output").exists()

    monkeypatch.setattr(staging_module, "PIECE", 500_000)
    small = Staging(f"s3://{s3_bucket}/small", limit_bytes=1_000_000)
    staged = small.stage(tiny_job(NAME, do="big"))
    code, output = tiny(tmp_path, staged.environment).end()
    assert code == 1
    assert "raise the runner's limit_bytes" in output

    small.store.put(
        f"jobs/{NAME}/done.json", json.dumps({"version": 1, "exit_code": True, "outputs": {}}).encode()
    )
    with pytest.raises(ContractError, match="expected a whole number, got True"):
        small.collect(NAME, ("output",), tmp_path / "out")


def test_a_model_that_came_in_does_not_go_out_again(staging, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/MLmodel").write_text("flavors: {}")
    job = tiny_job(NAME)
    staged = staging.stage(replace(job, inputs={"model": str(tmp_path / "model")}))
    assert tiny(tmp_path, staged.environment).end()[0] == 0
    assert set(staging.delivered(NAME).outputs) == {"output"}


def test_python_model_code_needs_nothing_in_its_entrypoint(staging, tmp_path):
    from tests.unit.contract.conftest import ROWS
    from tests.unit.contract.tiny import COLUMNS

    (tmp_path / "rows").write_text(json.dumps(ROWS))
    config = {"contract": 1, "command": "train", "parameters": {}, "seed": 1, "columns": COLUMNS}
    splits = {f"input/data/{split}/0.parquet": str(tmp_path / "rows") for split in ("train", "validation")}
    job = replace(tiny_job(NAME), config=config, inputs=splits)
    staged = staging.stage(job)
    done = subprocess.run(
        [sys.executable, "tests/unit/contract/tiny.py", "train"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "MLOPS_ROOT": str(tmp_path / "ml"),
            **staged.environment,
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("::mlops::") == 3
    staging.collect(NAME, ("model", "output"), tmp_path / "out")
    assert (tmp_path / "out/model/model.json").is_file()
    assert (tmp_path / "out/output/metrics.json").is_file()


def test_a_store_that_is_none_of_s3_is_refused(tmp_path):
    with pytest.raises(MLOpsError, match="no S3 address"):
        Staging(str(tmp_path)).stage(tiny_job(NAME))
