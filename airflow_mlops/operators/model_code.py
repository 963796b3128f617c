"""The base of all operators that run one command of the model code in a container."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
)

from airflow_mlops.exceptions import GpusTakenError, MLOpsError, RunnerError, StoreError, TrackingError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.jobs.deadlines import job_deadline, time_left
from airflow_mlops.jobs.ending import discard
from airflow_mlops.jobs.files import (
    read_text,
)
from airflow_mlops.jobs.output import LOG_LIMIT, JobOutput, watch
from airflow_mlops.jobs.resume import Bookmark, keep_result, kept_result
from airflow_mlops.operators.errors import airflow_errors
from airflow_mlops.operators.model_job import ModelJob
from airflow_mlops.quirks.ownership import ended_within
from airflow_mlops.quirks.reachability import airflow_answers
from airflow_mlops.triggers.job import JobTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_mlops.primitives.training.outcome import Outcome
    from airflow_mlops.runners.protocol import ContainerJob, JobState, Runner

__all__ = ["ModelCodeOperator"]

#: Whoever refuses to give or to take what a job wrote: nothing is said against the job, and a retry asks again.
REFUSED = (RunnerError, StoreError, TrackingError)


class ModelCodeOperator(ModelJob):
    """
    Run one command of the model code, wherever ``runner`` says, and take over what it wrote.

    The job's name is made of DAG run, task, map index and generation, so that a retry after a crash
    adopts the running or finished job, and a user's Clear starts a new one. What a job wrote is removed
    only after it has been taken over. A job that ended before its time leaves its checkpoint to the next try.

    :param application: name of the application.
    :param store: URI of the artifact store.
    :param code: ``image`` (docker), ``entrypoint`` and ``directory`` (process).
    :param runner: ``kind`` and the runner's options.
    :param limits: ``cpus``, ``memory`` and ``shm`` in bytes, ``pids``.
    :param network: Docker network of the container.
    :param secrets: name → Airflow connection that the model code finds as ``input/secrets/<name>.json``.
    :param seed: seed of everything random in the model code.
    :param paradigm: what the model code learns, handed through to it.
    :param job_timeout: seconds that the job may run; it is stopped then, and a retry goes on from its checkpoint.
    :param stall_timeout: seconds that the job may print nothing; it is stopped then, likewise.
    :param log_limit: bytes of the job's output that go to the task's log at most.
    :param deferrable: wait in the triggerer instead of on a worker.
    """

    def __init__(
        self,
        *,
        application: str,
        store: str,
        code: dict[str, Any] | str,
        runner: dict[str, Any],
        limits: dict[str, Any] | None = None,
        network: str = "none",
        secrets: dict[str, str] | None = None,
        seed: int = 0,
        paradigm: str = "classification",
        job_timeout: float | None = None,
        stall_timeout: float | None = None,
        log_limit: int = LOG_LIMIT,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.store = store
        self.code = code
        self.runner = runner
        self.limits = limits
        self.network = network
        self.secrets = secrets
        self.seed = seed
        self.paradigm = paradigm
        self.job_timeout = job_timeout
        self.stall_timeout = stall_timeout
        self.log_limit = log_limit
        self.deferrable = deferrable
        self._job_name = ""
        self._node = ""
        self._killed = False
        self._task: Any = None
        self._kept_runner = None

    # The life of a job -------------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        """Start or adopt the job, then wait for it."""
        from airflow_mlops.hooks.connections.secrets import mask_secrets

        name, self._task = self.job_name(context), context["ti"]
        self._job_name = name
        if done := kept_result(context, name):
            self.log.info("Job %s was taken over by an earlier try", name)
            with airflow_errors():
                self._runner().cleanup(name)
            return done["result"]
        with airflow_errors():
            mask_secrets(self.secrets or {})
            try:
                state, adopted = self._start(context, name)
            except GpusTakenError as busy:
                return self._wait_for_gpus(context, busy)
        self._node = state.node
        self.log.info("Job %s is %s", name, state.status)
        position = Bookmark(context, name, state).load() if adopted else None
        return self._wait(context, name, state, position)

    def _start(self, context: Context, name: str) -> tuple[JobState, bool]:
        from airflow_mlops.jobs.owners import end_older_jobs

        runner = self._runner()
        if context["ti"].try_number > 1:
            end_older_jobs(runner, self._owner(context, name), self.log)
            # The job of an earlier try needs no input again, and neither whoever has it.
            state = runner.inspect(name)
            if state.status in ("running", "exited"):
                return state, True
        from airflow_mlops.jobs.gpus import check_gpus

        check_gpus(runner, name, self._limits().get("gpus"), self._code().get("image"))
        with scratch_folder() as scratch:
            return self._submit(runner, self._job(context, name, Path(scratch))), False

    def _submit(self, runner: Runner, job: ContainerJob) -> JobState:
        """Start the job, unless somebody ends the task meanwhile: ``on_kill`` returns to here, and nobody comes back."""
        if not self._killed:
            state = runner.submit(job)
            if not self._killed:
                return state
            discard(runner, job.name)
        raise AirflowFailException(f"Job {job.name} was not started: somebody ended the task.")

    def _wait_for_gpus(self, context: Context, busy: GpusTakenError) -> Any:
        """Defer until GPUs are free, or wait for them here, and begin again."""
        from airflow_mlops.jobs.gpus import execute_again, wait_until_free
        from airflow_mlops.triggers.gpus import FreeGpuTrigger

        self.log.info("%s Waiting for it.", busy)
        arguments: dict[str, Any] = {
            "name": self._job_name,
            "gpus": self._limits()["gpus"],
            "image": self._code()["image"],
        }
        if self.deferrable:
            self.defer(
                trigger=FreeGpuTrigger(runner=self._runner_kind, options=self._runner_options, **arguments),
                method_name=self.begin_again.__name__,
                timeout=time_left(self.execution_timeout, context["ti"]),
            )
        wait_until_free(self._runner(), **arguments)
        return execute_again(self, context)

    def begin_again(self, context: Context, event: dict[str, Any]) -> Any:
        """Submit the job that had to wait for its GPUs; somebody else may have been faster."""
        from airflow_mlops.jobs.gpus import execute_again

        if event["status"] != "free":
            raise AirflowFailException(f"{self.command} of {self._code_name()}: {event['message']}")
        return execute_again(self, context)

    def _wait(
        self,
        context: Context,
        name: str,
        state: JobState,
        position: dict[str, Any] | None,
        *,
        here: bool = False,
    ) -> Any:
        """Defer until the job has ended, or wait here and complete it."""
        from airflow_mlops.jobs.log import hidden_texts

        progress, deadline = self.progress(context, state), job_deadline(self.job_timeout, state)
        patience = time_left(self.execution_timeout, context["ti"])
        if self.deferrable and state.status != "exited" and not here:
            self.defer(
                trigger=JobTrigger(
                    runner=self._runner_kind,
                    options=self._runner_options,
                    name=name,
                    secrets=self.secrets,
                    deadline=deadline,
                    stall_timeout=self.stall_timeout,
                    log_limit=self.log_limit,
                    position=position,
                    progress=progress,
                ),
                method_name=self.complete.__name__,
                timeout=patience,
                # The name depends on the number of retries, which may be edited while the job runs.
                kwargs={"job": name, "carried": {**self.carried(), "node": self._node}},
            )
        with airflow_errors():
            hidden = hidden_texts(self.secrets, name, self.log, retried=self._retried(context))
        limit = 0 if hidden is None else self.log_limit
        output = JobOutput(self.log, name, limit=limit, position=position, hidden=hidden or ())
        last = time.time() + patience.total_seconds() if patience else math.inf
        waiting = watch(
            self._runner(),
            name,
            output,
            deadline=min(last, deadline or math.inf) if deadline or patience else None,
            stall_timeout=self.stall_timeout,
            memory=Bookmark(context, name, state),
            progress=progress,
        )
        try:
            with airflow_errors():
                status, _ = asyncio.run(waiting)
            if status == "timeout" and last < (deadline or math.inf):
                # Airflow raises it too, in whatever runs at that moment; a task of the loop may swallow it.
                raise AirflowTaskTimeout(f"execution_timeout of {self.execution_timeout} is over")  # noqa: TRY301
        except AirflowTaskTimeout:
            self._end_early(context, output.position)
            raise
        # A job that is stopped has last words.
        event = {"status": status, "position": output.position, "rest": status != "exited"}
        return self.complete(context, event, name, {**self.carried(), "node": self._node})

    def _wait_again(self, context: Context, state: JobState, event: dict[str, Any]) -> Any:
        """Wait on for a job that is not over; on this worker, when the triggerer cannot."""
        if here := event.get("status") == "error":
            self.log.warning(
                "The triggerer cannot watch job %s, so this worker does: %s",
                self._job_name,
                event.get("message"),
            )
        else:
            self.log.warning("Job %s was said to be over and is %s", self._job_name, state.status)
        return self._wait(context, self._job_name, state, event.get("position"), here=here)

    def complete(self, context: Context, event: dict[str, Any], job: str, carried: dict[str, Any]) -> Any:
        """Judge the finished job, take over what it wrote, and remove it.

        The event only wakes this method: what happened is asked of the engine.
        """
        from airflow_mlops.hooks.connections.masking import without_known_secrets
        from airflow_mlops.jobs.broken_assumptions import report_broken
        from airflow_mlops.jobs.log import hidden_texts

        name, given_up = job, ""
        self._job_name, self._node, self._task = name, carried.get("node") or "", context["ti"]
        with airflow_errors(), scratch_folder() as folder:
            runner, output = self._runner(), Path(folder)
            hidden = hidden_texts(self.secrets, name, self.log, retried=self._retried(context))
            state = runner.inspect(name)
            Bookmark(context, name, state).keep(event.get("position"))
            if state.status in ("created", "running"):
                if event.get("status") not in ("timeout", "stalled"):
                    return self._wait_again(context, state, event)
                given_up = str(event["status"])
                runner.stop(name)
                state = runner.inspect(name)
            self._print_rest(context, runner, state, event, hidden)
            outcome, good, result = self._collected(context, runner, state, given_up, output)
            broken = (
                report_broken(output, self.store, self.application, self.command)
                if outcome.kind == "assumption"
                else ""
            )
            if good or outcome.final or not self._retried(context):
                self._checkpoints(context).drop()
            elif outcome.resumable:
                self._checkpoints(context).take_over(runner, output)
            runner.cleanup(name)
            if not good:
                failure = AirflowFailException if outcome.final else AirflowException
                said = without_known_secrets(f"{outcome.message}{broken}")
                raise failure(f"{self.command} of {self._code_name()}: {said}")
            return result

    def _collected(
        self, context: Context, runner: Runner, state: JobState, given_up: str, output: Path
    ) -> tuple[Outcome, bool, Any]:
        """How the job ended, whether its result counts, and the result; it stays for a retry where others failed."""
        name = self._job_name
        try:
            if state.status == "exited":
                success = state.exit_code == 0 and not given_up
                runner.collect(name, self.collected if success else ("output",), output)
            outcome = self._judge(state, given_up, output)
            good = outcome.kind == "success" or self.accepts(outcome.kind, output)
            result = self.take_over(context, output, state) if good else None
            if good:
                keep_result(context, name, result)
        except Exception as error:
            if isinstance(error, REFUSED):
                error.retriable = True
            if not self._comes_back(context, error):
                runner.cleanup(name)
            raise
        return outcome, good, result

    def _print_rest(
        self,
        context: Context,
        runner: Runner,
        state: JobState,
        event: dict[str, Any],
        hidden: Sequence[str] | None,
    ) -> None:
        """Print what the triggerer may not have brought to the task's log."""
        from airflow_mlops.jobs.log import print_rest

        if event.get("rest") and state.status == "exited" and hidden is not None:
            name, position = self._job_name, event.get("position")
            position = print_rest(runner, name, position, hidden, self.log_limit, self.log)
            Bookmark(context, name, state).keep(position)

    def _judge(self, state: JobState, given_up: str, output: Path) -> Outcome:
        from airflow_mlops.hooks.connections.secrets import without_secrets
        from airflow_mlops.primitives.training.outcome import classify, gave_up

        text = without_secrets(read_text(output / "output/failure"), self.secrets or {})
        if given_up == "timeout":
            return gave_up("timeout", self.job_timeout or 0, text)
        if given_up:
            return gave_up("stalled", self.stall_timeout or 0, text)
        return classify(state.to_dict(), text)

    def _retried(self, context: Context) -> bool:
        return bool(context["ti"].try_number <= (context["ti"].max_tries or 0))

    def _end_early(self, context: Context, position: dict[str, Any] | None = None) -> None:
        """Stop and remove the job, which the task has no more time for; a retry gets its checkpoint.

        :param position: where its output was left; that of the triggerer unless given.
        """
        from airflow_mlops.jobs.log import hidden_texts, saved_position

        runner = self._runner()
        try:
            runner.stop(self._job_name)
            event = {"rest": True, "position": position or saved_position(context, self.task_id)}
            hidden = hidden_texts(self.secrets, self._job_name, self.log)
            self._print_rest(context, runner, runner.inspect(self._job_name), event, hidden)
            if self._retried(context):
                with scratch_folder() as folder:
                    self._checkpoints(context).take_over(runner, Path(folder))
            runner.cleanup(self._job_name)
        except MLOpsError as error:
            self.log.warning("Job %s could not be stopped, a retry will adopt it: %s", self._job_name, error)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the wait; a job that outlived the task's ``execution_timeout``, or its last try, is stopped."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            self._job_name = self.job_name(context)
            self._end_early(context)
            raise
        except TaskDeferralError:
            # The triggerer could not make or keep the trigger; the job knows nothing of it, and a retry adopts it.
            if not self._retried(context):
                self._job_name = self.job_name(context)
                self._end_early(context)
            raise

    def _comes_back(self, context: Context, error: Exception) -> bool:
        """Whether a retry will adopt the finished job and take it over after all."""
        final = isinstance(error, MLOpsError) and not error.retriable
        return not final and self._retried(context)

    def accepts(self, kind: str, output: Path) -> bool:  # noqa: ARG002
        """Whether an outcome other than success is a result all the same."""
        return False

    def on_kill(self) -> None:
        """Stop the job and remove it, if a user ended this task and the job still runs.

        Airflow calls it from a signal handler, maybe in the middle of a question to Airflow: a second question, as for
        a connection, would wait for ever. It calls it too when its API server is away for too long, when this worker
        was given up, and when its machine is shut down; then nobody ended anything, and the next try adopts the job.
        """
        if not self._job_name or self._killed or not self._by_hand():
            return
        self._killed = True
        if self._runner().inspect(self._job_name).status == "exited":
            self.log.info("Job %s has ended, and is left to the maintenance DAG", self._job_name)
            return
        self.discard_job()

    def discard_job(self) -> None:
        """Stop the job and remove it, if it was begun; for who runs this task where there is no Airflow to ask."""
        self._killed = True
        if self._job_name:
            discard(self._runner(), self._job_name)

    def _by_hand(self) -> bool:
        """Whether somebody ended this task, as far as Airflow says so."""
        if not airflow_answers():
            self.log.warning(
                "Airflow does not answer: job %s is left running for the next try", self._job_name
            )
            return False
        if not ended_within(self._task):
            self.log.warning("Nobody ended the task: job %s is left for who waits for it", self._job_name)
            return False
        return True
