"""From a request to the files and the manifest of a dataset version."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from airflow_mlops.exceptions import AssumptionError, FeatureStoreError, SpecError
from airflow_mlops.primitives.provisioning.assumptions import (
    Assumption,
    Finding,
    check_table,
    parse_assumptions,
    summary,
)
from airflow_mlops.primitives.provisioning.chunks import merge_features, read_types, write_chunks
from airflow_mlops.primitives.provisioning.examples import ROW, Examples, ExamplesQuery, Window, connect
from airflow_mlops.primitives.provisioning.sources import pin_files
from airflow_mlops.primitives.provisioning.split import (
    TimeSplit,
    cut_by_month,
    parse_split,
    parse_time,
    split_by_time,
    whole,
)
from airflow_mlops.primitives.provisioning.version import Column, Manifest, Purpose, Role
from airflow_mlops.primitives.sql import identifier, parquet
from airflow_mlops.spec.values import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["DatasetRequest", "FeatureJoin", "TrainingSet", "build_dataset"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSet:
    """Examples with their features in a Parquet file, and how they came about.

    :param path: the file; the order of its rows means nothing.
    :param rows: number of its rows.
    :param references: ``view:feature`` of each feature, by the name of its column, in order of the service.
    :param views: what was joined, as JSON values.
    :param semantics: name of the rules of the join.
    :param files: local files that the features came from.
    """

    path: Path
    rows: int
    references: dict[str, str]
    views: tuple[dict[str, Any], ...]
    semantics: str
    files: tuple[str, ...] = field(default=(), repr=False)


class FeatureJoin(Protocol):
    """What a feature store must be able to do: :class:`~airflow_mlops.hooks.feast.FeastHook` can."""

    def entity_columns(self, feature_service: str) -> tuple[str, ...]:
        """Columns that examples must bring along."""
        ...

    def training_set(self, feature_service: str, entity_sql: str, destination: Path) -> TrainingSet:
        """Join the features as they were known at each example's ``event_timestamp``."""
        ...


@dataclass(frozen=True)
class DatasetRequest:
    """Which dataset is wanted.

    :param application: whose it is.
    :param purpose: ``training`` or ``prediction``.
    :param examples: where examples come from.
    :param features: feature service, if any.
    :param window: length of the window, if it is limited.
    :param start: examples lie after it; microseconds since 1970 UTC.
    :param end: up to it, likewise.
    :param shares: share of each split; none for one split of all.
    :param gap: time left out between splits.
    :param assumptions: what the rows must keep.
    """

    application: str
    purpose: Purpose
    examples: ExamplesQuery
    features: str | None = None
    window: timedelta | None = None
    start: int | None = None
    end: int | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    gap: timedelta = timedelta(0)
    assumptions: tuple[Assumption, ...] = ()

    @classmethod
    def parse(
        cls,
        *,
        application: str,
        purpose: Purpose,
        examples: Mapping[str, Any],
        features: str | None,
        window: str | None,
        window_start: str | None,
        window_end: str | None,
        split: Mapping[str, Any] | None,
        assumptions: Sequence[Mapping[str, Any]] | None,
    ) -> DatasetRequest:
        """Read a request from the JSON values of a YAML file and of templates.

        :raises SpecError: something cannot be meant.
        :raises DataError: an end of the window is no time.
        """
        if purpose not in ("training", "prediction"):
            raise SpecError(f"purpose {purpose!r} is unknown, expected training or prediction")
        shares, gap = parse_split(split)
        # A template of nothing renders as the text None.
        start, end = (
            parse_time(text) if text and text != "None" else None for text in (window_start, window_end)
        )
        try:
            length = duration(window) if window else None
        except ValueError as error:
            raise SpecError(f"window {window!r} {error}; expected such as 90d, 24h or 30m") from error
        return cls(
            application=application,
            purpose=purpose,
            examples=ExamplesQuery.from_mapping(examples),
            features=features or None,
            window=length,
            start=start,
            end=end,
            shares=shares,
            gap=gap,
            assumptions=parse_assumptions(assumptions or ()),
        )

    def split(self, times: Sequence[int], counts: Sequence[int]) -> TimeSplit:
        """The splits of examples with these distinct times."""
        if self.purpose == "prediction":
            return whole("predict", sum(counts))
        if not self.shares:
            return whole("train", sum(counts))
        return split_by_time(times, counts, self.shares, self.gap)


