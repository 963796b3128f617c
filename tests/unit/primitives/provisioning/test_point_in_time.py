"""The compiled join against a reference that looks at every row."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.primitives.provisioning.point_in_time import FeatureColumn, JoinKey, ViewPlan, compile_join

START = datetime(2024, 1, 1, tzinfo=UTC)
NAIVE, AWARE = pa.timestamp("us"), pa.timestamp("us", tz="UTC")


def at(minutes: int | None) -> datetime | None:
    return None if minutes is None else START + timedelta(minutes=minutes)


def run(
    entities: pa.Table, views: list[ViewPlan], *, filter_by_created: bool = True, bounded: bool = True
) -> list[dict[str, Any]]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        connection.register("entities", entities)
        times = [t.replace(tzinfo=UTC) for t in entities.column("t").to_pylist() if t is not None]
        between = (min(times), max(times)) if bounded and times else None
        sql = compile_join(
            "entities",
            entities.column_names,
            "t",
            views,
            between=between,
            filter_by_created=filter_by_created,
        )
        rows = connection.execute(sql).to_arrow_table().to_pylist()
    return sorted(rows, key=lambda row: row["n"])


def reference(
    entity: dict[str, Any], view: ViewPlan, rows: list[dict[str, Any]], *, filter_by_created: bool
) -> Any:
    """Look at every row in order of file and position, and keep the best."""
    best, best_order = None, None
    for position, row in enumerate(rows):
        if any(entity[key.entity] is None or entity[key.entity] != row[key.column] for key in view.keys):
            continue
        time, moment = entity["t"], row["time"]
        if time is None or moment is None or moment > time or (view.ttl and moment < time - view.ttl):
            continue
        created = row["created"] if view.created else None
        if view.created and filter_by_created and (created is None or created > time):
            continue
        order = (moment, created or datetime.min.replace(tzinfo=UTC), position)
        if best_order is None or order > best_order:
            best, best_order = row["value"], order
    return best


ids = st.one_of(st.none(), st.integers(0, 2))
minutes = st.one_of(st.none(), st.integers(0, 12))
feature_rows = st.lists(
    st.fixed_dictionaries({"a": ids, "b": ids, "time": minutes, "created": minutes}), max_size=25
)
entity_rows = st.lists(st.fixed_dictionaries({"a": ids, "b": ids, "t": minutes}), min_size=1, max_size=15)


@settings(max_examples=80, deadline=None)
@given(
    entities=entity_rows,
    first=feature_rows,
    second=feature_rows,
    ttl=st.sampled_from([0, 3]),
    keys=st.sampled_from([("a",), ("a", "b"), ()]),
    created=st.booleans(),
    filter_by_created=st.booleans(),
    naive=st.booleans(),
    bounded=st.booleans(),
)
def test_compiled_join_equals_a_look_at_every_row(
    entities, first, second, ttl, keys, created, filter_by_created, naive, bounded
):
    zone = NAIVE if naive else AWARE
    rows = [
        {**row, "time": at(row["time"]), "created": at(row["created"]), "value": number}
        for number, row in enumerate(first + second)
    ]
    examples = [{**row, "t": at(row["t"]), "n": number} for number, row in enumerate(entities)]
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, part in (("1", rows[: len(first)]), ("2", rows[len(first) :])):
            paths.append(f"{folder}/{name}.parquet")
            pq.write_table(_table(part, ("a", "b", "time", "created", "value"), zone), paths[-1])
        view = ViewPlan(
            name="view",
            paths=tuple(paths),
            keys=tuple(JoinKey(key, key) for key in keys),
            timestamp="time",
            created="created" if created else None,
            ttl=timedelta(minutes=ttl),
            features=(FeatureColumn("value", "v"),),
        )
        other = replace(
            view, name="other", keys=(JoinKey("b", "a"),), features=(FeatureColumn("value", "w"),)
        )
        result = run(
            _table(examples, ("a", "b", "t", "n"), zone),
            [view, other],
            filter_by_created=filter_by_created,
            bounded=bounded,
        )
    assert [row["n"] for row in result] == list(range(len(examples)))  # none lost, none twice
    for example, row in zip(examples, result, strict=True):
        assert row["v"] == reference(example, view, rows, filter_by_created=filter_by_created)
        assert row["w"] == reference(example, other, rows, filter_by_created=filter_by_created)


def _table(rows: list[dict[str, Any]], names: tuple[str, ...], zone: pa.DataType) -> pa.Table:
    types = {"time": zone, "created": zone, "t": zone}
    columns = {}
    for name in names:
        values = [row[name] for row in rows]
        if name in types and zone.tz is None:
            values = [value and value.replace(tzinfo=None) for value in values]
        columns[name] = pa.array(values, type=types.get(name, pa.int64()))
    return pa.table(columns)


def weather(tmp_path: Path, rows: list[tuple[str, int, int, float]], **changes: Any) -> ViewPlan:
    path = tmp_path / "weather.parquet"
    table = pa.table(
        {
            "place": [row[0] for row in rows],
            "seen": pa.array([at(row[1]) for row in rows], type=AWARE),
            "written": pa.array([at(row[2]) for row in rows], type=AWARE),
            "temp": [row[3] for row in rows],
        }
    )
    pq.write_table(table, path)
    view = ViewPlan(
        name="weather",
        paths=(str(path),),
        keys=(JoinKey("place", "origin"),),
        timestamp="seen",
        created="written",
        ttl=timedelta(minutes=30),
        features=(FeatureColumn("temp", "temp"),),
    )
    return replace(view, **changes)


def asked(origins: list[str | None], minutes: list[int]) -> pa.Table:
    times = pa.array([at(minute) for minute in minutes], type=AWARE)
    return pa.table({"n": list(range(len(origins))), "origin": pa.array(origins, pa.string()), "t": times})


def test_the_window_includes_both_ends(tmp_path):
    view = weather(tmp_path, [("JFK", 0, 0, 1.0)])
    result = run(asked(["JFK"] * 4, [-1, 0, 30, 31]), [view])
    assert [row["temp"] for row in result] == [None, 1.0, 1.0, None]


def test_no_ttl_is_no_limit(tmp_path):
    view = weather(tmp_path, [("JFK", 0, 0, 1.0)], ttl=timedelta(0))
    assert run(asked(["JFK"], [60 * 24 * 3650]), [view])[0]["temp"] == 1.0


def test_a_correction_is_not_seen_before_it_was_written(tmp_path):
    view = weather(tmp_path, [("JFK", 0, 1, 10.0), ("JFK", 0, 20, 99.0)])
    times = asked(["JFK"] * 3, [0, 5, 25])
    assert [row["temp"] for row in run(times, [view])] == [None, 10.0, 99.0]
    assert [row["temp"] for row in run(times, [view], filter_by_created=False)] == [99.0, 99.0, 99.0]


def test_a_late_row_about_an_older_moment_does_not_replace_a_newer_one(tmp_path):
    view = weather(tmp_path, [("JFK", 10, 11, 2.0), ("JFK", 0, 20, 1.0)])
    assert run(asked(["JFK"], [25]), [view])[0]["temp"] == 2.0


def test_a_null_in_any_key_matches_nothing(tmp_path):
    path = tmp_path / "pairs.parquet"
    keys = {"a": [1, 1, None], "b": pa.array([None, 2, None], pa.int64())}
    pq.write_table(pa.table({**keys, "time": pa.array([START] * 3, AWARE), "value": [7, 8, 9]}), path)
    view = ViewPlan(
        name="pairs",
        paths=(str(path),),
        keys=(JoinKey("a", "a"), JoinKey("b", "b")),
        timestamp="time",
        features=(FeatureColumn("value", "v"),),
    )
    examples = pa.table({"n": [0, 1, 2], **keys, "t": pa.array([START] * 3, AWARE)})
    assert [row["v"] for row in run(examples, [view])] == [None, 8, None]


def test_names_are_only_names(tmp_path):
    path = tmp_path / "it's.parquet"
    odd = "a \"b'; DROP TABLE x; --"
    pq.write_table(
        pa.table({odd: ["k"], "_ts": pa.array([START], type=AWARE), "_k0": [7], "select": [8]}), path
    )
    view = ViewPlan(
        name="odd",
        paths=(str(path),),
        keys=(JoinKey(odd, odd),),
        timestamp="_ts",
        features=(FeatureColumn("_k0", "_order"), FeatureColumn("select", odd + "2")),
    )
    table = pa.table({"n": [0], odd: ["k"], "t": pa.array([START], type=AWARE)})
    row = run(table, [view])[0]
    assert (row["_order"], row[odd + "2"]) == (7, 8)


def test_a_feature_named_as_a_column_of_the_examples_is_refused(tmp_path):
    view = weather(tmp_path, [], features=(FeatureColumn("temp", "Origin"),))
    with pytest.raises(
        FeatureStoreError, match="'Origin' of view 'weather' has the name of a column of the examples"
    ):
        compile_join("entities", ["n", "origin", "t"], "t", [view])


def test_two_views_with_one_feature_name_are_refused(tmp_path):
    view = weather(tmp_path, [])
    with pytest.raises(FeatureStoreError, match="of feature view 'weather'"):
        compile_join("entities", ["origin", "t"], "t", [view, replace(view, name="again")])


def test_a_join_key_that_examples_lack_is_named(tmp_path):
    with pytest.raises(
        FeatureStoreError, match="joined by 'origin', which is no column of the examples; they have n, t"
    ):
        compile_join("entities", ["n", "t"], "t", [weather(tmp_path, [])])
