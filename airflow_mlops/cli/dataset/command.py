"""The command line of dataset versions."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.cli.dataset import differences, text
from airflow_mlops.cli.report import UsageError, print_json
from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.spec.values import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_mlops.primitives.datasets.manifest import Manifest
    from airflow_mlops.stores.datasets.versions import DatasetStore

#: Exit code, what ``--json`` prints, and what prints it in words.
_Answer: TypeAlias = "tuple[int, Any, Callable[[], None]]"

_ID = "id of a version, or the beginning of one, or the name of a reference such as latest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (_, add, words) in _ACTIONS.items():
        action = actions.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        add(action)
        place = action.add_argument_group("whose versions")
        place.add_argument("--file", type=Path, metavar="YAML", help="the application's YAML file")
        place.add_argument(
            "--store", metavar="URI", help="artifact store: a folder, or s3://[conn_id@]bucket/prefix"
        )
        place.add_argument("--application", metavar="NAME", help="name of the application")
        action.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do one thing with dataset versions; 1 when something is damaged, lost or not the same, 2 for wrong usage."""
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    try:
        with redirect_stdout(sys.stderr):
            datasets = _datasets(arguments)
    except UsageError as error:
        print(f"airflow-mlops dataset: {error}", file=sys.stderr)
        return 2
    answer = _ACTIONS[arguments.action][0]
    # Airflow logs to stdout, which belongs to the answer.
    with redirect_stdout(sys.stderr):
        code, value, tell = answer(datasets, arguments)
    if arguments.json:
        print_json(value)
    else:
        tell()
    return code


def _datasets(arguments: argparse.Namespace) -> DatasetStore:
    from airflow_mlops.hooks.store.open import open_store
    from airflow_mlops.stores.datasets.versions import DatasetStore

    store, application = arguments.store, arguments.application
    if arguments.file is not None:
        from airflow_mlops.spec import load_application

        if not arguments.file.is_file():
            raise UsageError(f"{arguments.file} does not exist. Cure: name the application's YAML file.")
        spec = load_application(arguments.file)
        store, application = store or spec.store, application or spec.application
    if not store or not application:
        raise UsageError("whose versions? Cure: say --file YAML, or --store URI and --application NAME.")
    return DatasetStore(open_store(store), application)


# Looking -----------------------------------------------------------------------------------------


def _list(datasets: DatasetStore, arguments: argparse.Namespace) -> _Answer:
    infos = datasets.versions()
    shown = infos if arguments.all else infos[: arguments.limit]
    rows = []
    for info in shown:
        manifest, newest = datasets.manifest(info.id), (info.commits[0] if info.commits else {})
        rows.append(
            {
                "id": info.id,
                "time": info.time,
                "rows": manifest.rows,
                "splits": manifest.splits,
                "window": list(manifest.window),
                "purpose": manifest.purpose,
                "refs": list(info.refs),
                "line": newest.get("line") or newest.get("ref"),
                "by": {key: newest.get(key) for key in ("dag_id", "task_id", "run_id") if newest.get(key)},
            }
        )
    value = {"application": datasets.application, "versions": rows, "of": len(infos)}
    return 0, value, lambda: text.print_versions(datasets.application, rows, len(infos))


def _show(datasets: DatasetStore, arguments: argparse.Namespace) -> _Answer:
    manifest = datasets.manifest(datasets.find(arguments.id))
    commits = datasets.commits(manifest.id)
    refs = [name for name, dataset_id in datasets.refs().items() if dataset_id == manifest.id]
    value = {"id": manifest.id, "refs": refs, "commits": commits, "manifest": json.loads(manifest.to_json())}
    return 0, value, lambda: text.print_manifest(manifest, refs, commits, whole=arguments.all)


