"""
From Feast's feature views to what a point-in-time join needs to know of them.

This module imports Feast and is imported only by our offline store.
"""

# ruff: noqa: TID253 - imported by the store's module only, which Feast loads
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from feast.infra.offline_stores.file_source import FileSource

from airflow_mlops.exceptions import FeatureStoreError, SourceError
from airflow_mlops.primitives.datasets.point_in_time import FeatureColumn, JoinKey, ViewPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast import FeatureView

    from airflow_mlops.hooks.feast.asof.files import Footer, ViewFiles

__all__ = ["plan_views"]

_NO_ENTITY = "__dummy_id"
_SPARSE = (
    20  # rows of a view to one example, from which on looking for the keys first saves more than it costs
)


def plan_views(
    feature_views: Sequence[FeatureView],
    feature_refs: Sequence[str],
    files: ViewFiles,
    *,
    full_names: bool = False,
    between: tuple[datetime, datetime] | None = None,
    examples: int | None = None,
) -> tuple[ViewPlan, ...]:
    """Describe the requested views, their files found and checked for the columns that are needed.

    :param feature_refs: the features asked for, as ``view:feature``.
    :param full_names: whether features are named ``view__feature``.
    :param between: first and last time of the examples; files that cannot matter to them are left out.
    :param examples: how many there are.
    :raises FeatureStoreError: a view's source is not a Parquet file source.
    :raises SourceError: a file or a column is missing, or of a type that cannot be.
    """
    plans = (_plan(view, feature_refs, files, full_names, between) for view in feature_views)
    few = examples is not None
    return tuple(replace(plan, sparse=few and rows > _SPARSE * (examples or 0)) for plan, rows in plans)


def _plan(
    view: FeatureView,
    refs: Sequence[str],
    files: ViewFiles,
    full_names: bool,
    between: tuple[datetime, datetime] | None,
) -> tuple[ViewPlan, int]:
    """The plan, and how many rows its files have."""
    source, owner = _source(view), f"feature view {view.name!r}"
    plan = _described(view, refs, full_names)
    times = tuple(name for name in (plan.timestamp, plan.created) if name)
    try:
        paths = files.find(source.path, source.s3_endpoint_override)
        footers = dict(zip(paths, files.footers(paths, times if between else ()), strict=True))
    except SourceError as error:
        raise type(error)(f"{owner}: {error}") from error
    footers = _within_reach(plan, footers, between)
    missing = {name: [file for file in footers if name not in footers[file].types] for name in plan.columns}
    _check_columns(plan, footers, files, owner)
    types = {name: _kinds(name, footers) for name in plan.columns}
    _check_types(plan, footers, owner)
    plan = replace(
        plan,
        paths=tuple(footers),
        naive=frozenset(
            name
            for name in times
            if types[name] and all(pa.types.is_timestamp(kind) and kind.tz is None for kind in types[name])
        ),
        widen=any(len(kinds) > 1 or 0 < len(missing[name]) < len(footers) for name, kinds in types.items()),
        absent={
            name: files.columns(those[0])[name]
            for name, those in missing.items()
            if len(those) == len(footers)
        },
    )
    return plan, sum(footer.rows for footer in footers.values())


def _source(view: FeatureView) -> FileSource:
    source: Any = view.batch_source
    if isinstance(source, FileSource):
        scheme = source.path.partition("://")[0] if "://" in source.path else ""
        if scheme in ("", "file", "s3") and type(source.file_format).__name__ in (
            "ParquetFormat",
            "NoneType",
        ):
            return source
    kind = type(source).__name__ if not isinstance(source, FileSource) else source.path
    raise FeatureStoreError(
        f"feature view {view.name!r} reads from {kind}; this offline store reads Parquet in folders and on S3 "
        "(FileSource). Use the offline store of that source in feature_store.yaml"
    )


def _described(view: FeatureView, refs: Sequence[str], full_names: bool) -> ViewPlan:
    """The view as Feast has it, without its files."""
    source: Any = view.batch_source
    columns = {feast: column for column, feast in source.field_mapping.items()}
    created = source.created_timestamp_column
    used = view.projection.name_to_use()  # type: ignore[no-untyped-call]
    label = view.projection.name_alias or view.name
    asked = [ref.split(":", 1)[1] for ref in refs if ref.split(":", 1)[0] == used]
    renamed = view.projection.join_key_map
    return ViewPlan(
        name=label,
        paths=(),
        keys=tuple(
            JoinKey(columns.get(key.name, key.name), renamed.get(key.name, key.name))
            for key in view.entity_columns
            if key.name != _NO_ENTITY
        ),
        timestamp=columns.get(source.timestamp_field, source.timestamp_field),
        created=columns.get(created, created) or None,
        ttl=view.ttl or ViewPlan.ttl,
        features=tuple(
            FeatureColumn(columns.get(name, name), f"{used}__{name}" if full_names else name)
            for name in dict.fromkeys(asked)
        ),
    )


def _within_reach(
    plan: ViewPlan, footers: dict[str, Footer], between: tuple[datetime, datetime] | None
) -> dict[str, Footer]:
    """Without the files all of whose rows are too old or too new; one of them at least."""
    if between is None:
        return footers
    first, last = (time if time.tzinfo else time.replace(tzinfo=UTC) for time in between)
    limited = plan.ttl and first - datetime.min.replace(tzinfo=UTC) > plan.ttl
    kept = {}
    for file, footer in footers.items():
        bounds = footer.bounds.get(plan.timestamp)
        if bounds and (bounds[0] > last or (limited and bounds[1] < first - plan.ttl)):
            continue
        kept[file] = footer
    newest = list(footers)[-1:]
    return kept or {file: footers[file] for file in newest}


def _check_columns(plan: ViewPlan, footers: dict[str, Footer], files: ViewFiles, owner: str) -> None:
    for file, footer in footers.items():
        there = {*footer.types, *files.columns(file)}
        if missing := [name for name in plan.columns if name not in there]:
            raise SourceError(
                f"{owner}: {file} lacks the column(s) {', '.join(missing)}; it has {', '.join(footer.types)}. Was a "
                "column renamed upstream? Write the file again with it, or give its new name in the view"
            )


def _check_types(plan: ViewPlan, footers: dict[str, Footer], owner: str) -> None:
    keys = {key.column for key in plan.keys}
    for name in plan.columns:
        seen: dict[str, tuple[str, pa.DataType]] = {}
        for file, footer in footers.items():
            if (kind := footer.types.get(name)) is None:
                continue  # the column came later
            if name in (plan.timestamp, plan.created) and not _is_time(kind):
                raise SourceError(
                    f"{owner}: {name} is {kind} in {file}, expected a timestamp; write it as one"
                )
            if not pa.types.is_null(kind):
                seen.setdefault(_family(kind, exact=name in keys), (file, kind))
        if len(seen) > 1:
            (one, a), (other, b), *_ = seen.values()
            raise SourceError(
                f"{owner}: {name} is {a} in {one} and {b} in {other}; all files of a view must agree. Write the odd "
                "one again"
            )


def _kinds(name: str, footers: dict[str, Footer]) -> set[pa.DataType]:
    kinds = {footer.types[name] for footer in footers.values() if name in footer.types}
    return {pa.string() if _is_text(kind) else kind for kind in kinds}


def _family(kind: pa.DataType, *, exact: bool) -> str:
    """Types that can be read as the widest of them; integers and floats only where nothing is matched by them."""
    if _is_text(kind):
        return "text"
    if _is_time(kind):
        return "time"
    if pa.types.is_integer(kind):
        return "integer" if exact else "number"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "fraction" if exact else "number"
    return str(kind)


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
