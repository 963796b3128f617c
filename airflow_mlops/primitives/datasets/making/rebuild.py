"""A dataset version made again from its manifest: nothing but its sources is needed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.primitives.datasets.making.finish import Division, Facts, finish
from airflow_mlops.primitives.datasets.making.join_cache import StoredRows, rows_of
from airflow_mlops.primitives.datasets.making.make import (
    DatasetRequest,
    TrainingSet,
    make_dataset,
)
from airflow_mlops.primitives.datasets.point_in_time import SEMANTICS, ViewPlan, compile_join
from airflow_mlops.primitives.datasets.query import ExamplesQuery
from airflow_mlops.primitives.datasets.splits.rule import SplitRule, parse_time
from airflow_mlops.primitives.sources.session import connect
from airflow_mlops.primitives.sql.words import literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from airflow_mlops.primitives.datasets.making.make import FeatureJoin
    from airflow_mlops.primitives.datasets.manifest import Manifest
    from airflow_mlops.primitives.sources.pinned import PinnedSources

__all__ = ["PinnedJoin", "divide_again", "rebuild", "request_of", "rule_of", "why_not_pinned"]

_DICTIONARY = re.compile(r"dictionary<values=([^,]+),.*")
_LIST = re.compile(r"list<\w+: (.+?)(?: not null)?>")
#: Types of published features, as a manifest names them and in DuckDB.
_SQL = {
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "binary": "BLOB",
    "date32[day]": "DATE",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}


@dataclass(frozen=True)
class PinnedJoin:
    """The features of a version, joined by the views that its manifest holds: Feast and its registry are not needed.

    :param manifest: the version.
    :param sources: its pinned files.
    :param scratch: folder for what does not fit into memory.
    :param memory: what DuckDB may hold in memory before it uses the disk.
    """

    manifest: Manifest
    sources: PinnedSources
    scratch: Path
    memory: str = "2GB"

    def entity_columns(self, feature_service: str) -> tuple[str, ...]:  # noqa: ARG002 - the version has one
        """Columns that the views are joined by."""
        views = (self.manifest.features or {})["views"]
        return tuple(dict.fromkeys(key for view in views for key in view["keys"]))

    def training_set(
        self,
        feature_service: str,  # noqa: ARG002
        entity_sql: str,
        destination: Path,
    ) -> TrainingSet:
        """Join the features as they were known at each example's ``event_timestamp``."""
        import duckdb

        views = tuple(self._plan(view) for view in (self.manifest.features or {})["views"])
        with connect(self.scratch / "spill-features", self.memory) as connection:
            self.sources.register(connection)
            connection.execute(f"CREATE TEMP TABLE _given AS {entity_sql}")
            described = connection.execute("DESCRIBE _given").fetchall()
            bounds = connection.execute(
                "SELECT min(event_timestamp)::VARCHAR, max(event_timestamp)::VARCHAR FROM _given"
            ).fetchone()
            first, last = (datetime.fromisoformat(text) for text in bounds or () if text)
            query = compile_join(
                "_given",
                [str(row[0]) for row in described],
                "event_timestamp",
                views,
                between=(first, last),
                filter_by_created=self._options.get("filter_by_created", True),
            )
            copy = f"COPY ({query}) TO {literal(str(destination))} (FORMAT parquet, COMPRESSION lz4_raw)"
            try:
                written = connection.execute(copy).fetchone()
            except duckdb.Error as error:
                names = ", ".join(view.name for view in views)
                raise FeatureStoreError(f"the point-in-time join of {names} failed: {error}") from error
        references = {
            c.name: c.reference for c in self.manifest.columns if c.role == "feature" and c.reference
        }
        return TrainingSet(
            path=destination,
            rows=int(written[0]) if written else 0,
            references=references,
            views=tuple(view.to_json() for view in views),
            semantics=SEMANTICS,
            pins=tuple(self.sources.pins_of_features()),
            options=self._options,
        )

    @property
    def _options(self) -> Mapping[str, Any]:
        options: Mapping[str, Any] = (self.manifest.features or {}).get("options", {})
        return options

    def _plan(self, view: Mapping[str, Any]) -> ViewPlan:
        plan = ViewPlan.from_json(view, ())
        paths = self.sources.of_view(plan.name, plan.columns)
        schemas = [self.sources.schema(path) for path in paths]
        kinds = [{_plain(schema.get(name, "")) for schema in schemas} for name in plan.columns]
        nowhere = [name for name, found in zip(plan.columns, kinds, strict=True) if found == {""}]
        return replace(
            plan,
            paths=paths,
            widen=any(len(found) > 1 for found in kinds),
            absent={name: self._kind(plan, name) for name in nowhere},
        )

    def _kind(self, plan: ViewPlan, column: str) -> str:
        """DuckDB type of a column that came later than all of the files, by the column that it became."""
        names = {feature.column: feature.name for feature in plan.features}
        names |= {key.column: key.entity for key in plan.keys}
        types = {told.name: told.type for told in self.manifest.columns}
        if (kind := _sql_type(types.get(names.get(column, ""), ""))) is None:
            raise FeatureStoreError(
                f"feature view {plan.name!r}: none of its {len(plan.paths)} file(s) has the column {column!r}; restore "
                "the files that the version was made from, and name their folder by --folder"
            )
        return kind


