"""``airflow-mlops try``: the tasks of a training on this machine, before any Airflow knows of it."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.report import UsageError, print_json, problems_of, yaml_files
from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.primitives.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from airflow_mlops.spec import ApplicationSpec

#: Tasks that decide about models in use, or keep the books of reasons.
_LEFT_OUT = frozenset(
    {"collect_reasons", "evaluate_champion", "tune", "register", "answer_reasons", "rearm", "conclude"}
)
_CONNECTION = "mlflow_trial"


class TrialError(MLOpsError):
    """A task of the trial failed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("path", metavar="FILE", type=Path, help="YAML file of an application")
    parser.add_argument(
        "--rows",
        metavar="N",
        type=int,
        default=10_000,
        help="train on the N newest examples (10000); 0 for all",
    )
    parser.add_argument("--run-on", choices=("process", "docker"), help="run the model code here instead")
    parser.add_argument("--json", action="store_true", help="print the gate's decision as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Try the application; 0 when the gate would let the model pass, 1 when it would not or a task fails."""
    if arguments.rows < 0:
        print(
            "airflow-mlops try: --rows is negative. Cure: give a number of examples, or 0 for all.",
            file=sys.stderr,
        )
        return 2
    try:
        loaded, errors = yaml_files([arguments.path])
    except UsageError as error:
        print(f"airflow-mlops try: {error}", file=sys.stderr)
        return 2
    if errors:
        for problem in problems_of(errors):
            print(problem, file=sys.stderr)
        return 1
    if len(loaded) != 1 or loaded[0].kind != "application":
        print(
            f"airflow-mlops try: {arguments.path} is not one application. Cure: name its file.",
            file=sys.stderr,
        )
        return 2
    from airflow_mlops.hooks.scratch import scratch_folder

    _log_to_stderr()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is stopped
    with scratch_folder() as folder:
        spec = _here(loaded[0].spec, Path(folder), arguments.run_on)
        decision = _Trial(spec, arguments.rows, Path(folder)).run()
    if arguments.json:
        print_json(decision)
    else:
        print(decision["message"])
        print("Nothing was registered, and nothing is left of the trial.")
    return 0 if decision["passed"] else 1


def _here(spec: Any, folder: Path, run_on: str | None) -> ApplicationSpec:
    """The application with a store and a tracking server of the trial, waiting for each job itself."""
    place = run_on or spec.training.run_on
    if place not in ("process", "docker"):
        raise TrialError(
            f"{spec.application}: training.run_on is {place}, and a trial runs on this machine. Cure: --run-on docker, "
            "or --run-on process."
        )
    training = spec.training.model_copy(
        update={"run_on": place, "deferrable": False, "retries": 0, "tuning": None, "pool": None}
    )
    tracking = spec.tracking.model_copy(update={"connection": _CONNECTION, "experiment": "trial"})
    made: ApplicationSpec = spec.model_copy(
        update={"store": str(folder / "store"), "training": training, "tracking": tracking}
    )
    return made


@dataclass
class _Results:
    """What a task instance asks Airflow for: its names, and the results of the tasks before."""

    dag_id: str
    run_id: str
    task_id: str = ""
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    values: dict[tuple[str, str], Any] = field(default_factory=dict)

    def xcom_pull(self, *, task_ids: str, key: str, default: Any = None, **_: Any) -> Any:
        """Result of another task."""
        return self.values.get((task_ids, key), default)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a result."""
        self.values[self.task_id, key] = value


class _Trial:
    """The tasks of the training DAG, one after another in this process."""

    def __init__(self, spec: ApplicationSpec, rows: int, folder: Path) -> None:
        from airflow_mlops.factories.training import build_training_dag

        self._folder = folder
        self._dag = build_training_dag(spec)
        self._ti = _Results(self._dag.dag_id, f"trial-{os.getpid()}")
        if rows:
            provision: Any = self._dag.get_task("provision")
            provision.examples = {**provision.examples, "newest": rows}

    def run(self) -> dict[str, Any]:
        """Run them, and give the decision of the gate."""
        reasons = [{"id": "trial", "kind": "on_demand", "at": "", "evidence": {"why": "airflow-mlops try"}}]
        self._ti.values["collect_reasons", "return_value"] = reasons
        context: dict[str, Any] = {"ti": self._ti, "params": {"why": "", "parameters": {}}, "dag": self._dag}
        with ExitStack() as servers:
            for task in self._dag.topological_sort():  # type: ignore[no-untyped-call]
                if task.task_id == "train":
                    servers.enter_context(_mlflow(self._folder))
                if task.task_id not in _LEFT_OUT:
                    self._run(task, context)
        decision: dict[str, Any] = self._ti.values["gate", "return_value"]
        return decision

    def _run(self, task: Any, context: dict[str, Any]) -> None:
        from airflow.sdk.bases.operator import ExecutorSafeguard

        print(f"== {task.task_id}", file=sys.stderr, flush=True)
        began, self._ti.task_id = time.monotonic(), task.task_id
        token = ExecutorSafeguard.tracker.set(task)  # as Airflow's own runner of tasks says that it is one
        try:
            task.render_template_fields({**context, "task": task})
            result = task.execute(context)
        except KeyboardInterrupt:
            task.on_kill()
            raise
        except Exception as error:
            raise TrialError(f"{task.task_id}: {error}") from error
        finally:
            ExecutorSafeguard.tracker.reset(token)
        self._ti.values[task.task_id, "return_value"] = result
        if getattr(task, "multiple_outputs", False):
            self._ti.values.update({(task.task_id, key): value for key, value in result.items()})
        print(f"   {task.task_id} took {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)


def _log_to_stderr() -> None:
    """What tasks log goes to standard error, as plain lines; standard output is the command's."""
    import airflow.sdk  # noqa: F401  it configures structlog itself, so it comes first
    import structlog

    class Named(structlog.PrintLogger):
        def __init__(self, name: str = "", *_: Any) -> None:
            super().__init__(sys.stderr)
            self.name = name

    def line(_: Any, __: str, said: MutableMapping[str, Any]) -> str:
        return f"   {said['event']}"

    structlog.configure(
        processors=[structlog.stdlib.PositionalArgumentsFormatter(), line],
        logger_factory=Named,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("   %(message)s"))
    logger = logging.getLogger("airflow_mlops")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


@contextmanager
def _mlflow(folder: Path) -> Iterator[None]:
    """A tracking server of the trial's own, which goes with its folder."""
    from airflow_mlops.cli.demo.servers import mlflow_server

    server, uri = mlflow_server(folder / "mlflow")
    name = f"AIRFLOW_CONN_{_CONNECTION.upper()}"
    print("== an MLflow server of the trial's own starts", file=sys.stderr, flush=True)
    server.start()
    try:
        server.wait(600)
        os.environ[name] = json_text({"conn_type": "mlflow", "host": uri})
        yield
    finally:
        os.environ.pop(name, None)
        server.stop()