def _diff(datasets: DatasetStore, arguments: argparse.Namespace) -> _Answer:
    from airflow_mlops.primitives.datasets.column_statistics import compare_distributions
    from airflow_mlops.primitives.datasets.comparison import compare_manifests, compare_rows
    from airflow_mlops.primitives.sources.session import connect

    old, new = (datasets.manifest(datasets.find(name)) for name in (arguments.old, arguments.new))
    found = {"old": old.id, "new": new.id, **compare_manifests(old, new)}
    if not arguments.brief and old.id != new.id:
        with scratch_folder() as folder:
            sides = [_side(datasets, manifest, Path(folder)) for manifest in (old, new)]
            with connect(Path(folder) / "spill", arguments.memory) as connection:
                found["rows"] = compare_rows(connection, *sides)
                found["distributions"] = compare_distributions(connection, *sides)
    return 0, found, lambda: differences.print_difference(old, new, found)


def _side(datasets: DatasetStore, manifest: Manifest, scratch: Path) -> Any:
    from airflow_mlops.hooks.store.base import in_parallel
    from airflow_mlops.primitives.datasets.comparison import Side

    digests = list(dict.fromkeys(chunk.digest for chunk in manifest.chunks))
    files = in_parallel(lambda digest: datasets.store.local(datasets.chunk_key(digest), scratch), digests)
    return Side(manifest, dict(zip(digests, files, strict=True)))


def _verify(datasets: DatasetStore, arguments: argparse.Namespace) -> _Answer:
    from airflow_mlops.stores.datasets.damage import find_damage

    names = [datasets.find(name) for name in arguments.id] or [info.id for info in datasets.versions()]
    found = {dataset_id: find_damage(datasets, dataset_id) for dataset_id in names}
    sizes = {dataset_id: _size(datasets, dataset_id) for dataset_id, damage in found.items() if not damage}
    value = {dataset_id: [one.to_dict() for one in damage] for dataset_id, damage in found.items()}
    return int(len(sizes) < len(found)), value, lambda: text.print_damage(found, sizes)


def _size(datasets: DatasetStore, dataset_id: str) -> tuple[int, int]:
    """Rows and chunks."""
    manifest = datasets.manifest(dataset_id)
    return manifest.rows, len(manifest.chunks)


# Having again ------------------------------------------------------------------------------------


def _fetch(datasets: DatasetStore, arguments: argparse.Namespace) -> _Answer:
    dataset_id = datasets.find(arguments.id)
    files = datasets.fetch(dataset_id, arguments.folder, arguments.split or None)
    manifest = datasets.manifest(dataset_id)
    text.write_origin(arguments.folder, manifest, datasets.manifest_address(dataset_id))
    listed = {split: [str(path) for path in paths] for split, paths in files.items()}
    rows = {split: manifest.splits[split] for split in files}
    value = {"dataset_id": dataset_id, "folder": str(arguments.folder), "files": listed, "rows": rows}
    return 0, value, lambda: text.print_fetched(datasets.application, value)


def _rebuild(datasets: DatasetStore, arguments: argparse.Namespace) -> _Answer:
    from airflow_mlops.stores.datasets.rebuild import Where, reproduce

    dataset_id = datasets.find(arguments.id)
    where = Where.of(
        datasets.commits(dataset_id),
        arguments.folder or (),
        feast_conn_id=arguments.feast_conn,
        aws_conn_id=arguments.aws_conn,
    )
    outcome = reproduce(datasets, dataset_id, where, into=arguments.into, memory=arguments.memory)
    return int(not outcome.identical), outcome.to_dict(), lambda: text.print_reproduction(outcome)


# Letting go --------------------------------------------------------------------------------------


def _prune(datasets: DatasetStore, arguments: argparse.Namespace) -> _Answer:
    from airflow_mlops.primitives.datasets.retention import Keep, RetentionRule
    from airflow_mlops.stores.datasets.retention import Pruning, open_windows

    rule = RetentionRule(
        production=Keep(arguments.keep_last, arguments.keep_for),
        experiment=Keep(arguments.keep_experiments_last, arguments.keep_experiments_for),
    )
    uses: dict[str, list[str]] = {}
    for found in (open_windows(datasets), _used_by_models(arguments)):
        for dataset_id, users in found.items():
            uses.setdefault(dataset_id, []).extend(users)
    pruned = Pruning(datasets).prune(rule, uses, dry_run=not arguments.yes)
    return 0, pruned.to_dict(), lambda: text.print_pruned(pruned)


