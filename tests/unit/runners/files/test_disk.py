"""What a job may write: measured now and then, and said when it was too much."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.hooks.docker.hook import DockerEngineHook
from airflow_mlops.primitives.training.outcome import classify
from airflow_mlops.runners.docker.config import DISK, container_config
from airflow_mlops.runners.files import disk
from airflow_mlops.runners.files.disk import DiskWatch, allowed, folder_size, judged
from airflow_mlops.runners.protocol import JobState, Resources
from tests.fixtures.jobs import tiny_job

KILLED = JobState("exited", 137)
MIB = 1024**2


def test_inputs_do_not_count_against_the_limit(tmp_path):
    (tmp_path / "rows").write_bytes(b"x" * 5000)
    job = replace(tiny_job("job", tmp_path), resources=Resources(disk=1000))
    assert 6000 < allowed(job) < 20_000
    assert allowed(tiny_job("job", tmp_path)) is None
    image = SimpleNamespace(id="i", digest="d")
    assert container_config(job, image)["Labels"][DISK] == str(allowed(job))
    assert DISK not in container_config(tiny_job("job", tmp_path), image)["Labels"]


def test_one_that_was_killed_for_it_fails_for_good_with_figures_and_the_cure():
    state = judged(KILLED, 100 * MIB, lambda: 3000 * MIB)
    outcome = classify(state.to_dict())
    assert outcome.final
    assert not outcome.resumable
    for words in ("writing more than it may", "3,000 MiB", "100 MiB", "Cure", "resources.disk"):
        assert words in outcome.message


@pytest.mark.parametrize(
    ("state", "limit", "written"),
    [
        (KILLED, 100, 100),
        (KILLED, 100, None),
        (KILLED, None, 500),
        (JobState("exited", 0), 100, 500),
        (JobState("exited", 143), 100, 500),
        (JobState("running"), 100, 500),
        (JobState("gone"), 100, None),
    ],
)
def test_every_other_end_is_what_it_was(state, limit, written):
    assert judged(state, limit, lambda: written) == state


def looks(watch, limit=100):
    return asyncio.run(watch.is_over(limit))


def test_it_looks_now_and_then_and_an_engine_that_is_away_kills_nobody(monkeypatch):
    now, found, asked = [0.0], [50], []
    monkeypatch.setattr(disk, "time", SimpleNamespace(monotonic=lambda: now[0]))

    async def written():
        asked.append(now[0])
        now[0] += 2  # a look at many files takes its time
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    watch = DiskWatch(written)
    assert not looks(watch)
    found[0] = 500
    now[0] += 19
    assert not looks(watch)  # too early after a look that took so long
    now[0] += 1
    assert looks(watch)
    for found[0] in (None, RunnerError("away"), 100):
        now[0] += 20
        assert not looks(watch)
    now[0] += 20
    found[0] = 500
    assert not looks(watch, None)
    assert len(asked) == 5


def test_the_size_of_a_folder_is_what_lies_on_the_disk(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"x" * 10 * MIB)
    folder = tmp_path / "job"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").write_bytes(b"x" * MIB)
    (folder / "link").symlink_to(outside)
    (folder / "around").symlink_to(folder)
    with (folder / "sparse").open("wb") as file:
        os.truncate(file.fileno(), 100 * MIB)
    assert MIB <= folder_size(folder) < 2 * MIB
    assert folder_size(tmp_path / "none") == 0


def test_volumes_that_a_container_may_write_to_count(monkeypatch):
    volumes = [
        {"Name": name, "UsageData": {"Size": size}} for name, size in (("v", 70), ("shared", 900), ("o", 5))
    ]
    mounts = [
        {"Type": "volume", "Name": "v", "RW": True},
        {"Type": "volume", "Name": "shared", "RW": False},
        {"Type": "bind", "RW": True},
    ]
    listed = [{"SizeRw": 30, "Mounts": mounts}]
    client = SimpleNamespace(containers=lambda **_: listed, df=lambda: {"Volumes": volumes})
    hook = DockerEngineHook("")
    monkeypatch.setattr(DockerEngineHook, "get_conn", lambda _: client)
    assert hook.written("job") == 100
    listed[0] = {}
    assert hook.written("job") == 0
    listed.clear()
    assert hook.written("job") is None
