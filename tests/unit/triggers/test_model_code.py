"""What a watched repository tells, through Airflow's own shared streams: each change once, whatever fails beside it."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import UTC, datetime

import pytest

from airflow_mlops.primitives.reasons import Answers, answer, reason_from_event, take
from airflow_mlops.triggers.model_code import NewModelCodeTrigger
from tests.fixtures.triggerer import Memory, triggerer


class Repository:
    """A git repository of two commits whose branch main goes back and forth between them."""

    def __init__(self, folder):
        self.url = str(folder)
        self.git("init", "--quiet", "--initial-branch", "main")
        for name in ("first", "second"):
            self.git("commit", "--quiet", "--allow-empty", "--message", name)
        self.first, self.second = self.git("rev-parse", "main~1"), self.git("rev-parse", "main")

    def git(self, *words):
        who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        done = subprocess.run(
            ["git", "-C", self.url, *who, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def is_at(self, commit):
        self.git("update-ref", "refs/heads/main", commit)

    def trigger(self):
        return NewModelCodeTrigger(application="git", git=self.url, every=0.05)


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def test_code_that_goes_back_and_forth_is_new_each_time(repository):
    memory = Memory(seen_git=repository.first)  # as it was written before changes were counted

    async def scenario():
        async with triggerer() as running:
            await running.start(repository.trigger(), memory)
            for number, commit in enumerate((repository.second, repository.first, repository.second), 1):
                repository.is_at(commit)
                seen = {"digest": commit, "changes": number}
                await running.until(lambda seen=seen: memory.values["seen_git"] == seen)
            return [payload for _, payload in running.events]

    events = asyncio.run(scenario())
    assert [event["digest"] for event in events] == [repository.second, repository.first, repository.second]
    answers, trained = Answers(), []
    for number, event in enumerate(events):
        extra = {"from_trigger": True, "payload": event}
        at = datetime(2026, 1, 1, number, tzinfo=UTC)
        reasons, answers = take(answers, f"run{number}", [reason_from_event(number, at, extra)])
        answers = answer(answers, f"run{number}", succeeded=True)
        trained += reasons
    assert len(trained) == 3


def test_a_state_store_that_does_not_answer_ends_no_watching(repository):
    class Forgetful(Memory):
        refused = 0

        async def aset(self, key, value):
            if self.refused < 4 or key.startswith("health"):
                self.refused += 1
                raise RuntimeError("the API server is away")
            await super().aset(key, value)

    memory = Forgetful(seen_git=repository.first)

    async def scenario():
        async with triggerer() as running:
            await running.start(repository.trigger(), memory)
            await running.until(lambda: memory.values["seen_git"] != repository.first)
            assert not any(task.done() for task in running.tasks)
            return [payload["id"] for _, payload in running.events]

    ids = asyncio.run(scenario())
    assert len(ids) > 1, "what could not be written down is told again"
    assert len(set(ids)) == 1, "as the same event"


@pytest.mark.parametrize("login", ["robot:secret@", "a-token@"])
def test_an_address_with_a_login_is_refused_and_not_repeated(login):
    with pytest.raises(ValueError, match=r"holds a login.*Cure: .*conn_id") as caught:
        NewModelCodeTrigger(application="git", git=f"https://{login}git.example.com/churn.git")
    assert login not in str(caught.value)
    for url in ("ssh://git@git.example.com/churn.git", "git@git.example.com:churn.git"):
        assert NewModelCodeTrigger(application="git", git=url).git == url
