"""The point-in-time join: a frozen description of feature views becomes one DuckDB query.

For an example of time ``t`` and one feature view, the row taken is the one with the greatest
timestamp within ``[t - ttl, t]``, both ends included, that has the example's join keys. A ttl of zero
is no limit. Of rows with one timestamp the later created wins, then the later file (in order of
name), then the later row. With ``filter_by_created`` a row counts only if it was created by ``t``,
so that a backfill never leaks into the past; a row of unknown creation time then never counts. A
null key matches nothing. A time without zone is UTC. Every example comes out exactly once; in the
order of a column that numbers them, if there is one, and otherwise in no particular order.

DuckDB's ASOF join knows one inequality, but that may compare structs: the row's
``{timestamp, created, position}`` against ``{t, infinity, maximum}`` breaks ties without a
deduplication. When created times filter, a row counts from the moment at which it has happened and
is known, ``greatest(timestamp, created)``. One that appears after a row of a later timestamp is
never the best: a running maximum leaves it out, and of the others the last to appear is the best.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.primitives.sql.words import identifier, literal, parquet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["SEMANTICS", "FeatureColumn", "JoinKey", "ViewPlan", "compile_join", "matched_columns"]

SEMANTICS = "asof-1"
"""Name of the rules above; it is part of every dataset version that was joined by them."""

_LAST = "9223372036854775807::BIGINT"


@dataclass(frozen=True)
class JoinKey:
    """A join key of a view.

    :param column: its column in the view's files.
    :param entity: its column among the examples.
    """

    column: str
    entity: str


@dataclass(frozen=True)
class FeatureColumn:
    """A feature of a view.

    :param column: its column in the view's files.
    :param name: its column in the result.
    """

    column: str
    name: str


@dataclass(frozen=True)
class ViewPlan:
    """A feature view, as far as a join needs to know it.

    :param name: its name, for messages.
    :param paths: Parquet files, in the order that breaks ties.
    :param keys: join keys; none for a view that has one value for everybody.
    :param timestamp: column of the time from which on a row is valid.
    :param created: column of the time at which a row was written, if there is one.
    :param ttl: how long a row is valid; zero for ever.
    :param features: the features asked for.
    :param naive: columns of times that have no zone in any file: DuckDB then skips by their statistics.
    :param widen: whether the files differ in types, such as integers in one and floats in another; every
        column is then read as the widest of them.
    :param sparse: whether there are so few examples that rows of other keys are best left out first.
    :param absent: DuckDB type of each column that came later than all of the files and is null in them. A
        column that only some of the files lack needs ``widen``.
    """

    name: str
    paths: tuple[str, ...]
    keys: tuple[JoinKey, ...]
    timestamp: str
    features: tuple[FeatureColumn, ...]
    created: str | None = None
    ttl: timedelta = timedelta(0)
    naive: frozenset[str] = frozenset()
    widen: bool = False
    sparse: bool = False
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        names = [key.column for key in self.keys] + [self.timestamp]
        names += [self.created] if self.created else []
        return tuple(dict.fromkeys(names + [feature.column for feature in self.features]))

    def to_json(self) -> dict[str, Any]:
        """What decides about values, without places, as JSON values."""
        return {
            "name": self.name,
            "keys": {key.entity: key.column for key in self.keys},
            "timestamp": self.timestamp,
            "created": self.created,
            "ttl_seconds": self.ttl.total_seconds(),
            "features": {feature.name: feature.column for feature in self.features},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], paths: Sequence[str]) -> ViewPlan:
        """Read a plan that :meth:`to_json` wrote.

        :param paths: the files to read, in the order that breaks ties.
        """
        return cls(
            name=value["name"],
            paths=tuple(paths),
            keys=tuple(JoinKey(column, entity) for entity, column in value["keys"].items()),
            timestamp=value["timestamp"],
            features=tuple(FeatureColumn(column, name) for name, column in value["features"].items()),
            created=value["created"],
            ttl=timedelta(seconds=value["ttl_seconds"]),
        )


def compile_join(
    entities: str,
    entity_columns: Sequence[str],
    timestamp: str,
    views: Sequence[ViewPlan],
    *,
    between: tuple[datetime, datetime] | None = None,
    filter_by_created: bool = True,
    row: str | None = None,
    matched: bool = False,
) -> str:
    """One query that adds the features of all views to the examples.

    The session's time zone must be UTC.

    :param entities: what stands behind FROM: a table name, a function, or a query in brackets.
    :param entity_columns: the columns of ``entities``, without ``row``.
    :param timestamp: the column of the example's time.
    :param views: the views, in the order of their columns in the result.
    :param between: first and last time of the examples, to read no more of the files than needed.
    :param filter_by_created: whether a row counts only from the time at which it was created.
    :param row: a column of ``entities`` that numbers them: the result is in its order, without it.
    :param matched: whether to add the times of the row that was taken from each view, see
        :func:`matched_columns`.
    :raises FeatureStoreError: a join key is no column of the examples, or two columns of the result
        have one name.
    """
    _check(entity_columns, timestamp, views, matched=matched)
    time = f"e.{identifier(timestamp)}"
    entity = (
        f"SELECT * REPLACE ({identifier(timestamp)}::TIMESTAMPTZ AS {identifier(timestamp)}) FROM {entities}"
    )
    tables, joins = [f"_e AS ({entity})"], []
    columns = [f"e.* EXCLUDE ({identifier(row)})" if row else "e.*"]
    for number, view in enumerate(views):
        table = f"_v{number}"
        filtered = filter_by_created and view.created is not None
        rows = _visible(view, between, matched) if filtered else _rows(view, between, matched)
        tables.append(f"{table} AS ({rows})")
        on = [f"e.{identifier(key.entity)} = {table}._k{n}" for n, key in enumerate(view.keys)]
        latest = f"{_probe(view, time)} >= {table}._order"
        joins.append(f"ASOF LEFT JOIN {table} ON {' AND '.join([*on, latest])}")
        columns += _taken(view, table, time, matched)
    query = "WITH " + ",\n".join(tables) + f"\nSELECT {', '.join(columns)}\nFROM _e e\n" + "\n".join(joins)
    return f"{query}\nORDER BY e.{identifier(row)}" if row else query


def matched_columns(view: ViewPlan) -> dict[str, str]:
    """Name in the result → column of the view's files, of the times that say which row was taken.

    ``<view>__event_timestamp``, and ``<view>__created_timestamp`` when the view has created times. Both are
    null where no row was taken, and never later than the example when created times filter.
    """
    names = {f"{view.name}__event_timestamp": view.timestamp}
    return {**names, f"{view.name}__created_timestamp": view.created} if view.created else names


def _source(view: ViewPlan, between: tuple[datetime, datetime] | None, *, filtered: bool) -> str:
    """The rows of the view's files that any example could take, under names of our own."""
    created = f"{_column(view, view.created)}::TIMESTAMPTZ" if view.created else "NULL::TIMESTAMPTZ"
    names = [
        *(f"{_column(view, key.column)} AS _k{n}" for n, key in enumerate(view.keys)),
        f"{_column(view, view.timestamp)}::TIMESTAMPTZ AS _ts",
        f"{created} AS _created",
        "(file_index::BIGINT << 40) + file_row_number AS _row",
        *(f"{_column(view, feature.column)} AS _f{n}" for n, feature in enumerate(view.features)),
    ]
    source = f"{parquet(view.paths, union_by_name=view.widen)} AS _files"
    if view.sparse and view.keys:
        same = (f"{_column(view, key.column, '_files.')} = _e.{identifier(key.entity)}" for key in view.keys)
        source += f" SEMI JOIN _e ON {' AND '.join(same)}"
    return f"SELECT {', '.join(names)} FROM {source} WHERE {_in_reach(view, between, filtered=filtered)}"


