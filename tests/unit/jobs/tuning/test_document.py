"""The document of a tuning: what is written is what was true, and nobody waits for the writing of it."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from airflow_mlops.exceptions import StoreConflictError
from airflow_mlops.hooks.store.base import json_bytes
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.jobs.tuning.document import TuningDocument
from airflow_mlops.primitives.training.search_space import Dimension
from airflow_mlops.primitives.training.tuning import CURVE_LIMIT, STEPS_LIMIT, Plan, Trial, Tuning, thinned
from tests.fixtures.deadlines import DEADLINE

KEY = "tuned/tuning/study.json"


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path))


def written(store, trials=0, **plan) -> TuningDocument:
    """A document of a process of its own, with this many trials that ended after all of their steps."""
    space = {"x": Dimension("float", 0.0, 1.0)}
    tuning = Tuning("t", Plan(("loss",), ("minimize",), space, **plan), {"image": "ü"}, {}, 0.0)
    for number in range(trials):
        steps = {step: step / 7 for step in range(STEPS_LIMIT)}
        tuning.trials.append(Trial(number, {"x": 0.5}, "", 0.0, values=[1.0], steps=steps))
        tuning.end(tuning.trials[-1], "complete")
    store.put_if_absent(KEY, json_bytes(tuning.to_dict()))
    document = TuningDocument(store, KEY)
    document.read()
    return document


def in_store(store) -> Tuning:
    return Tuning.from_dict(json.loads(store.read(KEY)))


class SlowStore:
    """A store that writes when it is told to."""

    def __init__(self, store):
        self.store = store
        self.go, self.asked, self.written = threading.Event(), threading.Event(), threading.Event()
        self.read_versioned = store.read_versioned

    def compare_and_set(self, *arguments):
        self.asked.set()
        self.go.wait(DEADLINE)
        try:
            return self.store.compare_and_set(*arguments)
        finally:
            self.written.set()


def test_what_happens_while_it_is_written_is_not_half_in_it(store):
    slow = SlowStore(store)
    written(store)
    document = TuningDocument(slow, KEY)
    tuning = document.read()
    tuning.trials.append(Trial(0, {"x": 0.1}, "t-t0", 1.0, steps={0: 0.5}))

    async def save_and_go_on():
        saving = asyncio.create_task(document.save())
        await asyncio.to_thread(slow.asked.wait, DEADLINE)
        tuning.trials[0].steps[1] = 0.25
        tuning.trials.append(Trial(1, {"x": 0.2}, "t-t1", 2.0))
        slow.go.set()
        await saving
        before = in_store(store)
        await document.save()
        return before

    before = asyncio.run(save_and_go_on())
    assert [(trial.number, trial.steps) for trial in before.trials] == [(0, {0: 0.5})]
    assert in_store(store) == tuning


def test_a_write_that_was_cancelled_is_no_other_process(store):
    slow = SlowStore(store)
    written(store)
    document = TuningDocument(slow, KEY)
    document.read().reason = "first"

    async def cancel_and_save():
        saving = asyncio.create_task(document.save())
        await asyncio.to_thread(slow.asked.wait, DEADLINE)
        saving.cancel()
        asyncio.get_running_loop().call_later(0.1, slow.go.set)
        with pytest.raises(asyncio.CancelledError):
            await saving
        await asyncio.to_thread(slow.written.wait, DEADLINE)
        document.tuning.reason = "second"
        await document.save()

    asyncio.run(cancel_and_save())
    assert in_store(store).reason == "second"


def test_trials_that_ended_are_written_as_they_were_and_those_of_another_process_read_again(store):
    mine = written(store, trials=2)
    asyncio.run(mine.save())
    other = TuningDocument(store, KEY)
    other.read().trials[1].reason = "changed by another process"
    asyncio.run(other.save())
    with pytest.raises(StoreConflictError):
        asyncio.run(mine.save())
    tuning = mine.read()
    tuning.trials.append(Trial(2, {"x": 0.1}, "t-t2", 1.0))
    asyncio.run(mine.save())
    assert in_store(store) == tuning
    assert in_store(store).trials[1].reason == "changed by another process"


def test_other_tasks_of_the_loop_go_on_while_a_large_document_is_written(store):
    document = written(store, trials=300, pruner="median")

    async def longest_pause():
        saving = asyncio.create_task(document.save())
        longest, last = 0.0, time.monotonic()
        while not saving.done():
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        await saving
        return longest

    # 300 trials of 1,000 steps: their JSON alone is 7 MB.
    assert min(asyncio.run(longest_pause()) for _ in range(3)) < 0.1
    assert len(in_store(store).trials[299].steps) == STEPS_LIMIT


def test_of_a_trial_that_ended_a_curve_is_kept(store):
    (trial,) = written(store, trials=1).tuning.trials
    assert len(trial.steps) == CURVE_LIMIT
    assert (min(trial.steps), max(trial.steps)) == (0, STEPS_LIMIT - 1)
    gaps = [after - before for before, after in zip(trial.steps, list(trial.steps)[1:], strict=False)]
    assert max(gaps) - min(gaps) <= 1
    assert thinned({7: 1.0, 3: 2.0}) == {3: 2.0, 7: 1.0}
