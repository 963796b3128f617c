"""The loop of a tuning: ask for parameters, start trials, watch them, tell what came out, and ask again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.contract.protocol.progress import parse_progress
from airflow_mlops.exceptions import MLOpsError, RunnerError, StoreConflictError
from airflow_mlops.hooks.scratch import ScratchFolder, scratch_folder
from airflow_mlops.jobs.ending import discard_async
from airflow_mlops.jobs.tuning.document import HEARTBEAT, TuningDocument
from airflow_mlops.jobs.tuning.trials import Ended, FinalError, results, trial_job
from airflow_mlops.primitives.training.tuning import (
    STEPS_LIMIT,
    Trial,
    Tuning,
    progress_value,
)
from airflow_mlops.runners import get_runner
from airflow_mlops.runners.protocol import ContainerJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_mlops.hooks.optuna import OptunaStudy
    from airflow_mlops.hooks.store.base import Store
    from airflow_mlops.runners.protocol import JobState, LogLine, Runner

#: Bytes of each file that is taken out of a trial's job.
SMALL = 4 * 1024**2
#: Seconds that a stopped trial has between SIGTERM and SIGKILL.
GRACE = 4
#: The same when the task is ended by hand: nobody wants what the trial could still save, and Airflow is in a hurry.
LAST_GRACE = 1
LONGEST_PAUSE = 30.0


class TuningLoop:
    """
    Does the trials of one tuning, some at a time, until its budget is used up.

    The document in the store is the truth: a trial is written there before its job is started and when it has
    ended, and jobs have names made of the trial's number. So the loop may be killed at any time and begun anew in
    another process; of two loops at once the younger goes on, and the other one waits for its end.

    :param store: the artifact store, or its URI.
    :param key: the document's key.
    :param log: receives one line for each event.
    :param runner: a runner that is there already; by default one as the document says.
    """

    def __init__(self, store: Store | str, key: str, log: Any = None, runner: Runner | None = None) -> None:
        self.log = log or logging.getLogger(__name__)
        self._document = TuningDocument(store, key)
        self._given_runner = runner
        self._runner: Runner
        self._study: OptunaStudy
        self._asking = asyncio.Lock()
        self._wake = asyncio.Event()
        self._over: set[str] = set()
        self._submitting: set[asyncio.Future[JobState]] = set()
        self._removals: set[asyncio.Task[None]] = set()
        self._removed: set[str] = set()
        self._scratch: ScratchFolder | None = None

    async def run(self) -> Tuning:
        """Go on with the tuning from wherever it is; returns the document of its end."""
        try:
            while True:
                await self._document.claim()
                await asyncio.to_thread(self._make_runner)
                try:
                    if self._tuning.status == "running":
                        await self._search()
                except StoreConflictError:
                    self.log.info("Another process goes on with this tuning: waiting for its end")
                    await self._document.wait_for_owner()
                else:
                    await self._sweep(keep=self._kept())
                    return self._tuning
        finally:
            if self._scratch:
                self._scratch.cleanup()

    async def kill(self) -> None:
        """Stop and remove everything, unless the tuning has ended: somebody ended the task by hand."""
        tuning = await self._document.claim()
        if tuning.status != "running":
            self.log.info("The tuning has ended: what it left is the maintenance DAG's to remove")
            return
        await asyncio.to_thread(self._make_runner)
        # Written first: from now on no other process starts a job.
        tuning.status, tuning.reason = "failed", "it was ended by hand"
        with contextlib.suppress(StoreConflictError):
            await self._document.save()
        await asyncio.gather(*self._submitting, return_exceptions=True)
        jobs = sorted({trial.job for trial in tuning.running})
        ends = (discard_async(self._runner, job, LAST_GRACE, LAST_GRACE) for job in jobs)
        await asyncio.gather(*ends, return_exceptions=True)
        await self._sweep(keep=set())

    @property
    def _tuning(self) -> Tuning:
        return self._document.tuning

    # The loop ----------------------------------------------------------------------------------

    async def _search(self) -> None:
        from airflow_mlops.hooks.optuna import OptunaStudy

        tuning = self._tuning
        self._study = await asyncio.to_thread(OptunaStudy, tuning)
        active: dict[str, asyncio.Task[list[Ended]]] = {}
        self._over.clear()
        for job, trials in groupby(tuning.running, key=lambda trial: trial.job):
            self.log.info("Going on with %s", job)
            active[job] = self._begin(job, list(trials))
        try:
            status, reason = tuning.verdict(time.time())
            while status == "running":
                await self._fill(active)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._left())
                self._wake.clear()
                final = await self._close(active)
                await self._document.heartbeat()
                status, reason = ("failed", final) if final else tuning.verdict(time.time())
            await self._end_rest(active, reason)
            tuning.status, tuning.reason = status, reason
            await self._document.save()
        finally:
            # The jobs go on: whoever comes next adopts them.
            for task in active.values():
                task.cancel()
            await asyncio.gather(*active.values(), return_exceptions=True)
        self.log.info("Tuning is %s: %s", status, reason)

    async def _fill(self, active: dict[str, asyncio.Task[list[Ended]]]) -> None:
        """Start as many trials as there is room for; they are written down first."""
        async with self._asking:
            busy = len(active.keys() - self._over)
            groups = await asyncio.to_thread(self._ask, self._tuning.plan.parallel - busy)
        if groups:
            await self._document.save()
        for trials in groups:
            job = trials[0].job
            active[job] = self._begin(job, trials)

    def _begin(self, job: str, trials: list[Trial]) -> asyncio.Task[list[Ended]]:
        task = asyncio.create_task(self._do(job, trials))
        task.add_done_callback(lambda _: self._wake.set())
        return task

    def _ask(self, room: int) -> list[list[Trial]]:
        tuning, groups = self._tuning, []
        for _ in range(room):
            group: list[Trial] = []
            job = f"{tuning.name}-t{len(tuning.trials)}"
            for _ in range(min(tuning.plan.trials_per_container, tuning.left)):
                number = len(tuning.trials)
                given, retry_of = tuning.given(number)
                parameters = self._study.ask(number, given)
                trial = Trial(number, parameters, job, time.time(), retry_of=retry_of)
                tuning.trials.append(trial)
                group.append(trial)
                self.log.info("Trial %d: %s", number, parameters)
            if group:
                groups.append(group)
        return groups

    async def _close(self, active: dict[str, asyncio.Task[list[Ended]]]) -> str:
        """Write down what has ended; returns why all others need not begin, if it does."""
        done, final = [job for job, task in active.items() if task.done()], ""
        before = self._kept()
        for job in done:
            try:
                ended = active.pop(job).result()
            except FinalError as error:
                final = str(error)
                ended = [Ended(one, "failed", final) for one in self._tuning.running if one.job == job]
            for one in ended:
                await self._tell(one)
        if not done:
            return final
        await self._document.save()
        for job in {*done, *before} - self._kept():
            self._remove(job)
        return final

    async def _tell(self, ended: Ended) -> None:
        tuning, trial = self._tuning, ended.trial
        trial.figures, trial.values = ended.figures or {}, ended.values or []
        if ended.state == "lost":
            tuning.lose(trial, ended.reason)
            trial.finished_at = time.time()
        else:
            tuning.end(trial, ended.state, ended.reason, at=time.time())
        async with self._asking:
            await asyncio.to_thread(self._study.tell, trial)
        best = tuning.best()
        shown = ", ".join(f"{value:g}" for value in trial.values) or trial.reason or trial.state
        so_far = f"; best so far: trial {best.number}, {best.values}" if best else ""
        self.log.info("Trial %d is %s: %s%s", trial.number, trial.state, shown, so_far)

    async def _end_rest(self, active: dict[str, asyncio.Task[list[Ended]]], reason: str) -> None:
        for task in active.values():
            task.cancel()
        await asyncio.gather(*active.values(), return_exceptions=True)
        await asyncio.gather(*self._submitting, return_exceptions=True)
        await asyncio.gather(*(self._stop(job) for job in active), return_exceptions=True)
        for trial in self._tuning.running:
            self._tuning.end(trial, "stopped", reason, at=time.time())
        active.clear()

    def _left(self) -> float:
        if self._tuning.plan.timeout is None:
            return HEARTBEAT
        end = self._tuning.created_at + self._tuning.plan.timeout
        return min(HEARTBEAT, max(0.0, end - time.time()))

    def _kept(self) -> set[str]:
        best = self._tuning.best() if self._tuning.plan.keep_best else None
        return {best.job} if best and self._tuning.status != "failed" else set()

    # One job -----------------------------------------------------------------------------------

    async def _do(self, job: str, trials: list[Trial]) -> list[Ended]:
        """Start or adopt the job of some trials, and see it to its end; an engine that is away is waited for.

        :raises FinalError: no trial could be done.
        """
        pause = 1.0
        while True:
            try:
                return await self._watch(job, trials, await self._submit(job, trials))
            except MLOpsError as error:
                if isinstance(error, StoreConflictError):
                    raise
                if not error.retriable:
                    raise FinalError(str(error)) from error
                self.log.warning("%s Trying again in %.0f s.", error, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _submit(self, job: str, trials: list[Trial]) -> JobState:
        # The thread goes on when this loop ends: whoever stops the job then waits for it first.
        submitted = asyncio.ensure_future(
            asyncio.to_thread(lambda: self._runner.submit(self._job(job, trials)))
        )
        self._submitting.add(submitted)
        submitted.add_done_callback(self._submitting.discard)
        return await asyncio.shield(submitted)

    async def _watch(self, job: str, trials: list[Trial], state: JobState) -> list[Ended]:
        limit = self._tuning.plan.trial_timeout
        if trials[0].pruned_at is not None:
            await self._stop(job)  # it was to be stopped when an earlier loop ended
        now = time.time()
        begun = datetime.fromisoformat(state.started_at).timestamp() if state.started_at else now
        deadline = min(begun, now) + limit * len(trials) if limit else None
        hear = partial(self._hear, trials[0]) if len(trials) == 1 else _ignore
        state = await self._runner.wait_async(job, hear, "", deadline)
        self._tuning.image = self._tuning.image or _image(state)
        if self._tuning.plan.parallel > 1:
            # The next one need not wait until this one's result is there; of several it knows little less.
            self._over.add(job)
            self._wake.set()
        if state.status not in ("exited", "gone"):
            await self._stop(job)
            return [
                Ended(one, "failed", f"it ran longer than {limit:.0f} s and was stopped") for one in trials
            ]
        if trials[0].pruned_at is not None and state.exit_code != 0:
            return [Ended(trials[0], "pruned", f"stopped at step {trials[0].pruned_at}")]
        secrets = self._tuning.job.get("secrets") or {}
        return await asyncio.to_thread(results, self._runner, self._tuning.plan, job, trials, state, secrets)

    async def _hear(self, trial: Trial, line: LogLine) -> None:
        """Note a line of progress, and stop the trial when the pruner says so."""
        progress = parse_progress(line.text)
        if progress is None or trial.pruned_at is not None:
            return
        value = progress_value(self._tuning.plan.objectives[0], progress["metrics"])
        step = progress.get("step")
        if value is None or step is None or step < 0 or len(trial.steps) >= STEPS_LIMIT:
            return
        trial.steps[step] = value
        if self._tuning.plan.pruner == "none":
            return
        async with self._asking:
            pruned = await asyncio.to_thread(self._study.report, trial.number, step, value)
            trial.marks = self._study.marks(trial.number)
        if pruned:
            trial.pruned_at = step
            # Written down first: a loop that is killed in between still knows why the job was stopped.
            await self._document.save()
            await self._stop(trial.job)

    def _job(self, name: str, trials: list[Trial]) -> ContainerJob:
        inputs = {path: str(self._local(key)) for path, key in self._tuning.inputs.items()}
        return trial_job(self._tuning, name, trials, inputs)

    async def _stop(self, job: str, grace: int = GRACE) -> None:
        await self._runner.stop_async(job, grace)

    # What is kept ------------------------------------------------------------------------------

    def _make_runner(self) -> None:
        if self._given_runner is not None:
            self._runner = self._given_runner
            return
        options = {key: value for key, value in self._tuning.runner.items() if key != "kind"}
        # Metrics and reasons alone: no trial may fill the disk of whoever runs this loop.
        self._runner = get_runner(self._tuning.runner["kind"], **{**options, "limit_bytes": SMALL})

    def _local(self, key: str) -> Path:
        if self._scratch is None:
            self._scratch = scratch_folder()
        return self._document.local(key, Path(self._scratch.name))

    def _remove(self, job: str) -> None:
        async def remove() -> None:
            try:
                await asyncio.to_thread(self._runner.cleanup, job)
                self._removed.add(job)
            except RunnerError as error:
                self.log.warning("Job %s is removed at the end: %s", job, error)

        task = asyncio.create_task(remove())
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _sweep(self, keep: set[str]) -> None:
        """Remove all that is left of the jobs, of this loop and of those before it."""
        await asyncio.gather(*self._removals)
        jobs = {trial.job for trial in self._tuning.trials} - self._removed - keep
        await _each(sorted(jobs), self._runner.cleanup)
        shared = self._tuning.job.get("shared")
        if shared:
            await asyncio.to_thread(self._runner.cleanup, shared)
        await _each(sorted(self._tuning.inputs.values()), self._document.delete)


def _ignore(_: LogLine) -> None:
    return None


def _image(state: JobState) -> dict[str, Any]:
    known = {"image_digest": state.image_digest, "image_labels": dict(state.image_labels)}
    return known if any(known.values()) else {}


async def _each(names: Iterable[str], call: Callable[[str], Any]) -> None:
    limit = asyncio.Semaphore(8)

    async def one(name: str) -> None:
        async with limit:
            await asyncio.to_thread(call, name)

    await asyncio.gather(*(one(name) for name in names))