def _column(view: ViewPlan, name: str, of: str = "") -> str:
    """A column of the view's files, in SQL."""
    kind = view.absent.get(name)
    return f"{of}{identifier(name)}" if kind is None else f"NULL::{kind}"


def _rows(view: ViewPlan, between: tuple[datetime, datetime] | None, matched: bool) -> str:
    created = "coalesce(_created, '-infinity'::TIMESTAMPTZ)" if view.created else None
    return f"SELECT {_carried(view, matched)}, {_order('_ts', created)} FROM ({_source(view, between, filtered=False)})"


def _visible(view: ViewPlan, between: tuple[datetime, datetime] | None, matched: bool) -> str:
    """The rows that are the best at the moment at which they appear, by that moment."""
    keys = [f"_k{n}" for n in range(len(view.keys))]
    partition = f"PARTITION BY {', '.join(keys)} " if keys else ""
    appeared = f"SELECT *, greatest(_ts, _created) AS _at FROM ({_source(view, between, filtered=True)})"
    # The window ends with the last of the rows that appear at one moment.
    best = f"_ts >= max(_ts) OVER ({partition}ORDER BY _at)"
    return f"SELECT {_carried(view, matched)}, {_order('_at', '_created')} FROM ({appeared}) QUALIFY {best}"


def _carried(view: ViewPlan, matched: bool) -> str:
    names = [f"_k{n}" for n in range(len(view.keys))] + ["_ts"]
    names += ["_created"] if matched and view.created else []
    return ", ".join(names + [f"_f{n}" for n in range(len(view.features))])


