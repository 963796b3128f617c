"""Operators that describe and train model code."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.exceptions import ContractError, MLOpsError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.jobs.files import STEPS_LIMIT, column_config, dataset_inputs, read_metrics
from airflow_mlops.jobs.resume import kept_result
from airflow_mlops.operators.errors import airflow_errors
from airflow_mlops.operators.links import MLflowRunLink
from airflow_mlops.operators.model_code import ModelCodeOperator
from airflow_mlops.operators.training.record import (
    code_record,
    data_record,
    environment_record,
    example_rows,
    lineage_of,
)
from airflow_mlops.operators.training.runs import end_run, run_tags, task_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_mlops.hooks.mlflow.runs import MLflowRunsHook, RunInfo, RunStatus
    from airflow_mlops.primitives.datasets.manifest import Manifest
    from airflow_mlops.primitives.registration.record import TrainingRecord
    from airflow_mlops.runners.protocol import JobState
    from airflow_mlops.stores.datasets.versions import DatasetStore

#: What holds parameters against the schema of the model code, which may have any regular expression in it.
VALIDATE = "airflow_mlops.primitives.training.parameters:validate_parameters"
#: The run of the tuning that found the parameters of a training, with its plots.
TUNING_TAG = "airflow_mlops.tuning_run_id"


class DescribeModelCodeOperator(ModelCodeOperator):
    """
    Ask the model code what it is, and check the parameters before anything is trained.

    Returns ``{"code": …, "image_digest": …, "description": …, "parameters": …}``: the code pinned to the
    digest that the later tasks of the run use, and the parameters with the defaults filled in.

    :param parameters: parameters of the YAML.
    :param overrides: parameters of the trigger form, stronger than the YAML's.
    :param commands: what the model code must know, because later tasks ask for it.
    """

    command: ClassVar[str] = "describe"
    bare: ClassVar[bool] = True
    template_fields: Sequence[str] = (*ModelCodeOperator.template_fields, "parameters", "overrides")

    def __init__(
        self,
        *,
        parameters: dict[str, Any] | None = None,
        overrides: dict[str, Any] | str | None = None,
        commands: Sequence[str] = ("train",),
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.parameters = parameters
        self.overrides = overrides
        self.commands = commands

    def inputs(self, context: Context, scratch: Path) -> dict[str, str]:  # noqa: ARG002
        """Nothing goes in."""
        return {}

    def take_over(self, context: Context, output: Path, state: JobState) -> dict[str, Any]:  # noqa: ARG002
        """Read the description from the job's output and hold the parameters against it."""
        from airflow_mlops.primitives.training.description import judge_description

        lines = self._runner().logs(self._job_name)
        overrides = json.loads(self.overrides) if isinstance(self.overrides, str) else self.overrides
        description, parameters = judge_description(
            "\n".join(line.text for line in lines),
            self._code_name(),
            self.commands,
            {**(self.parameters or {}), **(overrides or {})},
        )
        code = dict(self._code())
        if state.image_digest:
            code["image"] = state.image_digest
        return {
            "code": code,
            "image": self._code().get("image") or "",
            "image_digest": state.image_digest,
            "description": description,
            "parameters": parameters,
        }


