"""The command line of ``airflow-mlops reproduce``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.report import print_json
from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.spec.values import duration

if TYPE_CHECKING:
    from airflow_mlops.cli.reproduce.training import Outcome
    from airflow_mlops.hooks.mlflow.hook import MLflowHook, ModelVersionInfo
    from airflow_mlops.primitives.registration.record import TrainingRecord

SAME, DIFFERENT, IMPOSSIBLE = 0, 3, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument(
        "model",
        metavar="MODEL/VERSION",
        help="a registered model and its version, or an alias such as champion",
    )
    parser.add_argument(
        "--run-on",
        metavar="RUNNER",
        help="where to train, such as docker or process (default: as it was done)",
    )
    parser.add_argument(
        "--store", metavar="URI", help="artifact store of the dataset version (default: as recorded)"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-9,
        help="how far metrics may lie apart, relative to values above 1 (default: 1e-9)",
    )
    parser.add_argument("--bytes", action="store_true", help="the model's files must be the same as well")
    parser.add_argument(
        "--timeout", type=_seconds, default="2h", help="longest time of each job (default: 2h)"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the model and the output in this folder"
    )
    parser.add_argument(
        "--mlflow-conn", metavar="ID", default="mlflow_default", help="connection of the MLflow server"
    )
    parser.add_argument(
        "--docker-conn", metavar="ID", help="connection of the Docker Engine (default: as recorded)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Train again and compare: 0 the same, 3 different, 4 not possible, 2 wrong usage."""
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    model, _, version = arguments.model.rpartition("/")
    if not model or not version:
        print(
            f"airflow-mlops reproduce: expected MODEL/VERSION, such as flight_delay/3, got {arguments.model!r}.",
            file=sys.stderr,
        )
        return 2
    try:
        # What Airflow and the job say is no part of the answer.
        with redirect_stdout(sys.stderr), scratch_folder() as scratch:
            report = _reproduce(arguments, model, version, Path(scratch))
    except MLOpsError as error:
        print(f"airflow-mlops reproduce: {model}/{version} cannot be reproduced: {error}", file=sys.stderr)
        if arguments.json:
            print_json({"model": model, "version": version, "same": None, "problem": str(error)})
        return IMPOSSIBLE
    if arguments.json:
        print_json(report)
    else:
        from airflow_mlops.cli.reproduce.text import print_report

        print_report(report)
    return SAME if report["same"] else DIFFERENT


def _reproduce(arguments: argparse.Namespace, model: str, version: str, scratch: Path) -> dict[str, Any]:
    from airflow_mlops.cli.reproduce.training import Rerun, place_of
    from airflow_mlops.hooks.mlflow.hook import EVALUATION_FILE, MLflowHook
    from airflow_mlops.hooks.store.open import open_store
    from airflow_mlops.primitives.registration.record import TRAINING_METRICS_FILE
    from airflow_mlops.stores.datasets.versions import DatasetStore

    mlflow = MLflowHook(arguments.mlflow_conn)
    found = _find(mlflow, model, version)
    record = _record(mlflow, found)
    damage = _damage(mlflow, found.run_id, scratch / "registered")
    place = place_of(record, arguments.run_on, arguments.docker_conn, scratch, arguments.timeout)
    datasets = DatasetStore(open_store(arguments.store or str(record.data["store"])), record.application)
    evaluation = mlflow.read_json(found.run_id, EVALUATION_FILE)
    work = scratch / "work"
    work.mkdir()
    try:
        threshold = None if evaluation is None else _threshold(mlflow, found.run_id)
        outcome = Rerun(record, datasets, place, work).run(threshold=threshold)
    finally:
        if arguments.keep:
            for name in ("trained", "evaluated"):
                if (work / name).is_dir():
                    shutil.copytree(work / name, arguments.keep / name, dirs_exist_ok=True)
    training = mlflow.read_json(found.run_id, TRAINING_METRICS_FILE) or []
    report = _compare(record, training, evaluation or [], outcome, arguments.tolerance)
    same = report["metrics_same"] and (report["files_same"] or not arguments.bytes) and not damage
    found_there = {"registered_files": damage or "as recorded"}
    return {
        "model": model,
        "version": found.version,
        "run_on": place.kind,
        "same": same,
        **found_there,
        **report,
    }


