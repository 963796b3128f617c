"""``airflow-mlops check``: hold a YAML against the data, the feature store, the connections and the store."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.cli.report import (
    UsageError,
    from_here,
    print_json,
    problems_of,
    seen_from_here,
    yaml_files,
)
from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.spec import ApplicationSpec, LoadedFile, Problem
from airflow_mlops.spec.reading.problems import dotted

if TYPE_CHECKING:
    from airflow_mlops.hooks.store.base import Store

    Key = tuple[str | int, ...]
    Finding = tuple[Key, str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("path", metavar="FILE", type=Path, help="YAML file, or folder of them")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Check all files; 0 when all is there, 1 when there is a problem, 2 when there is no file."""
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    try:
        loaded, errors = yaml_files([arguments.path])
    except UsageError as error:
        print(f"airflow-mlops check: {error}", file=sys.stderr)
        return 2
    with redirect_stdout(sys.stderr):  # what libraries say is no part of the answer
        found = {one.path: seen_from_here(problems_with(one)) for one in loaded}
    problems = [*problems_of(errors), *(problem for group in found.values() for problem in group)]
    if arguments.json:
        print_json({"ok": not problems, "problems": [problem.to_dict() for problem in problems]})
    else:
        for one in loaded:
            if not found[one.path]:
                print(f"OK  {from_here(one.path)}: {one.name}")
        for problem in problems:
            print(problem)
    return 1 if problems else 0


def problems_with(file: LoadedFile) -> list[Problem]:
    """What a file names and is not there, or cannot be used; nothing is changed."""
    found: list[Finding] = [*_store(file)]
    if isinstance(file.spec, ApplicationSpec):
        columns: list[str] = []
        found += [*_examples(file.spec, columns), *_features(file.spec, columns), *_connections(file.spec)]
        found += _parameters(file.spec)
    return [Problem(file.place(*key), dotted(key), what, cure=cure) for key, what, cure in found]


def _said(key: Key, error: MLOpsError) -> Finding:
    what, _, cure = str(error).partition(" Cure: ")
    return key, f"cannot be used: {what}", cure


def _store(file: LoadedFile) -> Iterator[Finding]:
    from airflow_mlops.hooks.store.open import open_store
    from airflow_mlops.stores.datasets.versions import DatasetStore

    try:
        datasets = DatasetStore(open_store(file.spec.store), file.name)
        with _folders_as_before(datasets.store, file.name):
            datasets.check_writable()
    except MLOpsError as error:
        yield _said(("store",), error)


@contextmanager
def _folders_as_before(store: Store, application: str) -> Iterator[None]:
    """Remove the folders that were not there before a store was tried."""
    from airflow_mlops.hooks.store.files import FileStore

    if not isinstance(store, FileStore):
        yield
        return
    root = store.root
    used = [root / application / "datasets", root / application, root / ".staging", root, *root.parents]
    made = [folder for folder in used if not folder.exists()]
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):  # it was not made, or holds something of another writer by now
                folder.rmdir()


def _examples(spec: ApplicationSpec, columns: list[str]) -> Iterator[Finding]:
    """The query and its columns, which are handed over in ``columns``."""
    from airflow_mlops.hooks.scratch import scratch_folder
    from airflow_mlops.hooks.sources.examples import AirflowSources
    from airflow_mlops.primitives.datasets.examples import Examples
    from airflow_mlops.primitives.datasets.query import ExamplesQuery
    from airflow_mlops.primitives.sources.session import connect

    examples = spec.provisioning.examples
    try:
        query = ExamplesQuery.from_mapping(examples.model_dump(mode="json", exclude_none=True))
        sources = AirflowSources(examples.connection or "aws_default")
        with scratch_folder() as folder, connect(Path(folder) / "spill", "1GB") as connection:
            columns += Examples.open(connection, query, sources).columns
    except MLOpsError as error:
        yield _said(("provisioning", "examples", "sql" if examples.sql else "parquet"), error)


