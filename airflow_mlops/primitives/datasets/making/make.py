"""From a request to the files and the manifest of a dataset version."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import FeatureStoreError, SourceUnavailableError
from airflow_mlops.primitives.datasets.examples import ROW, Examples
from airflow_mlops.primitives.datasets.making.chunks import Rows, check_join
from airflow_mlops.primitives.datasets.making.finish import Division, Facts, JoinedRows, finish
from airflow_mlops.primitives.datasets.making.join_cache import (
    StoredJoins,
    join_key,
    stored_rows,
    with_features,
)
from airflow_mlops.primitives.datasets.making.request import (
    DatasetRequest,
    FeatureJoin,
    JoinPlan,
    TrainingSet,
)
from airflow_mlops.primitives.datasets.manifest import Manifest
from airflow_mlops.primitives.sources.base import check_names, pin_files
from airflow_mlops.primitives.sources.session import connect, disk_errors
from airflow_mlops.primitives.sql.words import identifier, literal, parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.assumptions import Finding
    from airflow_mlops.primitives.datasets.examples import Window
    from airflow_mlops.primitives.datasets.manifest import Role
    from airflow_mlops.primitives.sources.base import Sources

__all__ = [
    "BuiltDataset",
    "DatasetRequest",
    "FeatureJoin",
    "JoinPlan",
    "TrainingSet",
    "make_dataset",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuiltDataset:
    """A dataset version that is not published yet.

    :param manifest: the version.
    :param files: the file of each chunk that is not stored yet, by digest.
    :param findings: what came of each assumption.
    :param rows: number of joined rows, those that the split left out included.
    :param join: name of the joined rows, if they can be kept for the next version.
    """

    manifest: Manifest
    files: Mapping[str, Path]
    findings: tuple[Finding, ...]
    rows: int
    join: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the version holds all joined rows."""
        return self.rows == self.manifest.rows

    @property
    def volatile(self) -> list[dict[str, Any]]:
        """Findings that depend on more than the rows, as JSON values: they are no part of the version."""
        return [finding.to_json() for finding in self.findings if finding.volatile]


def make_dataset(
    request: DatasetRequest,
    store: FeatureJoin,
    scratch: Path,
    is_stored: Callable[[str], bool],
    *,
    memory: str = "2GB",
    sources: Sources | None = None,
    facts: Facts | None = None,
    joins: StoredJoins | None = None,
) -> BuiltDataset:
    """Join, divide, check and cut the examples of a request.

    :param store: the feature store; it is asked only when the request names features.
    :param scratch: an empty folder for files that may be deleted afterwards.
    :param is_stored: whether the chunk with this digest need not be written.
    :param memory: what DuckDB may hold in memory before it uses the disk.
    :param sources: what finds and opens files; only local ones by default.
    :param facts: what is known beside the request: clock, earlier versions, a frozen test.
    :param joins: where joined rows of earlier versions are found; they are joined anew without it.
    :raises EmptyDatasetError: no example in the window.
    :raises SourceError: a file or a column is missing.
    :raises FeatureStoreError: the features cannot be joined.
    :raises AssumptionError: an assumption does not hold; it carries all findings.
    :raises DataError: a split would be empty, or there is no room for what is made.
    """
    facts = facts or Facts()
    with (
        connect(scratch / "spill-examples", memory) as asking,
        connect(scratch / "spill", memory) as connection,
        disk_errors("the joined examples"),
    ):
        # The user's query has a session of its own, which reads its files and nothing else.
        examples = Examples.open(asking, request.examples, sources)
        examples.reader.register(connection)  # an assumption may name a file
        if request.examples.folder is not None:
            connection.execute(f"SET file_search_path={literal(str(request.examples.folder))}")
        now = None if facts.now is None else _microseconds(facts.now)
        window = examples.window(asking, request.purpose, request.window, request.start, request.end, now)
        pins = examples.pins()
        plan = _plan(request, store, window) if joins else None
        key = join_key(connection, request, examples, window, pins, plan)
        found = joins.find(key, scratch) if joins and key else None
        rows = stored_rows(connection, examples, request, plan, found) if found else None
        if rows is None:
            rows = _join(asking, request, examples, window, store, scratch)
            key = key if plan and _as_planned(plan, rows, request, store, window) else None
        pins += [dict(pin) for pin in rows.pins]
        manifest = Manifest(
            application=request.application,
            purpose=request.purpose,
            columns=(),
            chunks=(),
            window=window.to_json(),
            as_of=window.as_of_json(),
            features=_features(request, rows),
            examples=request.examples.to_json(),
            sources=tuple(pins),
        )
        name = "predict" if request.purpose == "prediction" else "train"
        division = Division(request.application, request.division, request.assumptions, name)
        done = finish(connection, manifest, rows, division, scratch, is_stored, facts)
    return BuiltDataset(done.manifest, done.files, done.findings, rows.count, key)


