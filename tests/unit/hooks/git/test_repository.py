"""Watching a repository whose server says nothing: the question ends, and so does its thread."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from airflow_mlops.exceptions import ModelCodeUnavailableError, RunnerError
from airflow_mlops.hooks.git import repository as git
from airflow_mlops.hooks.git.repository import GitHook
from tests.fixtures.deadlines import SOON


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(git, "TIMEOUT", 0.2)
    monkeypatch.setattr(git, "LONGEST", 0.5)
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON


@pytest.mark.usefixtures("impatient")
def test_an_http_server_that_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/team/churn.git"
        with pytest.raises(ModelCodeUnavailableError, match="does not answer"):
            asyncio.run(GitHook(url).digest("main"))  # it waits for its threads, too


@pytest.mark.usefixtures("impatient")
def test_an_ssh_server_that_says_nothing(tmp_path, monkeypatch):
    ssh, said = tmp_path / "ssh", tmp_path / "said"
    ssh.write_text(f'#!/bin/sh\necho "$@" >{said}\nexec sleep 60\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ModelCodeUnavailableError, match="does not answer"):
        asyncio.run(GitHook("ssh://git@git.example.com/team/churn.git").digest("main"))
    words = said.read_text()
    assert "-oBatchMode=yes -oConnectTimeout=1" in words, "or it would ask a person whether the host is known"
    assert "git@git.example.com" in words


def test_a_protocol_without_a_limit_is_refused():
    with pytest.raises(RunnerError, match=r"no time limit. Cure: https"):
        asyncio.run(GitHook("git://git.example.com/churn.git").digest("main"))


def test_a_wrong_branch_shows_the_likest_ones(monkeypatch):
    refs = {f"refs/heads/feature-{number:02}": "1" for number in range(40)}
    refs |= {
        "refs/heads/release-1.x": "2",
        "refs/tags/v1": "3",
        "refs/tags/v1^{}": "4",
        "refs/pull/7/head": "5",
    }
    monkeypatch.setattr(GitHook, "_refs", lambda *_: refs)
    with pytest.raises(ModelCodeUnavailableError) as caught:
        asyncio.run(GitHook("https://git.example.com/churn.git").digest("relaese-1.x"))
    said = str(caught.value)
    assert "'relaese-1.x'; it has: feature-" in said
    assert "release-1.x, … (32 more)" in said
    assert "^{}" not in said
    assert "pull" not in said