def why_not_pinned(manifest: Manifest) -> str | None:
    """Why the features of a version cannot be joined without the feature store; ``None`` when they can."""
    if manifest.features is None:
        return None
    semantics = manifest.features["semantics"]
    if semantics != SEMANTICS:
        return f"its features were joined by the rules {semantics!r}, and this release has {SEMANTICS!r}"
    joined = {name for view in manifest.features["views"] for name in view["features"]}
    if computed := [name for name in manifest.names("feature") if name not in joined]:
        return (
            f"the feature(s) {', '.join(computed)} are computed by on-demand views, whose code only Feast has"
        )
    return None


def request_of(manifest: Manifest, folder: Path | None, connection: str | None = None) -> DatasetRequest:
    """The request that gives a version again.

    :param folder: relative paths of its query are below it.
    :param connection: Airflow connection of ``s3://`` addresses.
    """
    start, end = (parse_time(text) for text in manifest.window)
    # An end that was asked for is also the moment of known targets. One that was found is found again.
    asked = manifest.as_of is None or parse_time(manifest.as_of) == end
    given = {**manifest.examples, "folder": None if folder is None else str(folder), "connection": connection}
    return DatasetRequest(
        application=manifest.application,
        purpose=manifest.purpose,
        examples=ExamplesQuery.from_mapping(given),
        features=(manifest.features or {}).get("service"),
        start=start,
        end=end if asked else None,
        rule=rule_of(manifest.split),
    )


def rule_of(split: Mapping[str, Any]) -> SplitRule | None:
    """The rule behind the split of a manifest; ``None`` for one split of all."""
    if split.get("by") is None:
        return None
    return SplitRule(
        by=split["by"],
        shares=split.get("shares") or {},
        gap=timedelta(seconds=split.get("gap_seconds") or 0),
        key=tuple(split.get("key") or ()),
        stratify=split.get("stratify"),
        folds=int(split.get("folds") or 0),
        column=split.get("column"),
        values=split.get("values") or {},
        freeze="the test of an earlier version" if split.get("frozen") else None,
        seed=int(split.get("seed") or 0),
    )


def rebuild(
    manifest: Manifest,
    request: DatasetRequest,
    join: FeatureJoin,
    sources: PinnedSources,
    scratch: Path,
    *,
    frozen: Sequence[Path] = (),
    is_stored: Callable[[str], bool] = lambda _digest: False,
    memory: str = "2GB",
) -> tuple[Manifest, Mapping[str, Path]]:
    """Make a version again.

    Assumptions are not evaluated again: what came of them follows from the rows, and so is taken over.

    :param request: by :func:`request_of`.
    :param frozen: the test examples that its split froze.
    :param is_stored: chunks for which no file is wanted.
    :return: the manifest that came out, and the files of its chunks by digest.
    :raises DataError: the sources give no such dataset any more.
    """
    facts = Facts(now=datetime.fromisoformat(manifest.window[1]), frozen=tuple(frozen))
    built = make_dataset(request, join, scratch, is_stored, memory=memory, sources=sources, facts=facts)
    return replace(built.manifest, assumptions=manifest.assumptions), built.files


def divide_again(
    manifest: Manifest,
    parent: Manifest,
    files: Mapping[str, Path],
    scratch: Path,
    *,
    frozen: Sequence[Path] = (),
    memory: str = "2GB",
) -> tuple[Manifest, Mapping[str, Path]]:
    """Make a version again that was divided from the rows of another one.

    :param parent: the other version, and ``files`` its chunks by digest.
    :return: as :func:`rebuild`.
    """
    rule = rule_of(manifest.split)
    division = Division(manifest.application, rule, (), next(iter(manifest.splits), "train"))
    paths = tuple(files[chunk.digest] for chunk in parent.chunks)
    with connect(scratch / "spill", memory) as connection:
        rows = rows_of(connection, StoredRows(parent, paths), rule)
        facts = Facts(now=datetime.fromisoformat(manifest.window[1]), frozen=tuple(frozen))
        done = finish(connection, parent, rows, division, scratch, lambda _digest: False, facts)
    return replace(done.manifest, assumptions=manifest.assumptions), done.files


def _sql_type(kind: str) -> str | None:
    """The DuckDB type of an Arrow type's name; ``None`` of an unknown one."""
    if found := _LIST.fullmatch(kind):
        inner = _sql_type(found[1])
        return inner and f"{inner}[]"
    return _SQL.get(_plain(kind))


def _plain(kind: str) -> str:
    """One name for all ways of storing text."""
    kind = _DICTIONARY.sub(r"\1", kind)
    return "string" if kind in ("large_string", "string_view") else kind
