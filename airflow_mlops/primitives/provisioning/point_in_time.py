"""The point-in-time join: a frozen description of feature views becomes one DuckDB query.

For an example of time ``t`` and one feature view, the row taken is the one with the greatest
timestamp within ``[t - ttl, t]``, both ends included, that has the example's join keys. A ttl of zero
is no limit. Of rows with one timestamp the later created wins, then the later file (in order of
name), then the later row. With ``filter_by_created`` a row counts only if it was created by ``t``,
so that a backfill never leaks into the past; a row of unknown creation time then never counts. A
null key matches nothing. A time without zone is UTC. Every example comes out exactly once, in no
particular order.

DuckDB's ASOF join knows one inequality, but that may compare structs: the row's
``{timestamp, created, position}`` against ``{t, infinity, maximum}`` breaks ties without a
deduplication, and a window function is needed only when created times filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.primitives.sql import identifier, literal, parquet

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SEMANTICS", "FeatureColumn", "JoinKey", "ViewPlan", "compile_join"]

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
    """

    name: str
    paths: tuple[str, ...]
    keys: tuple[JoinKey, ...]
    timestamp: str
    features: tuple[FeatureColumn, ...]
    created: str | None = None
    ttl: timedelta = timedelta(0)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every file must have."""
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


def compile_join(
    entities: str,
    entity_columns: Sequence[str],
    timestamp: str,
    views: Sequence[ViewPlan],
    *,
    between: tuple[datetime, datetime] | None = None,
    filter_by_created: bool = True,
) -> str:
    """One query that adds the features of all views to the examples.

    The session's time zone must be UTC.

    :param entities: what stands behind FROM: a table name, a function, or a query in brackets.
    :param entity_columns: the columns of ``entities``.
    :param timestamp: the column of the example's time.
    :param views: the views, in the order of their columns in the result.
    :param between: first and last time of the examples, to read no more of the files than needed.
    :param filter_by_created: whether a row counts only from the time at which it was created.
    :raises FeatureStoreError: a join key is no column of the examples, or two columns of the result
        have one name.
    """
    _check(entity_columns, timestamp, views)
    time = f"e.{identifier(timestamp)}"
    entity = (
        f"SELECT * REPLACE ({identifier(timestamp)}::TIMESTAMPTZ AS {identifier(timestamp)}) FROM {entities}"
    )
    tables, joins, columns = [f"_e AS ({entity})"], [], ["e.*"]
    for number, view in enumerate(views):
        table = f"_v{number}"
        filtered = filter_by_created and view.created is not None
        rows = _visible(view, between) if filtered else _rows(view, between)
        tables.append(f"{table} AS ({rows})")
        latest = _probe(view, time, filtered=filtered)
        on = [f"e.{identifier(key.entity)} = {table}._k{n}" for n, key in enumerate(view.keys)]
        joins.append(f"ASOF LEFT JOIN {table} ON {' AND '.join([*on, f'{latest} >= {table}._order'])}")
        columns += [
            f"{_unexpired(view, f'{table}._f{n}', table, time)} AS {identifier(feature.name)}"
            for n, feature in enumerate(view.features)
        ]
    return "WITH " + ",\n".join(tables) + f"\nSELECT {', '.join(columns)}\nFROM _e e\n" + "\n".join(joins)


def _source(view: ViewPlan) -> str:
    """The view's files under names of our own, whatever theirs are."""
    created = f"{identifier(view.created)}::TIMESTAMPTZ" if view.created else "NULL::TIMESTAMPTZ"
    names = [
        *(f"{identifier(key.column)} AS _k{n}" for n, key in enumerate(view.keys)),
        f"{identifier(view.timestamp)}::TIMESTAMPTZ AS _ts",
        f"{created} AS _created",
        "(file_index::BIGINT << 40) + file_row_number AS _row",
        *(f"{identifier(feature.column)} AS _f{n}" for n, feature in enumerate(view.features)),
    ]
    return f"(SELECT {', '.join(names)} FROM {parquet(view.paths, union_by_name=False)})"


def _rows(view: ViewPlan, between: tuple[datetime, datetime] | None) -> str:
    order = ["'t': _ts", "'r': _row"]
    if view.created:
        order.insert(1, "'c': coalesce(_created, '-infinity'::TIMESTAMPTZ)")
    return (
        f"SELECT * EXCLUDE (_created, _row), {{{', '.join(order)}}} AS _order "
        f"FROM {_source(view)} WHERE {_in_reach(view, between)}"
    )


def _visible(view: ViewPlan, between: tuple[datetime, datetime] | None) -> str:
    """For every moment at which a row appears, the best row that has appeared by then."""
    keys = [f"_k{n}" for n in range(len(view.keys))]
    fields = ["_ts", "_created", "_row", *(f"_f{n}" for n in range(len(view.features)))]
    best = f"max({{{', '.join(f'{name!r}: {name}' for name in fields)}}})"
    partition = f"PARTITION BY {', '.join(keys)} " if keys else ""
    appeared = f"SELECT *, greatest(_ts, _created) AS _at FROM {_source(view)} "
    appeared += f"WHERE _created IS NOT NULL AND {_in_reach(view, between)}"
    return (
        f"SELECT {''.join(key + ', ' for key in keys)}_order, unnest(_best) FROM ("
        f"SELECT {''.join(key + ', ' for key in keys)}{{'t': _at, 'r': _row}} AS _order, "
        f"{best} OVER ({partition}ORDER BY _at, _row) AS _best FROM ({appeared}))"
    )


def _in_reach(view: ViewPlan, between: tuple[datetime, datetime] | None) -> str:
    """Rows that any example could take."""
    # DuckDB 1.5.6 lets a null match a null in the second and later keys of an ASOF join.
    conditions = [f"_k{n} IS NOT NULL" for n in range(len(view.keys))]
    if between is None:
        conditions.append("_ts IS NOT NULL")
    else:
        first, last = (_moment(moment) for moment in between)
        conditions.append(f"_ts <= {last}")
        if view.ttl:
            conditions.append(f"_ts >= {first} - {_span(view.ttl)}")
    return " AND ".join(conditions)


def _probe(view: ViewPlan, time: str, *, filtered: bool) -> str:
    created = "" if filtered or not view.created else "'c': 'infinity'::TIMESTAMPTZ, "
    return f"{{'t': {time}, {created}'r': {_LAST}}}"


def _unexpired(view: ViewPlan, value: str, table: str, time: str) -> str:
    # The upper end is for an example without time: in a struct, a null is greater than every time.
    oldest = f" AND {table}._ts >= {time} - {_span(view.ttl)}" if view.ttl else ""
    return f"CASE WHEN {table}._ts <= {time}{oldest} THEN {value} END"


def _span(ttl: timedelta) -> str:
    return f"to_microseconds({ttl // timedelta(microseconds=1)})"


def _moment(moment: datetime) -> str:
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"TIMESTAMPTZ {literal(moment.astimezone(UTC))}"


def _check(entity_columns: Sequence[str], timestamp: str, views: Sequence[ViewPlan]) -> None:
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
        for feature in view.features:
            if other := seen.get(feature.name.lower()):
                raise FeatureStoreError(
                    f"feature {feature.name!r} of view {view.name!r} has the name of a column of {other}; "
                    "rename one of them, or ask for full feature names"
                )
            seen[feature.name.lower()] = f"feature view {view.name!r}"
