"""The compiled join against a reference that looks at every row."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.primitives.datasets.point_in_time import (
    FeatureColumn,
    JoinKey,
    ViewPlan,
    compile_join,
    matched_columns,
)

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


MINUTES = (None, *range(13))
IDS = (None, 0, 1, 2)
KEYS = [("h",), ("h", "a"), ("h", "a", "b")]
# One number a row, so that drawing thousands of histories is quick: digits of mixed base.
feature_rows = st.lists(st.integers(0, 4 * 4 * 14 * 14 - 1), max_size=14)
entity_rows = st.lists(st.integers(0, 4 * 4 * 14 - 1), min_size=1, max_size=6)
histories = st.lists(st.tuples(feature_rows, entity_rows), min_size=30, max_size=50)


def feature_row(code: int, history: int, value: int) -> dict[str, Any]:
    code, a = divmod(code, 4)
    code, b = divmod(code, 4)
    created, time = divmod(code, 14)
    times = {"time": at(MINUTES[time]), "created": at(MINUTES[created])}
    return {"h": history, "a": IDS[a], "b": IDS[b], **times, "value": value}


def entity_row(code: int, history: int, n: int) -> dict[str, Any]:
    code, a = divmod(code, 4)
    time, b = divmod(code, 4)
    return {"h": history, "a": IDS[a], "b": IDS[b], "t": at(MINUTES[time]), "n": n}


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(
    drawn=histories,
    ttl=st.sampled_from([0, 1, 3]),
    keys=st.sampled_from(KEYS),
    created=st.booleans(),
    filter_by_created=st.booleans(),
    naive=st.booleans(),
    bounded=st.booleans(),
    sparse=st.booleans(),
)
def test_thousands_of_histories_equal_a_look_at_every_row(
    drawn, ttl, keys, created, filter_by_created, naive, bounded, sparse
):
    """Eighty queries of some forty histories each: a history of its own is a key of its own."""
    zone = NAIVE if naive else AWARE
    values, numbers = count(), count()
    rows = {h: [feature_row(code, h, next(values)) for code in codes] for h, (codes, _) in enumerate(drawn)}
    examples = [entity_row(code, h, next(numbers)) for h, (_, codes) in enumerate(drawn) for code in codes]
    with tempfile.TemporaryDirectory() as folder:
        # Half of each history lies in another file: the later file wins a tie.
        halves = ("1", lambda part: part[: len(part) // 2]), ("2", lambda part: part[len(part) // 2 :])
        paths = [f"{folder}/{name}.parquet" for name, _ in halves]
        for path, (_, half) in zip(paths, halves, strict=True):
            part = [row for h in rows for row in half(rows[h])]
            pq.write_table(_table(part, ("h", "a", "b", "time", "created", "value"), zone), path)
        view = ViewPlan(
            name="view",
            paths=tuple(paths),
            keys=tuple(JoinKey(key, key) for key in keys),
            timestamp="time",
            created="created" if created else None,
            ttl=timedelta(minutes=ttl),
            features=(FeatureColumn("value", "v"),),
            naive=frozenset({"time", "created"}) if naive else frozenset(),
            sparse=sparse,
        )
        mapped = (JoinKey("h", "h"), JoinKey("b", "a"))
        other = replace(view, name="other", keys=mapped, features=(FeatureColumn("value", "w"),))
        result = run(
            _table(examples, ("h", "a", "b", "t", "n"), zone),
            [view, other],
            filter_by_created=filter_by_created,
            bounded=bounded,
        )
    assert [row["n"] for row in result] == list(range(len(examples)))  # none lost, none twice
    for example, row in zip(examples, result, strict=True):
        history = rows[example["h"]]
        assert row["v"] == reference(example, view, history, filter_by_created=filter_by_created)
        assert row["w"] == reference(example, other, history, filter_by_created=filter_by_created)


@settings(max_examples=30, deadline=None)
@given(codes=feature_rows, asked=entity_rows, created=st.booleans(), filter_by_created=st.booleans())
def test_a_view_without_keys_is_for_everybody(codes, asked, created, filter_by_created):
    rows = [feature_row(code, 0, value) for value, code in enumerate(codes)]
    examples = [entity_row(code, 0, n) for n, code in enumerate(asked)]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/rows.parquet"
        pq.write_table(_table(rows, ("time", "created", "value"), AWARE), path)
        view = ViewPlan(
            "world", (path,), (), "time", (FeatureColumn("value", "v"),), "created" if created else None
        )
        result = run(_table(examples, ("t", "n"), AWARE), [view], filter_by_created=filter_by_created)
    expected = [reference(example, view, rows, filter_by_created=filter_by_created) for example in examples]
    assert [row["v"] for row in result] == expected


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


def test_order_in_is_order_out_when_a_column_numbers_the_examples(tmp_path):
    view = weather(tmp_path, [("JFK", 0, 0, 1.0), ("LGA", 5, 5, 2.0)])
    origins, times = ["LGA", "JFK", None, "JFK", "LGA"] * 300, [20, 40, 3, 7, 4] * 300
    table = asked(origins, times).rename_columns(["row", "origin", "t"])
    table = table.take(list(reversed(range(1500))))  # stored upside down
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'; SET preserve_insertion_order=false")
        connection.register("entities", table)
        sql = compile_join("entities", ["origin", "t"], "t", [view], row="row")
        result = connection.execute(sql).to_arrow_table()
    assert result.column_names == ["origin", "t", "temp"]
    assert result.column("origin").to_pylist() == origins
    assert result.column("temp").to_pylist() == [2.0, None, None, 1.0, None] * 300


def test_the_times_of_the_rows_taken_can_be_seen(tmp_path):
    view = weather(tmp_path, [("JFK", 0, 1, 10.0), ("JFK", 0, 20, 99.0)])
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        connection.register("entities", asked(["JFK"] * 4, [0, 5, 25, 31]))
        sql = compile_join("entities", ["n", "origin", "t"], "t", [view], matched=True)
        rows = sorted(connection.execute(sql).to_arrow_table().to_pylist(), key=lambda row: row["n"])
    assert list(matched_columns(view)) == ["weather__event_timestamp", "weather__created_timestamp"]
    assert [row["weather__event_timestamp"] for row in rows] == [None, at(0), at(0), None]
    assert [row["weather__created_timestamp"] for row in rows] == [None, at(1), at(20), None]


@pytest.mark.parametrize("naive", [False, True])
def test_only_the_row_groups_of_the_time_that_matters_are_read(tmp_path, naive):
    """Ninety days by the hour; one day of examples and a time to live of two hours."""
    zone, path = NAIVE if naive else AWARE, str(tmp_path / "rows.parquet")
    times = pa.array([(START + timedelta(hours=h)).replace(tzinfo=None) for h in range(24 * 90)], NAIVE)
    rows = pa.table({"k": [1] * len(times), "time": times.cast(zone), "v": list(range(len(times)))})
    pq.write_table(rows, path, row_group_size=24)
    view = ViewPlan(
        "hours",
        (path,),
        (JoinKey("k", "k"),),
        "time",
        (FeatureColumn("v", "v"),),
        ttl=timedelta(hours=2),
        naive=frozenset({"time"}) if naive else frozenset(),
    )
    day = (START + timedelta(days=50), START + timedelta(days=51))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        connection.execute("CREATE TABLE e AS SELECT 1 AS k, ?::TIMESTAMPTZ AS t", [day[1]])
        sql = compile_join("e", ["k", "t"], "t", [view], between=day)
        _destroy_row_groups(Path(path), range(40))
        assert connection.execute(sql).fetchall()[0][-1] == 51 * 24
        with pytest.raises(duckdb.Error):  # whoever reads all of it notices
            connection.execute(compile_join("e", ["k", "t"], "t", [view])).fetchall()


def _destroy_row_groups(path: Path, groups: range) -> None:
    data, metadata = bytearray(path.read_bytes()), pq.read_metadata(path)
    for group in groups:
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            at = chunk.dictionary_page_offset or chunk.data_page_offset
            data[at : at + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)


def test_files_that_differ_in_types_are_read_as_the_widest(tmp_path):
    paths = [str(tmp_path / "1.parquet"), str(tmp_path / "2.parquet")]
    pq.write_table(pa.table({"k": [1], "time": pa.array([at(0)], AWARE), "v": [7]}), paths[0])
    naive = pa.array([at(5).replace(tzinfo=None)], NAIVE)
    pq.write_table(pa.table({"k": [1], "time": naive, "v": [7.5]}), paths[1])
    view = ViewPlan(
        "mixed", tuple(paths), (JoinKey("k", "k"),), "time", (FeatureColumn("v", "v"),), widen=True
    )
    examples = pa.table({"n": [0, 1], "k": [1, 1], "t": pa.array([at(1), at(9)], AWARE)})
    assert [row["v"] for row in run(examples, [view])] == [7.0, 7.5]


def test_a_plan_can_be_read_back_from_json(tmp_path):
    view = weather(tmp_path, [])
    assert ViewPlan.from_json(json.loads(json.dumps(view.to_json())), view.paths) == view
