"""From the one word of the entrypoint to the exit code."""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_mlops.contract.container.environment import write_environment
from airflow_mlops.contract.container.stopping import stop_on_sigterm
from airflow_mlops.contract.container.supervision import is_needed, replace_this_process
from airflow_mlops.contract.container.system import system_metrics
from airflow_mlops.contract.container.trials import read_trials, run_trials
from airflow_mlops.contract.model_code.cases import run_cases, write_junit
from airflow_mlops.contract.model_code.job import Job, read_job, system_metrics_every
from airflow_mlops.contract.protocol.distribution import (
    is_worker,
    launch,
    leave_exit_code,
    program_of_this_process,
    read_topology,
)
from airflow_mlops.contract.protocol.documents import json_text
from airflow_mlops.contract.protocol.failures import (
    AssumptionError,
    CasesFailedError,
    DataError,
    JobError,
    StopRequested,
)
from airflow_mlops.contract.protocol.paths import Paths
from airflow_mlops.contract.protocol.results import write_assumptions, write_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from airflow_mlops.contract.model_code.model_code import ModelCode

_USAGE_EXIT_CODE = 2


def main(model_code: type[ModelCode], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the one command that the command line names, and exit.

    :param model_code: the class; it is made without arguments.
    :param arguments: the command line without the program; by default the real one.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = model_code.commands()
    if len(words) != 1 or words[0] not in commands:
        got = " ".join(words) or "nothing"
        print(
            f"{model_code.name} {model_code.version}: expected one of {', '.join(commands)}; got {got}.",
            file=sys.stderr,
        )
        sys.exit(0 if words in (["--help"], ["-h"]) else _USAGE_EXIT_CODE)
    if is_needed():
        replace_this_process()
    exit_code = _execute_all(model_code, words[0])
    if exit_code == StopRequested.exit_code:  # threads of libraries must not hold a stopped job
        sys.stdout.flush()
        os._exit(exit_code)
    sys.exit(exit_code)


def _execute_all(model_code: type[ModelCode], command: str) -> int:
    """Run the command, in as many processes as the job asks for."""
    if is_worker():
        exit_code = execute(model_code, command)
        leave_exit_code(exit_code)
        return exit_code
    if command != "train":
        return execute(model_code, command)
    paths = Paths.from_environment()
    try:
        topology = read_topology(paths)
        if trials := read_trials(paths):
            return run_trials(trials, paths, lambda own: execute(model_code, command, own))
        if not topology.distributed:
            return execute(model_code, command)
        _clear(command, paths)
        with system_metrics(system_metrics_every(paths)):
            return launch(topology, program_of_this_process())
    except JobError as error:
        return _fail(paths, str(error), "", error.exit_code)


def execute(model_code: type[ModelCode], command: str, paths: Paths | None = None) -> int:
    """Run one command.

    :param command: one of ``model_code.commands()``.
    :param paths: where the job's files are; by default by the environment.
    :returns: the exit code of the contract; the reason of a failure is in ``output/failure``.
    """
    if command == "describe":
        # In short lines: whoever reads them out of a log may get long ones cut.
        print(json.dumps(model_code.describe(), indent=1, allow_nan=False), flush=True)
        return 0
    paths = paths or Paths.from_environment()
    try:
        if not is_worker():
            _clear(command, paths)
        job = read_job(command, paths, model_code.parameters)
        parameters = json_text(dict(job.parameters))
        _say(f"{model_code.name} {model_code.version}: {command}, seed {job.seed}, parameters {parameters}")
        code = model_code()
        # Of several processes, the one that started them measures all.
        every = 0 if is_worker() else system_metrics_every(paths)
        with system_metrics(every), stop_on_sigterm(lambda: _stop(code, job)):
            _COMMANDS[command](code, job)
    except StopRequested as stop:
        return stop.exit_code
    except AssumptionError as error:
        return _fail(paths, str(error), "", error.exit_code, error.failures)
    except JobError as error:
        return _fail(paths, str(error), "", error.exit_code)
    except Exception as error:  # noqa: BLE001 (whatever it is, the outside learns of it)
        return _fail(paths, f"{type(error).__name__}: {error}", traceback.format_exc(), 1)
    return 0


def _prepare(code: ModelCode, job: Job) -> None:
    code.prepare(job)
    if not any(job.paths.prepared.glob("*.parquet")):
        raise JobError(
            f"{type(code).__name__}.prepare wrote no *.parquet into {job.paths.prepared}; "
            "an empty table says that there is no row."
        )


def _train(code: ModelCode, job: Job) -> None:
    model = code.train(job)
    if job.rank:
        return
    job.save_metrics()
    directory = job.paths.model
    _empty(directory)
    code.save(model, directory, job)
    write_environment(job.paths.environment)
    if not any(directory.iterdir()):
        raise JobError(f"{type(code).__name__}.save wrote nothing into {directory}.")


def _evaluate(code: ModelCode, job: Job) -> None:
    code.evaluate(_load(code, job), job)
    job.save_metrics()
    _require_predictions(code, job)


def _test(code: ModelCode, job: Job) -> None:
    results = run_cases(code.test_cases(_load(code, job), job))
    write_junit(job.paths.tests, f"{code.name} {code.version}", results)
    bad = [result for result in results if result.outcome in ("failed", "error")]
    if not results:
        raise CasesFailedError(f"{type(code).__name__}.test_cases has no case.")
    if bad:
        lines = [f"{result.name}: {result.message}" for result in bad[:10]]
        lines += [f"and {len(bad) - 10} more, see tests.xml"] if len(bad) > 10 else []
        raise CasesFailedError(f"{len(bad)} of {len(results)} test cases failed:\n" + "\n".join(lines))


def _predict(code: ModelCode, job: Job) -> None:
    code.predict(_load(code, job), job)
    if job.metrics:
        job.save_metrics()
    _require_predictions(code, job)


def _serve(code: ModelCode, job: Job) -> None:
    from airflow_mlops.contract.model_code.serving import (
        serve_forever,  # http.server is for this command only
    )

    serve_forever(code, _load(code, job), job)


_COMMANDS: dict[str, Callable[[ModelCode, Job], None]] = {
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
    "test": _test,
    "predict": _predict,
    "serve": _serve,
}


def _load(code: ModelCode, job: Job) -> object:
    directory = job.paths.model
    if not directory.is_dir() or not any(directory.iterdir()):
        raise DataError(f"No model in {directory}: `{job.command}` needs the one that `train` wrote.")
    return code.load(directory)


def _require_predictions(code: ModelCode, job: Job) -> None:
    if not job.paths.predictions.exists():
        raise JobError(f"{type(code).__name__}.{job.command} did not write {job.paths.predictions}.")


def _clear(command: str, paths: Paths) -> None:
    """Take away what an earlier job left in this root: it would be read as the result of this one."""
    if command == "serve":
        return
    for path in (paths.failure, paths.metrics, paths.tests, paths.predictions, paths.assumptions):
        path.unlink(missing_ok=True)
    paths.plots.mkdir(parents=True, exist_ok=True)
    if command == "prepare":
        _empty(paths.prepared)


def _empty(directory: Path) -> None:
    # The folder itself may be a mount: only what is in it goes.
    directory.mkdir(parents=True, exist_ok=True)
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _stop(code: ModelCode, job: Job) -> None:
    if job.rank:
        return
    _say(f"Stopped by SIGTERM during `{job.command}`.")
    if not _another_failed(job.paths):
        write_failure(job.paths.failure, f"Stopped by SIGTERM during `{job.command}`.")
    if job.metrics:
        job.save_metrics()
    try:
        code.checkpoint(job)
    except Exception:  # noqa: BLE001 (the job ends either way)
        _say("The checkpoint could not be written:\n" + traceback.format_exc())


def _fail(
    paths: Paths,
    message: str,
    details: str,
    exit_code: int,
    broken: Sequence[Mapping[str, Any]] = (),
) -> int:
    _say(details or message)
    if _another_failed(paths):
        return exit_code
    try:
        write_failure(paths.failure, message, details)
        write_assumptions(paths.assumptions, broken)
    except (OSError, TypeError, ValueError) as error:
        _say(f"The reason cannot be written below {paths.output}: {error}.")
    return exit_code


def _another_failed(paths: Paths) -> bool:
    """Whether this is one of several processes, and another one said first why the job fails."""
    return is_worker() and paths.failure.exists()


def _say(text: str) -> None:
    print(text.rstrip(), file=sys.stderr, flush=True)