def _plan(request: DatasetRequest, store: FeatureJoin, window: Window) -> JoinPlan | None:
    """What the join would do; of a store that cannot say so, nothing is taken."""
    if request.features is None:
        return JoinPlan(references={}, views=(), semantics="")
    ask = getattr(store, "plan_join", None)
    between = tuple(datetime.fromisoformat(text) for text in window.to_json())
    plan: JoinPlan | None = ask(request.features, between) if ask else None
    return plan


def _as_planned(
    plan: JoinPlan, rows: JoinedRows, request: DatasetRequest, store: FeatureJoin, window: Window
) -> bool:
    """Whether a join read what its plan names, so that the rows may be kept under that name.

    :raises SourceUnavailableError: a file of the features was rewritten meanwhile: nobody knows what was read of it.
    """
    planned, read = (
        {(pin.get("of"), pin.get("file")): dict(pin) for pin in pins} for pins in (plan.pins, rows.pins)
    )
    if changed := [pin for name, pin in read.items() if planned.get(name, pin) != pin]:
        raise SourceUnavailableError(
            f"{changed[0]['of']}: {changed[0]['file']} changed while features were joined: write files under "
            "another name and rename them when they are whole; try again when the writer is done"
        )
    same = (rows.references, list(rows.views), rows.semantics) == (
        plan.references,
        list(plan.views),
        plan.semantics,
    )
    # The join may leave out files that the plan could not know to be out of reach.
    return (same and read == planned) or _plan(request, store, window) == plan


def _join(
    connection: DuckDBPyConnection,
    request: DatasetRequest,
    examples: Examples,
    window: Window,
    store: FeatureJoin,
    scratch: Path,
) -> JoinedRows:
    """The examples of the window with their features, made anew."""
    file = scratch / "examples.parquet"
    count = examples.write(connection, request.purpose, window, file, request.split_column)
    examples.reader.check_unchanged()  # the pins were taken before
    log.info("%d examples after %s up to %s", count, *window.to_json())
    roles = examples.roles(request.purpose, request.split_column)
    relation = parquet((str(file),))
    if request.features is None:
        return JoinedRows(Rows(relation), roles, count)
    joined = _features_of(request, examples, roles, store, file, scratch / "features.parquet")
    features = parquet((str(joined.path),))
    check_join(connection, features, count)
    pins = joined.pins or [{"of": "features", **pin} for pin in pin_files(joined.files)]
    return JoinedRows(
        Rows(relation, features),
        with_features(roles, joined.references),
        count,
        references=joined.references,
        views=joined.views,
        semantics=joined.semantics,
        pins=tuple(pins),
        options=joined.options,
    )


def _features_of(
    request: DatasetRequest,
    examples: Examples,
    roles: Mapping[str, Role],
    store: FeatureJoin,
    rows: Path,
    destination: Path,
) -> TrainingSet:
    service, query = request.features or "", request.examples
    columns = store.entity_columns(service)
    there = [name for name, role in roles.items() if role in ("key", "input", "split")]
    if missing := [name for name in columns if name not in there]:
        raise FeatureStoreError(
            f"feature service {service!r} is joined by {', '.join(missing)}, which the examples do not give; "
            f"they give {', '.join(there)}. Add it to {query.name}"
        )
    names = [ROW, *(identifier(name) for name in columns)]
    time = f"{identifier(query.timestamp)} AS event_timestamp"
    joined = store.training_set(
        service, f"SELECT {', '.join(names)}, {time} FROM {parquet((str(rows),))}", destination
    )
    taken = {name.lower() for name in examples.columns}
    if twice := [name for name in joined.references if name.lower() in taken]:
        raise FeatureStoreError(
            f"feature(s) {', '.join(twice)} of service {service!r} have the name of a column of the examples; "
            f"rename it in {query.name}"
        )
    check_names(joined.references, f"feature service {service!r}")
    log.info("Joined %d features of %s", len(joined.references), service)
    return joined


def _features(request: DatasetRequest, rows: JoinedRows) -> dict[str, Any] | None:
    if request.features is None:
        return None
    told = {"service": request.features, "semantics": rows.semantics, "views": list(rows.views)}
    return {**told, "options": dict(rows.options)} if rows.options else told


def _microseconds(moment: datetime) -> int:
    from datetime import timedelta

    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
