"""The operator that searches parameters before a model is trained."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout

from airflow_mlops.exceptions import ContractError, MLOpsError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.jobs.files import column_config, dataset_inputs
from airflow_mlops.operators.errors import airflow_errors
from airflow_mlops.operators.links import MLflowRunLink
from airflow_mlops.operators.model_code import ModelCodeOperator
from airflow_mlops.operators.training.runs import end_run
from airflow_mlops.operators.training.train import VALIDATE
from airflow_mlops.primitives.texts.documents import json_text

#: What reads the search space out of the schema of the model code, which may refer to itself.
SEARCH_SPACE = "airflow_mlops.primitives.training.search_space:search_space_json"

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_mlops.hooks.mlflow.runs import MLflowRunsHook, RunInfo
    from airflow_mlops.hooks.store.base import Store
    from airflow_mlops.primitives.training.tuning import Plan, Tuning
    from airflow_mlops.runners.protocol import ContainerJob
    from airflow_mlops.stores.datasets.versions import DatasetStore


class TuneModelOperator(ModelCodeOperator):
    """
    Search good parameters with trainings in containers, some at a time, and log each as a nested MLflow run.

    Returns what :class:`~airflow_mlops.operators.training.train.DescribeModelCodeOperator` returned, with the best
    parameters instead, and ``tuning``: ``{"trial", "values", "objectives", "trials", "run_id", "reason"}``. With
    ``best: reuse`` it also has ``job``, the name of the best trial's job, which ``TrainModelOperator`` takes over.

    Deferred, all trials run from the triggerer: the worker prepares, and comes back when the budget is used up. The
    state of the tuning is one JSON document in the store; whoever dies, no finished trial is lost or done again.
    ``job_timeout`` counts for each trial.

    :param dataset: what ``ProvisionDatasetOperator`` returned; the test split stays outside.
    :param description: what ``DescribeModelCodeOperator`` returned.
    :param tuning: the section ``training.tuning`` of the YAML, as JSON values; durations are seconds.
    :param parameters: parameters of the YAML: these are not searched.
    :param overrides: parameters of the trigger form: neither are these.
    :param experiment: MLflow experiment.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    :param distributed: ``nodes`` and ``processes_per_node``, when several processes train each trial together.
    """

    command: ClassVar[str] = "train"
    template_fields: Sequence[str] = (
        *ModelCodeOperator.template_fields,
        "dataset",
        "description",
        "tuning",
        "parameters",
        "overrides",
    )
    operator_extra_links = (MLflowRunLink(),)

    def __init__(
        self,
        *,
        dataset: Any,
        description: Any,
        tuning: dict[str, Any],
        experiment: str,
        parameters: dict[str, Any] | None = None,
        overrides: dict[str, Any] | str | None = None,
        mlflow_conn_id: str = "mlflow_default",
        distributed: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.dataset = dataset
        self.description = description
        self.tuning = tuning
        self.parameters = parameters
        self.overrides = overrides
        self.experiment = experiment
        self.mlflow_conn_id = mlflow_conn_id
        self.distributed = distributed
        self.run_url = ""
        self._kept_store: Store | None = None
        self._opened: tuple[MLflowRunsHook, RunInfo] | None = None

    def inputs(self, context: Context, scratch: Path) -> dict[str, str]:  # noqa: ARG002
        """Train and validation split; the test split stays outside."""
        return dataset_inputs(self._datasets(), self.dataset["dataset_id"], ("train", "validation"), scratch)

    def config(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """The columns by role; each trial adds its parameters."""
        return {
            "columns": column_config(self._datasets().manifest(self.dataset["dataset_id"])),
            **({"distributed": self.distributed} if self.distributed else {}),
        }

    def distribution(self) -> dict[str, Any]:
        """As the YAML says."""
        return self.distributed or {}

    # The life of a tuning ----------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        """Write the tuning down, share its data, and let the loop run."""
        from airflow_mlops.jobs.owners import end_older_jobs
        from airflow_mlops.triggers.tuning import TuningTrigger

        name, self._task = self.job_name(context), context["ti"]
        self._job_name = name
        with airflow_errors():
            if context["ti"].try_number > 1:
                end_older_jobs(self._runner(), self._owner(context, name), self.log)
            running = self._prepare(context, name)
        if running and self.deferrable:
            self.defer(
                trigger=TuningTrigger(store=self.store, key=self._key(name)),
                method_name=self.complete.__name__,
                kwargs={"job": name, "carried": {}},
            )
        if running:
            self._wait_here(context, name)
        return self.complete(context, {}, name, {})

    def _wait_here(self, context: Context, name: str) -> None:
        from airflow_mlops.jobs.tuning.loop import TuningLoop

        try:
            with airflow_errors():
                asyncio.run(TuningLoop(self._open_store(), self._key(name), self.log).run())
        except AirflowTaskTimeout:
            self._end_early(context)
            raise

    def complete(
        self,
        context: Context,
        event: dict[str, Any],
        job: str,
        carried: dict[str, Any],  # noqa: ARG002
    ) -> Any:
        """Log the trials and hand the best parameters on; the event only wakes this method."""
        from airflow_mlops.primitives.container_output.judging import judge

        self._job_name, self._task = job, context["ti"]
        with airflow_errors():
            tuning = self._document(job)
            if tuning.status == "running":
                self._end_early(context)
                raise AirflowException(
                    f"Tuning {job} cannot go on: {event.get('reason') or 'nobody said why'}. Cure: correct that, then "
                    "clear the task."
                )
            run_id = self._record(context, tuning)
            best = tuning.best()
            if tuning.status == "failed" or best is None:
                raise AirflowFailException(f"Tuning of {self._code_name()} failed: {tuning.reason}")
            parameters = judge(
                VALIDATE,
                self.description["description"].get("parameters") or {},
                {**tuning.plan.fixed, **best.parameters},
                what="describe: the JSON Schema of its parameters",
            )
        self.log.info("Best is trial %d (%s): %s", best.number, tuning.reason, parameters)
        return {
            **self.description,
            "parameters": parameters,
            "tuning": {
                "trial": best.number,
                "values": best.values,
                "objectives": list(tuning.plan.objectives),
                "trials": len(tuning.finished),
                "run_id": run_id,
                "reason": tuning.reason,
            },
            **({"job": best.job} if tuning.plan.keep_best else {}),
        }

    def on_kill(self) -> None:
        """Stop all trials and remove them: somebody ended this task."""
        if not self._job_name or self._killed or not self._by_hand():
            return
        self._killed = True
        self._kill()
        if self._opened:
            mlflow, run = self._opened
            end_run(mlflow, self.log, run, "KILLED", "The task was ended by hand.")

    def _kill(self) -> None:
        from airflow_mlops.jobs.tuning.loop import TuningLoop

        # What was opened before, since Airflow may be in no state to be asked for a connection; and in a thread,
        # since this may be called while the loop runs in the main one.
        store, runner = self._open_store(), self._runner()
        loop = TuningLoop(store, self._key(self._job_name), self.log, runner)

        def kill() -> None:
            try:
                asyncio.run(loop.kill())
            except MLOpsError as error:
                self.log.warning("The trials could not all be stopped: %s", error)
            runner.cleanup(f"{self._job_name}-data")

        ended = Thread(target=kill)
        ended.start()
        ended.join()

    def _end_early(self, context: Context, position: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Stop the trials, which the task has no more time for; those on their way are there for a retry."""
        if self._retried(context):
            self.log.info("The trials go on: a retry finds them")
        else:
            self._kill()

    def _prepare(self, context: Context, name: str) -> bool:
        """Whether there is something to do; an earlier try's document is gone on with."""
        from airflow_mlops.hooks.store.base import json_bytes

        data = self._open_store().read(self._key(name))
        if data is not None:
            tuning = self._document(name)
            self.log.info("Tuning %s is %s, %d trials are done", name, tuning.status, len(tuning.finished))
            return tuning.status == "running"
        plan = self._plan()
        with scratch_folder() as scratch:
            job = self._job(context, name, Path(scratch))
            shared, keys = self._share(job)
        tuning = self._new(name, plan, replace(job, inputs={}, shared=shared), keys)
        self._open_store().put_if_absent(self._key(name), json_bytes(tuning.to_dict()))
        self.log.info("Tuning %s: up to %d trials, %d at a time", name, plan.trials, plan.parallel)
        return True

    def _share(self, job: ContainerJob) -> tuple[str, dict[str, str]]:
        """Bring the data where all trials find it: to the runner, or into the store."""
        from airflow_mlops.runners.protocol import StagingRunner

        runner, stage = self._runner(), f"{job.name}-data"
        if isinstance(runner, StagingRunner):
            runner.stage(replace(job, name=stage, command="stage"))
            return stage, {}
        prefix, keys = self._key(job.name).rpartition("/")[0], {}
        for path, source in job.inputs.items():
            keys[path] = f"{prefix}/{path}"
            self._open_store().put_if_absent(keys[path], Path(source))
        return "", keys

    def _new(self, name: str, plan: Plan, job: ContainerJob, inputs: dict[str, str]) -> Tuning:
        from airflow_mlops.primitives.training.tuning import Tuning

        content = json.loads(json_text(asdict(job)))
        return Tuning(name, plan, content, dict(self.runner), time.time(), inputs=inputs)

    def _plan(self) -> Plan:
        from airflow_mlops.primitives.container_output.judging import judge
        from airflow_mlops.primitives.training.search_space import Dimension, default_point, grid
        from airflow_mlops.primitives.training.tuning import Plan

        asked, described = self.tuning, self.description["description"]
        overrides = json.loads(self.overrides) if isinstance(self.overrides, str) else self.overrides
        fixed = {**(self.parameters or {}), **(overrides or {})}
        found = judge(
            SEARCH_SPACE,
            described.get("parameters") or {},
            asked.get("search_space") or {},
            list(fixed),
            what="describe: the JSON Schema of its parameters",
        )
        space = {name: Dimension.from_dict(one) for name, one in found.items()}
        known, stop = self.description["parameters"], asked.get("early_stop") or {}
        seed = self.seed if asked.get("seed") is None else asked["seed"]
        trials = asked.get("trials", 30)
        if asked.get("sampler") == "grid":
            trials = min(trials, len(grid(space, seed)))
        several = asked.get("trials_per_container", 1)
        if several > 1 and self.distributed:
            raise ContractError("Several processes train one trial at a time. Cure: trials_per_container: 1.")
        if several > 1 and described.get("trials") is not True:
            raise ContractError(
                f"{self._code_name()} cannot do several trials in one container: its description does not say "
                '"trials": true. Cure: write trials_per_container: 1, or build it with airflow_mlops.contract.'
            )
        objectives, directions = _listed(asked["objective"]), _listed(asked.get("direction") or "maximize")
        same = {key: asked[key] for key in ("parallel", "sampler", "pruner", "failures") if key in asked}
        return Plan(
            objectives=objectives,
            directions=directions * len(objectives) if len(directions) == 1 else directions,
            space=space,
            fixed={key: value for key, value in known.items() if key not in space},
            first=default_point(space, known),
            trials=trials,
            timeout=asked.get("timeout"),
            trial_timeout=self.job_timeout,
            stop_after=stop.get("trials", 0),
            min_improvement=stop.get("min_improvement", 0.0),
            trials_per_container=several,
            seed=seed,
            keep_best=asked.get("best") == "reuse",
            **same,
        )

    # What is kept of it ------------------------------------------------------------------------

    def _record(self, context: Context, tuning: Tuning) -> str:
        """One run for the tuning with its plots, and one below it for each trial; whatever goes wrong, it is closed."""
        from airflow_mlops.hooks.mlflow.trials import MLflowTrialsHook
        from airflow_mlops.operators.training.tuning_record import end_tuning, log_tuning, tuning_tags

        mlflow = MLflowTrialsHook(self.mlflow_conn_id)
        tags = tuning_tags(
            context,
            tuning,
            application=self.application,
            dataset_id=self.dataset["dataset_id"],
            code=self._code(),
            description=self.description,
            seed=tuning.plan.seed,
        )
        run_id = mlflow.find_or_create_run(
            self.experiment,
            key=tuning.name,
            name=f"{self.application} tuning {context['ti'].run_id}",
            tags={**tags, "airflow_mlops.tuning": tuning.reason},
        )
        run = mlflow.run(run_id)
        self.run_url, self._opened = mlflow.run_url(run), (mlflow, run)
        try:
            log_tuning(mlflow, run_id, tuning, tags)
        except Exception as error:
            end_tuning(mlflow, self.log, run, str(error), final=not self._comes_back(context, error))
            raise
        return run_id

    def _document(self, name: str) -> Tuning:
        from airflow_mlops.primitives.training.tuning import Tuning

        return Tuning.from_dict(self._open_store().read_json(self._key(name)))

    def _key(self, name: str) -> str:
        return f"{self.application}/tuning/{name}/study.json"

    def _open_store(self) -> Store:
        from airflow_mlops.hooks.store.open import open_store

        if self._kept_store is None:
            self._kept_store = open_store(self.store)
        return self._kept_store

    def _datasets(self) -> DatasetStore:
        from airflow_mlops.stores.datasets.versions import DatasetStore

        return DatasetStore(self._open_store(), self.application)


def _listed(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