def _features(spec: ApplicationSpec, columns: list[str]) -> Iterator[Finding]:
    """The feature service and its join keys, and the columns that splits, assumptions and slices name."""
    service, key = spec.provisioning.features, ("provisioning", "features")
    known, of = list(columns), "the examples"
    if service is not None:
        from airflow_mlops.hooks.feast.hook import FeastHook

        hook = FeastHook(spec.provisioning.feature_store)
        try:
            wanted, features = hook.entity_columns(service), hook.feature_columns(service)
        except MLOpsError as error:
            yield _said(key, error)
            return
        known, of = [*known, *features], "the examples or of the feature service"
        if columns and (missing := [name for name in wanted if name not in columns]):
            cure = f"add it to the examples, which give {', '.join(columns)}"
            yield key, f"is joined by {', '.join(missing)}, which the examples do not give", cure
    if columns:
        yield from _unknown(_split(spec), columns, "the examples")
        yield from _unknown([*_assumptions(spec), *_slices(spec)], known, of)


def _unknown(named: Iterable[tuple[Key, list[str]]], known: list[str], of: str) -> Iterator[Finding]:
    there = {name.lower() for name in known}  # as DuckDB tells names apart
    for key, names in named:
        if missing := [name for name in names if name.lower() not in there]:
            cure = f"name a column of {of}: {', '.join(known)}"
            yield key, f"names {', '.join(missing)}, which is no column", cure


def _split(spec: ApplicationSpec) -> Iterator[tuple[Key, list[str]]]:
    split, place = spec.provisioning.split, ("provisioning", "split")
    yield (*place, "key"), list(split.key or ())
    yield (*place, "column"), [split.column] if split.column else []
    yield (*place, "stratify"), [split.stratify] if split.stratify else []


def _assumptions(spec: ApplicationSpec) -> Iterator[tuple[Key, list[str]]]:
    """Columns of each rule, and of its condition; a rule about the split has another one."""
    from airflow_mlops.factories.application import assumptions_of
    from airflow_mlops.primitives.assumptions import parse_assumptions

    for number, rule in enumerate(assumptions_of(spec)):
        checks = parse_assumptions([rule])
        names = [name for check in checks for name in (*check.columns, *check.where_columns)]
        yield ("provisioning", "assumptions", number), list(dict.fromkeys(names))


def _slices(spec: ApplicationSpec) -> Iterator[tuple[Key, list[str]]]:
    for number, rule in enumerate(spec.evaluation.require):
        named = {
            "per_slice": list(rule.per_slice or ()),
            "column": [rule.column] if rule.column else [],
            "slice": [rule.slice.partition("=")[0]] if rule.slice else [],
        }
        for word, names in named.items():
            yield ("evaluation", "require", number, word), names


def _parameters(spec: ApplicationSpec) -> Iterator[Finding]:
    """The parameters against what the image says of itself, where the image is on this machine."""
    from airflow_mlops.contract.tools.image import describe_image
    from airflow_mlops.exceptions import ParameterError
    from airflow_mlops.factories.training import commands_of
    from airflow_mlops.primitives.training.description import judge_description

    image = None if spec.training.run_on == "process" else spec.code.image
    if image is None or (said := describe_image(image)) is None:
        return
    try:
        judge_description(said, image, commands_of(spec), spec.training.parameters)
    except ParameterError as error:
        yield _said(("training", "parameters"), error)
    except MLOpsError as error:
        yield _said(("code", "image"), error)


def _connections(spec: ApplicationSpec) -> Iterator[Finding]:
    from airflow_mlops.hooks.connections.find import find_connection

    wanted: list[tuple[Key, str]] = [(("tracking", "connection"), spec.tracking.connection)]
    wanted += [(("training", "secrets", name), conn_id) for name, conn_id in spec.training.secrets.items()]
    for key, conn_id in wanted:
        try:
            find_connection(conn_id, MLOpsError)
        except MLOpsError as error:
            yield _said(key, error)
