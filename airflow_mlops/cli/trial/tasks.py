"""The tasks of a DAG one after another in this process, without any Airflow: what ``try`` and ``contract check`` do."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import CommandError
from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, MutableMapping
    from pathlib import Path

    from airflow.sdk import DAG

    from airflow_mlops.spec import ApplicationSpec

#: Tasks that decide about models in use, or keep the books of reasons.
BOOKKEEPING = frozenset(
    {"collect_reasons", "evaluate_champion", "tune", "register", "answer_reasons", "rearm", "conclude"}
)
_CONNECTION = "mlflow_trial"
#: The newest lines that tasks logged, those of their containers among them.
LAST_LINES: deque[str] = deque(maxlen=15)


class TrialError(CommandError):
    """A task failed.

    :param task_id: which one.
    """

    def __init__(self, message: str, task_id: str = "") -> None:
        super().__init__(message)
        self.task_id = task_id


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

    def keep(self, task_id: str, result: Any, *, each: bool = False) -> None:
        """Keep what a task returned; ``each`` of its values by its name, too."""
        self.values[task_id, "return_value"] = result
        if each:
            self.values.update({(task_id, key): value for key, value in result.items()})


class LocalTasks:
    """
    The tasks of one DAG.

    :param dag: as a factory built it.
    :param given: results of tasks that do not run here.
    :param examples: what holds of the examples here, beside or in place of what the DAG says.
    """

    def __init__(self, dag: DAG, given: Mapping[str, Any], examples: Mapping[str, Any] | None = None) -> None:
        self.dag = dag
        self._examples = dict(examples or {})
        self._ti = _Results(dag.dag_id, f"trial-{os.getpid()}")
        for task_id, result in given.items():
            self._ti.keep(task_id, result, each=isinstance(result, dict))

    def task_ids(self, left_out: Collection[str] = BOOKKEEPING) -> list[str]:
        """The tasks in their order."""
        ordered = self.dag.topological_sort()  # type: ignore[no-untyped-call]
        return [task.task_id for task in ordered if task.task_id not in left_out]

    def run(self, task_id: str) -> Any:
        """Run one task, and give what it returned.

        :raises TrialError: it failed, as it would in the DAG.
        """
        from airflow.sdk.bases.operator import ExecutorSafeguard

        task: Any = self.dag.get_task(task_id)
        context = {"ti": self._ti, "params": {"why": "", "parameters": {}}, "dag": self.dag, "task": task}
        print(f"== {task_id}", file=sys.stderr, flush=True)
        began, self._ti.task_id = time.monotonic(), task_id
        LAST_LINES.clear()
        token = ExecutorSafeguard.tracker.set(task)  # as Airflow's own runner of tasks says that it is one
        try:
            task.render_template_fields(context)
            if self._examples and task_id == "provision":
                task.examples = {**task.examples, **self._examples}
            result = task.execute(context)
        except (KeyboardInterrupt, SystemExit):
            _end_job(task)
            raise
        except Exception as error:
            raise TrialError(f"{task_id}: {error}", task_id) from error
        finally:
            ExecutorSafeguard.tracker.reset(token)
        self._ti.keep(task_id, result, each=getattr(task, "multiple_outputs", False))
        print(f"   {task_id} took {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
        return result


def _end_job(task: Any) -> None:
    """Stop and remove the job of a task that is given up; a second signal does not keep it from that."""
    from airflow_mlops.operators.model_code import ModelCodeOperator

    if isinstance(task, ModelCodeOperator):
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        task.discard_job()


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_by_signals() -> None:
    """Let every signal that ends this process end what it started first, as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def local_spec(spec: ApplicationSpec, folder: Path, **training: Any) -> ApplicationSpec:
    """The application with store and tracking server of its own below a folder, whose tasks wait for their jobs."""
    update = {"deferrable": False, "retries": 0, "tuning": None, "pool": None, **training}
    tracking = spec.tracking.model_copy(update={"connection": _CONNECTION, "experiment": "trial"})
    made: ApplicationSpec = spec.model_copy(
        update={
            "store": str(folder / "store"),
            "training": spec.training.model_copy(update=update),
            "tracking": tracking,
        }
    )
    return made


def training_tasks(spec: ApplicationSpec, why: str, rows: int = 0) -> LocalTasks:
    """The tasks of the training DAG.

    :param why: the reason that stands for those of production.
    :param rows: train on so many of the newest examples; 0 for all.
    """
    from airflow_mlops.factories.training import build_training_dag

    reasons = [{"id": "trial", "kind": "on_demand", "at": "", "evidence": {"why": why}}]
    examples = {"newest": rows} if rows else {}
    return LocalTasks(build_training_dag(spec), {"collect_reasons": reasons}, examples)


def log_to_stderr() -> None:
    """What tasks log goes to standard error, as plain lines; standard output is the command's."""
    import airflow.sdk  # noqa: F401  it configures structlog itself, so it comes first
    import structlog

    class Named(structlog.PrintLogger):
        def __init__(self, name: str = "", *_: Any) -> None:
            super().__init__(sys.stderr)
            self.name = name

    def line(_: Any, __: str, said: MutableMapping[str, Any]) -> str:
        LAST_LINES.append(str(said["event"]))
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
def own_mlflow(folder: Path) -> Iterator[None]:
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