def _used_by_models(arguments: argparse.Namespace) -> Mapping[str, Sequence[str]]:
    if arguments.no_mlflow:
        return {}
    from airflow.sdk.exceptions import AirflowNotFoundException

    from airflow_mlops.hooks.mlflow.hook import MLflowHook

    try:
        # Of all applications: a model may have been registered by a hand-written DAG.
        return MLflowHook(arguments.mlflow_conn).datasets_in_use()
    except (MLOpsError, AirflowNotFoundException) as error:
        raise MLOpsError(
            f"nothing was removed, because nobody knows which versions registered models and open runs use: {error}. "
            "Name the connection by --mlflow-conn, or say --no-mlflow if there is no such server"
        ) from error


def _one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help=_ID)


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=20, help="how many, the newest first (default: 20)")
    parser.add_argument("--all", action="store_true", help="all of them")


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    _one(parser)
    parser.add_argument("--all", action="store_true", help="every chunk and every source file")


def _diff_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help=_ID)
    parser.add_argument("new", metavar="NEW", help="likewise")
    parser.add_argument(
        "--brief", action="store_true", help="compare what the versions say, and read no rows"
    )
    _memory(parser)


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", nargs="*", help=f"{_ID}; all versions by default")


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    _one(parser)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to; made if need be")
    parser.add_argument("--split", action="append", help="only this split; may be said more than once")


def _rebuild_arguments(parser: argparse.ArgumentParser) -> None:
    _one(parser)
    parser.add_argument(
        "--folder",
        action="append",
        help="where sources were copied back to, a folder or an s3:// address; may be said more than once",
    )
    parser.add_argument("--into", type=Path, help="write the files that come out into this folder")
    parser.add_argument("--feast-conn", metavar="ID", help="Airflow connection of the feature store")
    parser.add_argument("--aws-conn", metavar="ID", help="Airflow connection of s3:// addresses")
    _memory(parser)


def _prune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="remove; otherwise only say what would be removed")
    parser.add_argument("--keep-last", type=int, default=10, help="newest versions that stay (default: 10)")
    parser.add_argument("--keep-for", type=_span, default="90d", help="younger ones stay (default: 90d)")
    parser.add_argument(
        "--keep-experiments-last", type=int, default=3, help="the same for experiments (default: 3)"
    )
    parser.add_argument("--keep-experiments-for", type=_span, default="14d", help="likewise (default: 14d)")
    parser.add_argument(
        "--mlflow-conn", metavar="ID", default="mlflow_default", help="connection of the MLflow server"
    )
    parser.add_argument(
        "--no-mlflow", action="store_true", help="there is no MLflow server whose models matter"
    )


def _memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memory", default="2GB", help="what may be held in memory (default: 2GB)")


def _span(value: str) -> timedelta:
    try:
        return duration(value)
    except Exception as error:
        raise argparse.ArgumentTypeError(f"{value!r} is no duration such as 90d or 12h") from error


_ACTIONS: dict[str, tuple[Callable[..., _Answer], Callable[[argparse.ArgumentParser], None], str]] = {
    "list": (_list, _list_arguments, "list the versions, newest first"),
    "show": (_show, _show_arguments, "say what one version holds and where it came from"),
    "diff": (_diff, _diff_arguments, "say how two versions differ"),
    "fetch": (_fetch, _fetch_arguments, "copy one version into a folder"),
    "verify": (_verify, _verify_arguments, "read versions again, and say what is damaged"),
    "rebuild": (_rebuild, _rebuild_arguments, "make one version again from its sources, and compare"),
    "prune": (_prune, _prune_arguments, "remove versions that nothing holds any more"),
}
