"""The base of all operators that run one command of the model code in a container."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferralTimeout,
)

from airflow_mlops.exceptions import ContractError, MLOpsError
from airflow_mlops.operators.errors import airflow_errors
from airflow_mlops.triggers.job import JobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.hooks.datasets.versions import DatasetStore
    from airflow_mlops.primitives.provisioning.versions.manifest import Manifest
    from airflow_mlops.runners.base import ContainerJob, JobState, LogLine, Runner

#: Bytes of a JSON file from a container that are read at most.
JSON_LIMIT = 16 * 1024**2


class ModelCodeOperator(BaseOperator):
    """
    Run one command of the model code, wherever ``runner`` says, and take over what it wrote.

    The job's name is made of DAG run, task, map index and generation, so that a retry after a crash
    adopts the running or finished job, and a user's Clear starts a new one. What a job wrote is removed
    only after it has been taken over.

    :param application: name of the application.
    :param store: URI of the artifact store.
    :param code: ``image`` (docker), ``entrypoint`` and ``directory`` (process).
    :param runner: ``kind`` and the runner's options.
    :param limits: ``cpus``, ``memory`` and ``shm`` in bytes, ``pids``.
    :param network: Docker network of the container.
    :param seed: seed of everything random in the model code.
    :param paradigm: what the model code learns, handed through to it.
    :param job_timeout: seconds that the job may run; it is stopped then, and the task fails.
    :param deferrable: wait in the triggerer instead of on a worker.
    """

    command: ClassVar[str]
    collected: ClassVar[tuple[str, ...]] = ("output",)
    template_fields: Sequence[str] = ("code", "runner")

    def __init__(
        self,
        *,
        application: str,
        store: str,
        code: dict[str, Any] | str,
        runner: dict[str, Any],
        limits: dict[str, Any] | None = None,
        network: str = "none",
        seed: int = 0,
        paradigm: str = "classification",
        job_timeout: float | None = None,
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
        self.seed = seed
        self.paradigm = paradigm
        self.job_timeout = job_timeout
        self.deferrable = deferrable
        self._job_name = ""

    # What a command adds -----------------------------------------------------------------------

    def inputs(self, context: Context, scratch: Path) -> dict[str, str]:
        """Path below ``/opt/ml`` → local file or folder; ``scratch`` is gone after the start."""
        raise NotImplementedError

    def config(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """What this command adds to ``mlops.json``."""
        return {}

    def take_over(self, context: Context, output: Path, state: JobState) -> Any:
        """Keep what the job wrote below ``output`` and return plain JSON."""
        raise NotImplementedError

    def carried(self) -> dict[str, Any]:
        """What ``execute`` found out and :meth:`complete` needs again, in another process: JSON values."""
        return {}

    # The life of a job -------------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        """Start or adopt the job, then wait for it."""
        name = self._job_name = self.job_name(context)
        with airflow_errors(), tempfile.TemporaryDirectory(prefix="mlops-") as scratch:
            runner = self._runner()
            state = runner.submit(self._job(context, name, Path(scratch)))
            self.log.info("Job %s is %s", name, state.status)
        deadline = time.time() + self.job_timeout if self.job_timeout else None
        if self.deferrable and state.status != "exited":
            self.defer(
                trigger=JobTrigger(
                    runner=self._runner_kind, options=self._runner_options, name=name, deadline=deadline
                ),
                method_name=self.complete.__name__,
                # The name depends on the number of retries, which may be edited while the job runs.
                kwargs={"job": name, "carried": self.carried()},
            )
        try:
            with airflow_errors():
                state = runner.wait(name, self._print, deadline=deadline)
        except AirflowTaskTimeout:
            self.on_kill()
            raise
        event = {"status": "timeout" if state.status == "running" else state.status}
        return self.complete(context, event, name, self.carried())

    def complete(
        self,
        context: Context,
        event: dict[str, Any],
        job: str,
        carried: dict[str, Any],  # noqa: ARG002
    ) -> Any:
        """Judge the finished job, take over what it wrote, and remove it.

        The event only wakes this method: what happened is asked of the engine.
        """
        from airflow_mlops.primitives.training.outcome import classify

        name = self._job_name = job
        with airflow_errors(), tempfile.TemporaryDirectory(prefix="mlops-") as folder:
            runner, output = self._runner(), Path(folder)
            state = runner.inspect(name)
            if state.status in ("created", "running"):
                self._give_up(runner, name, event)
            try:
                if state.status == "exited":
                    runner.collect(name, self.collected if state.exit_code == 0 else ("output",), output)
                outcome = classify(state.to_dict(), read_text(output / "output/failure"))
                good = outcome.kind == "success" or self.accepts(outcome.kind, output)
                result = self.take_over(context, output, state) if good else None
            except Exception as error:
                if not self._comes_back(context, error):
                    runner.cleanup(name)
                raise
            broken = self._broken_assumptions(output) if outcome.kind == "assumption" else ""
            runner.cleanup(name)
            if not good:
                failure = AirflowFailException if outcome.final else AirflowException
                raise failure(f"{self.command} of {self._code_name()}: {outcome.message}{broken}")
            return result

    def _broken_assumptions(self, output: Path) -> str:
        """What the model code found broken: in the log, in the error, and in full as a report in the store."""
        from airflow_mlops.hooks.datasets.versions import DatasetStore
        from airflow_mlops.hooks.store.base import open_store
        from airflow_mlops.operators.assumptions import put_report
        from airflow_mlops.primitives.training.outcome import assumption_lines, broken_assumptions

        path = output / "output/assumptions.json"
        if not path.is_file() or path.stat().st_size > JSON_LIMIT:
            return ""
        failures = broken_assumptions(path.read_bytes())
        if not failures:
            return ""
        lines = assumption_lines(failures)
        self.log.error("%d assumption(s) of the model code do not hold:\n%s", len(failures), lines)
        report = {"application": self.application, "command": self.command, "findings": failures}
        address = put_report(DatasetStore(open_store(self.store), self.application), "model-code", report)
        return f"\n{lines}\nFull report: {address}"

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the wait; a job that outlived the task's ``execution_timeout`` is stopped and removed."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            self._job_name = self.job_name(context)
            self.on_kill()
            raise

    def _comes_back(self, context: Context, error: Exception) -> bool:
        """Whether a retry will adopt the finished job and take it over after all."""
        final = isinstance(error, MLOpsError) and not error.retriable
        return not final and context["ti"].try_number <= (context["ti"].max_tries or 0)

    def accepts(self, kind: str, output: Path) -> bool:  # noqa: ARG002
        """Whether an outcome other than success is a result all the same."""
        return False

    def on_kill(self) -> None:
        """Stop the job and remove it: somebody ended this task."""
        if not self._job_name:
            return
        runner = self._runner()
        runner.stop(self._job_name)
        runner.cleanup(self._job_name)

    def _give_up(self, runner: Runner, name: str, event: dict[str, Any]) -> NoReturn:
        runner.stop(name)
        runner.cleanup(name)
        if event.get("status") == "timeout":
            raise AirflowException(
                f"{self.command} of {self._code_name()} ran longer than {self.job_timeout:.0f} s and was "
                "stopped. Cure: raise training.timeout or resources."
            )
        raise AirflowException(f"Job {name} was still running when its end was reported ({event}).")

    def _print(self, line: LogLine) -> None:
        self.log.info("%s", line.text)

    # What a job is made of ---------------------------------------------------------------------

    def job_name(self, context: Context) -> str:
        """Deterministic name of the job: the same for a retry, another after a Clear or in another store."""
        ti = context["ti"]
        generation = (ti.max_tries or 0) - (self.retries or 0)
        # Two Airflows on one engine have equal runs: scheduled__2026-01-05T03:00:00+00:00.
        raw = json.dumps([self.store, ti.dag_id, ti.run_id, ti.task_id, ti.map_index, generation])
        readable = re.sub(r"[^a-zA-Z0-9_.-]", "-", f"mlops-{self.application}-{ti.task_id}")[:80]
        return f"{readable}-{hashlib.sha256(raw.encode()).hexdigest()[:12]}"

    def _job(self, context: Context, name: str, scratch: Path) -> ContainerJob:
        from airflow_mlops.runners.base import ContainerJob, Resources

        ti, code = context["ti"], self._code()
        run = {
            "application": self.application,
            "dag_id": ti.dag_id,
            "run_id": ti.run_id,
            "task_id": ti.task_id,
            "job": name,
        }
        return ContainerJob(
            name=name,
            command=self.command,
            image=code.get("image") or "",
            entrypoint=tuple(code.get("entrypoint") or ()),
            directory=code.get("directory") or "",
            config={
                "contract": 1,
                "command": self.command,
                "parameters": {},
                "seed": self.seed,
                "paradigm": self.paradigm,
                "run": run,
                **self.config(context),
            },
            inputs=self.inputs(context, scratch),
            labels={
                **{key: str(value) for key, value in run.items() if key != "job"},
                "try": str(ti.try_number),
                "store": self.store,
            },
            resources=Resources(**(self.limits or {})),
            network=self.network,
        )

    def _code(self) -> dict[str, Any]:
        # A templated dict that is one expression renders to what the expression gives.
        return json.loads(self.code) if isinstance(self.code, str) else self.code

    def _code_name(self) -> str:
        code = self._code()
        return str(code.get("image") or " ".join(code.get("entrypoint") or ()))

    @property
    def _runner_kind(self) -> str:
        return str(self.runner["kind"])

    @property
    def _runner_options(self) -> dict[str, Any]:
        return {key: value for key, value in self.runner.items() if key != "kind"}

    def _runner(self) -> Runner:
        from airflow_mlops.runners import get_runner

        return get_runner(self._runner_kind, **self._runner_options)


def dataset_inputs(
    datasets: DatasetStore, dataset_id: str, splits: Sequence[str], scratch: Path
) -> dict[str, str]:
    """Lay a dataset version out as the contract wants it: its splits, its folds and its manifest."""
    version, manifest = datasets.manifest(dataset_id), scratch / "manifest.json"
    manifest.write_text(version.to_json())
    inputs = {"input/data/manifest.json": str(manifest)}
    for split in splits:
        for number, path in enumerate(datasets.paths(dataset_id, split, scratch)):
            inputs[f"input/data/{split}/{number:05d}.parquet"] = str(path)
    if "train" in splits and version.folds:
        folds = scratch / "folds.json"
        folds.write_text(json.dumps(fold_files(version), indent=2))
        inputs["input/data/folds.json"] = str(folds)
    return inputs


def fold_files(manifest: Manifest) -> list[dict[str, list[str]]]:
    """Files of each fold below ``input/data``, to learn from and to judge by."""
    train = [chunk for chunk in manifest.chunks if chunk.split == "train"]
    # By place, not by content: two chunks may say the same.
    names = {id(chunk): f"train/{number:05d}.parquet" for number, chunk in enumerate(train)}
    return [
        {role: [names[id(chunk)] for chunk in chunks] for role, chunks in fold.items()}
        for fold in manifest.folds
    ]


def column_config(manifest: Manifest) -> dict[str, Any]:
    """Names of a dataset's columns by role, as ``mlops.json`` carries them: inputs and targets apart.

    Keys, time and the column that says a split are no inputs.
    """

    def named(*roles: str) -> list[str]:
        return [column.name for column in manifest.columns if column.role in roles]

    return {
        "keys": named("key"),
        "timestamp": next(iter(named("timestamp")), None),
        "targets": named("target"),
        "features": named("feature", "input"),
    }


def read_text(path: Path, limit: int = 64 * 1024) -> str:
    """The beginning of a text file that a container wrote; empty when there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(limit).decode(errors="replace")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a container's ``metrics.json``, checking its shape and size.

    :raises ContractError: naming the entry that breaks the contract.
    """
    from airflow_mlops.contract.results import metric_problems

    if not path.is_file():
        raise ContractError(
            f"The model code wrote no output/{path.name}. Cure: write a list of metrics there."
        )
    if path.stat().st_size > JSON_LIMIT:
        raise ContractError(
            f"output/{path.name} has {path.stat().st_size} bytes; at most {JSON_LIMIT} are read."
        )
    try:
        metrics = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ContractError(f"output/{path.name} is not JSON: {error}.") from error
    if not isinstance(metrics, list):
        raise ContractError(f"output/{path.name} must be a list of metrics, got {type(metrics).__name__}.")
    # A null says what an absent key says: not every language leaves it out.
    found = [_without_nulls(metric) for metric in metrics]
    for number, metric in enumerate(found):
        if problems := metric_problems(metric):
            raise ContractError(
                f"output/{path.name}[{number}] breaks the contract: {'; '.join(problems)[:500]}. It is "
                f"{json.dumps(metric)[:200]}."
            )
    return found


def _without_nulls(metric: Any) -> Any:
    if not isinstance(metric, Mapping):
        return metric
    return {key: value for key, value in metric.items() if value is not None}
