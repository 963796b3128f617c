"""What the operators of model code have in common before a job runs: its name, and what goes into it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.jobs.checkpoints import JobCheckpoints
from airflow_mlops.operators.errors import MLOpsTask
from airflow_mlops.primitives.texts.documents import json_text
from airflow_mlops.quirks.installation import installation

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.sdk import Context

    from airflow_mlops.runners.protocol import ContainerJob, JobState, Runner


class ModelJob(MLOpsTask):
    """Parts of a job; :class:`~airflow_mlops.operators.model_code.ModelCodeOperator` gives it its life."""

    command: ClassVar[str]
    collected: ClassVar[tuple[str, ...]] = ("output",)
    #: Whether the command needs neither GPUs nor secrets.
    bare: ClassVar[bool] = False
    template_fields: Sequence[str] = ("code", "runner")

    application: str
    store: str
    code: dict[str, Any] | str
    runner: dict[str, Any]
    limits: dict[str, Any] | None
    network: str
    secrets: dict[str, str] | None
    seed: int
    paradigm: str
    _job_name: str
    _node: str
    _task: Any
    _kept_runner: tuple[dict[str, Any], Runner] | None

    # What a command adds -----------------------------------------------------------------------

    def inputs(self, context: Context, scratch: Path) -> dict[str, str]:
        """Path below ``/opt/ml`` → local file or folder; ``scratch`` is gone after the start."""
        raise NotImplementedError

    def config(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """What this command adds to ``mlops.json``."""
        return {}

    def distribution(self) -> dict[str, Any]:
        """``nodes`` and ``processes_per_node`` of a job that is several processes."""
        return {}

    def take_over(self, context: Context, output: Path, state: JobState) -> Any:
        """Keep what the job wrote below ``output`` and return plain JSON."""
        raise NotImplementedError

    def carried(self) -> dict[str, Any]:
        """What ``execute`` found out and :meth:`complete` needs again, in another process: JSON values."""
        return {}

    def progress(self, context: Context, state: JobState) -> dict[str, Any] | None:  # noqa: ARG002
        """The MLflow run that shows the job while it runs: arguments of ``MetricSink``; none by default."""
        return None

    # What a job is made of ---------------------------------------------------------------------

    def job_name(self, context: Context) -> str:
        """Deterministic name of the job: the same for a retry, another after a Clear or in another store."""
        ti = context["ti"]
        generation = (ti.max_tries or 0) - (self.retries or 0)
        # Two Airflows on one engine have equal runs: scheduled__2026-01-05T03:00:00+00:00.
        raw = json_text([self.store, ti.dag_id, ti.run_id, ti.task_id, ti.map_index, generation])
        readable = re.sub(r"[^a-zA-Z0-9_.-]", "-", f"mlops-{self.application}-{ti.task_id}")[:80]
        return f"{readable}-{hashlib.sha256(raw.encode()).hexdigest()[:12]}"

    def _job(self, context: Context, name: str, scratch: Path) -> ContainerJob:
        from airflow_mlops.runners.protocol import ContainerJob, Distribution, Resources

        ti, code = context["ti"], self._code()
        checkpoint = self._checkpoints(context).fetch(scratch)
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
                "resume": bool(checkpoint),
                "run": run,
                **self.config(context),
            },
            inputs={**self.inputs(context, scratch), **checkpoint},
            labels={**self._owner(context, name), "application": self.application, "try": str(ti.try_number)},
            resources=Resources(**self._limits()),
            network=self.network,
            secrets={} if self.bare else self.secrets or {},
            distribution=Distribution(**self.distribution()),
        )

    def _owner(self, context: Context, name: str) -> dict[str, str]:
        """Labels that say whose a job is; ``job`` is that of the task, also for the parts that it may have."""
        ti = context["ti"]
        return {
            "airflow": installation(),
            "store": self.store,
            "dag_id": str(ti.dag_id),
            "run_id": str(ti.run_id),
            "task_id": str(ti.task_id),
            "map_index": str(ti.map_index),
            "job": name,
        }

    def _limits(self) -> dict[str, Any]:
        return {**(self.limits or {}), **({"gpus": 0} if self.bare else {})}

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
        options = {key: value for key, value in self.runner.items() if key != "kind"}
        return {**options, "node": self._node} if self._node else options

    def _runner(self) -> Runner:
        from airflow_mlops.runners import get_runner

        # Kept, because it knows its connection once it has been used: on_kill cannot ask for it.
        options = self._runner_options
        if self._kept_runner is None or self._kept_runner[0] != options:
            self._kept_runner = (options, get_runner(self._runner_kind, **options))
        return self._kept_runner[1]

    def _checkpoints(self, context: Context) -> JobCheckpoints:
        return JobCheckpoints(self.store, self.application, self._job_name, context["ti"], self.log)