class TrainModelOperator(ModelCodeOperator):
    """
    Train on a dataset version and log it to MLflow, from the beginning of the job to its end.

    Returns ``{"run_id", "parameters", "lineage"}``. The MLflow run is found again
    by the job's name, so that a retry never makes a second one. It is there while the job runs, shows the figures of
    its lines of progress, and is never left open: a job that fails or is ended closes it as ``FAILED`` or ``KILLED``.

    :param dataset: what ``ProvisionDatasetOperator`` returned.
    :param description: what :class:`DescribeModelCodeOperator` returned.
    :param reasons: what ``CollectReasonsOperator`` returned; goes to the run's tags.
    :param experiment: MLflow experiment.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    :param distributed: ``nodes`` and ``processes_per_node``, when several processes train together.
    :param system_metrics: seconds between two looks at CPU, memory and GPUs inside the container; 0 for none.
    :param input_example: rows of the dataset that go with the model as its input example; 0 for none.
    """

    command: ClassVar[str] = "train"
    collected: ClassVar[tuple[str, ...]] = ("model", "output")
    template_fields: Sequence[str] = (*ModelCodeOperator.template_fields, "dataset", "description", "reasons")
    operator_extra_links = (MLflowRunLink(),)

    def __init__(
        self,
        *,
        dataset: Any,
        description: Any,
        experiment: str,
        reasons: Any = None,
        mlflow_conn_id: str = "mlflow_default",
        distributed: dict[str, Any] | None = None,
        system_metrics: int = 10,
        input_example: int = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.distributed = distributed
        self.dataset = dataset
        self.description = description
        self.reasons = reasons
        self.experiment = experiment
        self.mlflow_conn_id = mlflow_conn_id
        self.system_metrics = system_metrics
        self.input_example = input_example
        self.run_url = ""
        self._read: Manifest | None = None
        self._opened: tuple[MLflowRunsHook, RunInfo] | None = None

    def inputs(self, context: Context, scratch: Path) -> dict[str, str]:  # noqa: ARG002
        """Train and validation split; the test split stays outside."""
        return dataset_inputs(self._datasets(), self.dataset["dataset_id"], ("train", "validation"), scratch)

    def config(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """The parameters as validated, and the columns by role."""
        return {
            "parameters": self.description["parameters"],
            "columns": column_config(self._manifest()),
            "system_metrics": self.system_metrics,
            **({"distributed": self.distributed} if self.distributed else {}),
        }

    def distribution(self) -> dict[str, Any]:
        """As the YAML says."""
        return self.distributed or {}

    def job_name(self, context: Context) -> str:
        """The job of a tuning's best trial, when its model is to be taken over and still there; else one of its own."""
        best = str(self.description.get("job") or "")
        with airflow_errors():
            if best and (kept_result(context, best) or self._runner().inspect(best).status != "gone"):
                return best
        return super().job_name(context)

    # The MLflow run ----------------------------------------------------------------------------

    def progress(self, context: Context, state: JobState) -> dict[str, Any] | None:
        """Open the run. MLflow being away does not stop a training: the run is made at its end then."""
        try:
            run = self._open_run(context, self._record(context, state))
        except MLOpsError as error:
            self.log.warning("The training runs without an MLflow run to look at: %s", error)
            return None
        self.log.info("MLflow run: %s", self.run_url)
        return {"mlflow_conn_id": self.mlflow_conn_id, "run_id": run.run_id}

    def execute(self, context: Context) -> Any:
        """Train; whatever goes wrong, the run is closed."""
        try:
            return super().execute(context)
        except Exception as error:
            self._close_run("FAILED", str(error))
            raise

    def complete(self, context: Context, event: dict[str, Any], job: str, carried: dict[str, Any]) -> Any:
        """Take over the result; whatever goes wrong, the run is closed."""
        self.run_url = self.run_url or carried.get("run_url", "")
        try:
            return super().complete(context, event, job, carried)
        except Exception as error:
            self._close_run("FAILED", str(error))
            raise

    def carried(self) -> dict[str, Any]:
        """The run's page."""
        return {"run_url": self.run_url}

    def on_kill(self) -> None:
        """Stop the job, and close the run."""
        super().on_kill()
        # In a signal handler nothing may be asked of Airflow: only a server that is known already.
        if self._killed and self._opened:
            mlflow, run = self._opened
            end_run(mlflow, self.log, run, "KILLED", "The task was ended by hand.")

    def _end_early(self, context: Context, position: dict[str, Any] | None = None) -> None:
        super()._end_early(context, position)
        self._close_run("KILLED", "The task ran longer than its execution_timeout.")

    def _open_run(self, context: Context, record: TrainingRecord) -> RunInfo:
        from airflow_mlops.hooks.mlflow.runs import MLflowRunsHook

        mlflow, manifest = MLflowRunsHook(self.mlflow_conn_id), self._manifest()
        tuning = self.description.get("tuning") or {}
        lineage = lineage_of(record)
        tags = run_tags(
            context,
            application=self.application,
            git_commit=lineage.git_commit,
            reasons=record.reasons,
        )
        run_id = mlflow.find_or_create_run(
            self.experiment,
            key=self._job_name,
            name=f"{self.application} {context['ti'].run_id}",
            tags={**lineage.to_tags(), **tags, TUNING_TAG: tuning.get("run_id")},
        )
        run = mlflow.run(run_id)
        self.run_url, self._opened = mlflow.run_url(run), (mlflow, run)
        parameters = self.description["parameters"]
        # A parameter of the model code that is called seed stays what it is.
        mlflow.log_parameters(
            run_id, {("airflow_mlops.seed" if "seed" in parameters else "seed"): self.seed, **parameters}
        )
        mlflow.log_dataset(
            run_id,
            name=f"{self.application}.dataset",
            digest=manifest.id,
            source=self._datasets().manifest_address(manifest.id),
            schema=[{"name": column.name, "type": column.type} for column in manifest.columns],
            rows=sum(manifest.splits.values()),
        )
        return run

    def _close_run(self, status: RunStatus, reason: str) -> None:
        from airflow_mlops.hooks.mlflow.runs import MLflowRunsHook

        if not self._job_name:
            return
        mlflow = MLflowRunsHook(self.mlflow_conn_id)
        try:
            run = mlflow.find_run(self.experiment, self._job_name)
        except MLOpsError as error:
            self.log.warning("Its MLflow run stays open until the maintenance closes it: %s", error)
        else:
            end_run(mlflow, self.log, run, status, reason)

    # The result --------------------------------------------------------------------------------

    def take_over(self, context: Context, output: Path, state: JobState) -> dict[str, Any]:
        """Log metrics, model and record to the MLflow run, and finish it."""
        from airflow_mlops.hooks.mlflow.hook import MLflowHook
        from airflow_mlops.primitives.registration.record import RECORD_FILE, TRAINING_METRICS_FILE

        if not (output / "model/MLmodel").is_file():
            wrote = sorted(path.name for path in (output / "model").glob("*"))[:20]
            raise ContractError(
                f"{self._code_name()} trained and left no MLflow model directory in model/ (a file MLmodel and what it "
                f"names), it wrote: {', '.join(wrote) or 'nothing'}. Cure: save the model there with MLflow."
            )
        metrics = read_metrics(output / "output/metrics.json", STEPS_LIMIT)
        record = self._record(context, state, output)
        record = replace(record, model={**record.model, "completed": self._complete_model(output, record)})
        mlflow = MLflowHook(self.mlflow_conn_id)
        run_id = self._open_run(context, record).run_id
        record = replace(record, run={**record.run, "run_id": run_id})
        mlflow.log_metrics(run_id, metrics)
        mlflow.log_directory(run_id, output / "model", "model")
        for folder in ("plots", "environment"):
            if (output / "output" / folder).is_dir():
                mlflow.log_directory(run_id, output / "output" / folder, folder)
        mlflow.log_json(run_id, TRAINING_METRICS_FILE, metrics)
        mlflow.log_json(run_id, RECORD_FILE, record.to_dict())
        mlflow.finish_run(run_id)
        parameters = self.description["parameters"]
        return {"run_id": run_id, "parameters": parameters, "lineage": asdict(lineage_of(record))}

    def _complete_model(self, output: Path, record: TrainingRecord) -> dict[str, str]:
        """Add signature and input example where the model code gave none; digests of the files that are new by that."""
        from airflow_mlops.hooks.mlflow.model import complete_model
        from airflow_mlops.primitives.registration.files import file_digests

        manifest = self._manifest()
        inputs = set(manifest.model_inputs)
        columns = [{"name": c.name, "type": c.type} for c in manifest.columns if c.name in inputs]
        with scratch_folder() as scratch:
            names = [column["name"] for column in columns]
            rows = example_rows(self._datasets(), manifest, names, self.input_example, Path(scratch))
        if added := complete_model(output / "model", columns, rows):
            self.log.info("Added to the model, from the dataset version: %s", ", ".join(added))
        wrote = record.model["files"]
        return {
            path: digest
            for path, digest in file_digests(output / "model").items()
            if wrote.get(path) != digest
        }

    def _record(self, context: Context, state: JobState, output: Path | None = None) -> TrainingRecord:
        """What went into the training and, once there is ``output``, what came out."""
        from airflow_mlops.primitives.reasons import describe, reasons_of, short_ids
        from airflow_mlops.primitives.registration.files import file_digests
        from airflow_mlops.primitives.registration.record import TrainingRecord

        ti, config, reasons = context["ti"], self.config(context), reasons_of(self.reasons)
        config.pop("system_metrics", None)
        return TrainingRecord(
            application=self.application,
            code=code_record(self._code(), self.description["description"], self.description["image"], state),
            config={"seed": self.seed, "paradigm": self.paradigm, **config},
            data=data_record(self._datasets(), self._manifest(), self.store),
            job={
                "runner": self.runner,
                "limits": self.limits,
                "network": self.network,
                "secrets": self.secrets,
                "distribution": self.distribution(),
            },
            environment=environment_record(output / "output/environment") if output else {},
            model={"files": file_digests(output / "model")} if output else {},
            run={
                "experiment": self.experiment,
                "dag_id": ti.dag_id,
                "dag_run": ti.run_id,
                "task_id": ti.task_id,
                "try": ti.try_number,
                "url": task_url(context),
            },
            reasons=describe(reasons),
            reason_ids=short_ids(reason.id for reason in reasons if reason.id),
        )

    def _manifest(self) -> Manifest:
        if self._read is None or self._read.id != self.dataset["dataset_id"]:
            self._read = self._datasets().manifest(self.dataset["dataset_id"])
        return self._read

    def _datasets(self) -> DatasetStore:
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.datasets.versions import DatasetStore

        return DatasetStore(open_store(self.store), self.application)