def _order(time: str, created: str | None) -> str:
    second = f"'c': {created}, " if created else ""
    return f"{{'t': {time}, {second}'r': _row}} AS _order"


def _probe(view: ViewPlan, time: str) -> str:
    created = "'c': 'infinity'::TIMESTAMPTZ, " if view.created else ""
    return f"{{'t': {time}, {created}'r': {_LAST}}}"


def _in_reach(view: ViewPlan, between: tuple[datetime, datetime] | None, *, filtered: bool) -> str:
    # DuckDB 1.5.6 lets a null match a null in the second and later keys of an ASOF join.
    conditions = [f"{_column(view, key.column)} IS NOT NULL" for key in view.keys]
    created = view.created if filtered else None
    if between is None:
        conditions += [f"{_column(view, name)} IS NOT NULL" for name in (view.timestamp, created) if name]
        return " AND ".join(conditions)
    first, last = (moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in between)
    # On the columns themselves, as they are in the files: only then does DuckDB skip by statistics.
    conditions += [_compare(view, name, "<=", last) for name in (view.timestamp, created) if name]
    if view.ttl and first - datetime.min.replace(tzinfo=UTC) > view.ttl:
        conditions.append(_compare(view, view.timestamp, ">=", first - view.ttl))
    return " AND ".join(conditions)


def _compare(view: ViewPlan, column: str, sign: str, moment: datetime) -> str:
    utc = moment.astimezone(UTC)
    if column in view.naive:
        return f"{_column(view, column)} {sign} TIMESTAMP {literal(utc.replace(tzinfo=None))}"
    return f"{_column(view, column)}::TIMESTAMPTZ {sign} TIMESTAMPTZ {literal(utc)}"


def _taken(view: ViewPlan, table: str, time: str, matched: bool) -> list[str]:
    """The columns that a view adds to the result."""
    values = {feature.name: f"{table}._f{n}" for n, feature in enumerate(view.features)}
    if matched:
        values |= dict(zip(matched_columns(view), (f"{table}._ts", f"{table}._created"), strict=False))
    # The upper end is for an example without time: in a struct, a null is greater than every time.
    valid = f"{table}._ts <= {time}"
    if view.ttl:
        ttl = f"to_microseconds({view.ttl // timedelta(microseconds=1)})"
        valid += f" AND {table}._ts >= {time} - {ttl}"
    return [f"CASE WHEN {valid} THEN {value} END AS {identifier(name)}" for name, value in values.items()]


def _check(
    entity_columns: Sequence[str], timestamp: str, views: Sequence[ViewPlan], *, matched: bool
) -> None:
    here = f"they have {', '.join(entity_columns)}"
    if timestamp not in entity_columns:
        raise FeatureStoreError(f"the examples lack the time column {timestamp!r}; {here}")
    seen = {column.lower(): "the examples" for column in entity_columns}
    for view in views:
        for key in view.keys:
            if key.entity not in entity_columns:
                raise FeatureStoreError(
                    f"feature view {view.name!r} is joined by {key.entity!r}, which is no column of the "
                    f"examples; {here}"
                )
        for name in [feature.name for feature in view.features] + (
            list(matched_columns(view)) if matched else []
        ):
            if other := seen.get(name.lower()):
                raise FeatureStoreError(
                    f"feature {name!r} of view {view.name!r} has the name of a column of {other}; "
                    "rename one of them, or ask for full feature names"
                )
            seen[name.lower()] = f"feature view {view.name!r}"