def build_dataset(
    request: DatasetRequest,
    store: FeatureJoin,
    scratch: Path,
    is_stored: Callable[[str], bool],
    memory: str = "2GB",
) -> tuple[Manifest, Mapping[str, Path]]:
    """Join, check and cut the examples of a request.

    :param store: the feature store; it is asked only when the request names features.
    :param scratch: an empty folder for files that may be deleted afterwards.
    :param is_stored: whether the chunk with this digest need not be written.
    :param memory: what DuckDB may hold in memory before it uses the disk.
    :return: the manifest, and the file of each chunk that is not stored yet, by digest.
    :raises EmptyDatasetError: no example in the window.
    :raises SourceError: a file or a column is missing.
    :raises FeatureStoreError: the features cannot be joined.
    :raises AssumptionError: an assumption does not hold; it carries all findings.
    """
    query, rows_file, dataset = request.examples, scratch / "examples.parquet", scratch / "dataset.parquet"
    with connect(scratch / "spill", memory) as connection:
        examples = Examples.open(connection, query)
        window = examples.window(connection, request.purpose, request.window, request.start, request.end)
        times, counts = examples.write(connection, request.purpose, window, rows_file)
        log.info("%d examples after %s up to %s", sum(counts), *window.to_json())
        joined = _join(request, examples, store, rows_file, scratch / "features.parquet")
        roles = _with_features(examples.roles(request.purpose), joined)
        features = joined.path if joined else None
        merge_features(connection, rows_file, features, roles, sum(counts), dataset)
        types = read_types(dataset)
        shown = [*query.keys, query.timestamp]
        findings = check_table(connection, request.assumptions, dataset, types, order=ROW, shown=shown)
    _judge(request, findings, window, sum(counts))
    split = request.split(times, counts)
    pieces = cut_by_month(times, counts, split)
    chunks, files = write_chunks(dataset, pieces, query.timestamp, scratch, is_stored)
    references = joined.references if joined else {}
    manifest = Manifest(
        application=request.application,
        purpose=request.purpose,
        columns=tuple(Column(name, types[name], role, references.get(name)) for name, role in roles.items()),
        chunks=chunks,
        window=window.to_json(),
        as_of=window.as_of_json(),
        split=split.to_json(),
        features=_features(request, joined),
        examples=query.to_json(),
        sources=_sources(examples, joined),
        assumptions=tuple(finding.to_json(examples=False) for finding in findings),
    )
    return manifest, files


def _join(
    request: DatasetRequest, examples: Examples, store: FeatureJoin, rows: Path, destination: Path
) -> TrainingSet | None:
    service, query = request.features, request.examples
    if service is None:
        return None
    columns = store.entity_columns(service)
    there = [name for name, role in examples.roles(request.purpose).items() if role in ("key", "input")]
    if missing := [name for name in columns if name not in there]:
        raise FeatureStoreError(
            f"feature service {service!r} is joined by {', '.join(missing)}, which the examples do not give; "
            f"they give {', '.join(there)}. Add it to {query.name}"
        )
    names = [ROW, *(identifier(name) for name in columns)]
    time = f"{identifier(query.timestamp)} AS event_timestamp"
    joined = store.training_set(
        service,
        f"SELECT {', '.join(names)}, {time} FROM {parquet((str(rows),))}",
        destination,
    )
    taken = {name.lower() for name in examples.columns}
    if twice := [name for name in joined.references if name.lower() in taken]:
        raise FeatureStoreError(
            f"feature(s) {', '.join(twice)} of service {service!r} have the name of a column of the examples; "
            f"rename it in {query.name}"
        )
    log.info("Joined %d features of %s", len(joined.references), service)
    return joined


def _judge(request: DatasetRequest, findings: list[Finding], window: Window, rows: int) -> None:
    """Warn of what may be, and stop at what may not."""
    failed = [found for found in findings if not found.passed and found.assumption.severity == "fail"]
    warned = [found for found in findings if not found.passed and found.assumption.severity == "warn"]
    if warned:
        log.warning("%d assumption(s) do not hold:\n%s", len(warned), summary(warned))
    if failed:
        after, until = window.to_json()
        raise AssumptionError(
            f"{len(failed)} of {len(findings)} assumption(s) about the data of {request.application!r} do not "
            f"hold ({rows} rows after {after} up to {until}):\n{summary(failed)}\nNothing was published.",
            [found.to_json() for found in findings],
        )


def _with_features(roles: Mapping[str, Role], joined: TrainingSet | None) -> dict[str, Role]:
    """Features stand behind the other inputs and before the targets."""
    answers: tuple[Role, ...] = ("target", "known_at")
    features: dict[str, Role] = dict.fromkeys(joined.references if joined else (), "feature")
    asked = {name: role for name, role in roles.items() if role not in answers}
    return {**asked, **features, **{name: role for name, role in roles.items() if role in answers}}


def _features(request: DatasetRequest, joined: TrainingSet | None) -> dict[str, Any] | None:
    if joined is None:
        return None
    return {"service": request.features, "semantics": joined.semantics, "views": list(joined.views)}


def _sources(examples: Examples, joined: TrainingSet | None) -> tuple[dict[str, Any], ...]:
    pins = [{"of": "examples", **pin} for pin in pin_files(examples.files)]
    pins += [{"of": "features", **pin} for pin in pin_files(joined.files if joined else ())]
    return tuple(pins)