def _find(mlflow: MLflowHook, model: str, version: str) -> ModelVersionInfo:
    from airflow_mlops.cli.reproduce.training import CannotReproduceError

    if version.isdecimal():
        return mlflow.model_version(model, version)
    found = mlflow.by_alias(model, version)
    if found is None:
        raise CannotReproduceError(
            f"Model {model} has no version with the alias {version}. Cure: name its number."
        )
    return found


def _damage(mlflow: MLflowHook, run_id: str, folder: Path) -> str:
    """What became of the registered model's own files since they were recorded; empty when they are as they were."""
    from airflow_mlops.exceptions import TrackingError

    try:
        mlflow.fetch_model(run_id, folder)
    except TrackingError as error:
        if error.retriable:
            raise
        return str(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ""


def _threshold(mlflow: MLflowHook, run_id: str) -> float:
    from airflow_mlops.hooks.mlflow.hook import THRESHOLD_TAG

    return float(mlflow.run(run_id).tags.get(THRESHOLD_TAG) or 0.5)


def _record(mlflow: MLflowHook, found: ModelVersionInfo) -> TrainingRecord:
    from airflow_mlops.cli.reproduce.training import CannotReproduceError
    from airflow_mlops.primitives.registration.record import RECORD_FILE

    record = mlflow.record(found.run_id) if found.run_id else None
    if record is None:
        raise CannotReproduceError(
            f"Version {found.version} of {found.model} has no record: run {found.run_id or '(none)'} has no "
            f"{RECORD_FILE}. It was not trained by airflow-mlops, or by a release before there were records."
        )
    return record


def _compare(
    record: TrainingRecord,
    training: list[dict[str, Any]],
    evaluation: list[dict[str, Any]],
    outcome: Outcome,
    tolerance: float,
) -> dict[str, Any]:
    from airflow_mlops.primitives.registration.reproduction import compare_files, compare_metrics, same_files

    pairs = [
        {"stage": stage, **pair.to_dict()}
        for stage, old, new in (
            ("training", training, outcome.training),
            ("evaluation", evaluation, outcome.evaluation or []),
        )
        for pair in compare_metrics(old, new, tolerance)
    ]
    files = compare_files(record.model.get("files") or {}, outcome.files)
    return {
        "dataset_id": record.data["dataset_id"],
        "code": record.code_name,
        "metrics": pairs,
        "metrics_same": bool(pairs) and all(pair["same"] for pair in pairs if not pair["timing"]),
        "files": files,
        "files_same": same_files(files),
        "notes": _notes(record, outcome),
    }


def _notes(record: TrainingRecord, outcome: Outcome) -> list[str]:
    """What is not as it was, though nobody asked for a change."""
    notes, directory = [], record.code.get("directory")
    if directory and Path(directory).is_dir() and (which := _changed_code(record, Path(directory))):
        commit = record.code.get("git_commit")
        notes.append(
            f"The code in {directory} is not what was run: {which}. Cure: check out {commit or 'what was run'} there."
        )
    then, now = record.environment, outcome.environment
    if then.get("python") != now.get("python"):
        notes.append(f"Python was {then.get('python')} and is {now.get('python')}.")
    old, new = then.get("packages") or {}, now.get("packages") or {}
    changed = [
        f"{name} {old.get(name, '-')} → {new.get(name, '-')}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    if changed:
        notes.append(f"{len(changed)} package(s) changed: {', '.join(changed[:10])}.")
    if str(record.code.get("git_commit") or "").endswith("-dirty"):
        notes.append("It was trained with changes that were in no commit.")
    return notes


def _changed_code(record: TrainingRecord, directory: Path) -> str:
    """Which files of the code are not as they were, in words; empty when all are."""
    from airflow_mlops.primitives.registration.files import code_files, differences, digest_of

    now, then = code_files(directory), record.code.get("directory_files")
    if (digest_of(now) if now else "") == record.code.get("directory_digest"):
        return ""
    if not then or not now:
        return "its record does not say which files"
    changed = differences(then, now)
    more = f" and {len(changed) - 10} more" if len(changed) > 10 else ""
    return f"{', '.join(changed[:10])}{more}"


def _seconds(value: str) -> float:
    try:
        return duration(value).total_seconds()
    except Exception as error:
        raise argparse.ArgumentTypeError(f"{value!r} is no duration such as 2h or 30m") from error
