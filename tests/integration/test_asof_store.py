"""What our offline store takes and gives, in Feast: forms of examples, order, on-demand views, layouts, bad input."""

from __future__ import annotations

import json
import random
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.exceptions import FeatureStoreError, SourceError
from airflow_mlops.hooks.feast.connection.session import import_feast

OURS = "airflow_mlops.AsofOfflineStore"
START = datetime(2024, 1, 1, tzinfo=UTC)
AWARE, NAIVE = pa.timestamp("us", "UTC"), pa.timestamp("us")


def at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


def rows(
    minutes: list[float], values: Any, *, k: Any = None, zone: pa.DataType = AWARE, **more: Any
) -> pa.Table:
    times = pa.array([at(minute).replace(tzinfo=None) for minute in minutes], NAIVE).cast(zone)
    return pa.table({"k": k or [1] * len(minutes), "time": times, "v": values, **more})


def write(table: pa.Table, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return str(path)


class Repository:
    """One view ``v`` of key ``k`` and feature ``v`` over a path, and on-demand views of it."""

    def __init__(
        self,
        folder: Path,
        path: str,
        *,
        created: bool = False,
        ttl: timedelta = timedelta(hours=1),
        **store: Any,
    ):
        feast = import_feast()
        from feast.repo_config import RepoConfig
        from feast.types import Int64

        endpoint = store.pop("s3_endpoint_override", None)
        config = RepoConfig(
            project="asof",
            provider="local",
            registry=str(folder / "registry.db"),
            offline_store={"type": OURS, **store},
            online_store=None,
            entity_key_serialization_version=3,
            repo_path=folder,
        )
        self.store = feast.FeatureStore(config=config)
        key = feast.Entity(name="k", join_keys=["k"], value_type=feast.ValueType.INT64)
        self.source = feast.FileSource(
            name="source",
            path=path,
            timestamp_field="time",
            created_timestamp_column="created" if created else "",
            s3_endpoint_override=endpoint,
        )
        self.view = feast.FeatureView(
            name="view",
            entities=[key],
            ttl=ttl,
            schema=[feast.Field(name="k", dtype=Int64), feast.Field(name="v", dtype=Int64)],
            source=self.source,
            online=False,
        )
        self.store.apply([key, self.view])

    def job(self, entities: Any, features: Any = ("view:v",), **options: Any) -> Any:
        features = list(features) if isinstance(features, tuple) else features
        return self.store.get_historical_features(entity_df=entities, features=features, **options)

    def values(self, entities: Any) -> list[Any]:
        job = self.job(entities)
        try:
            return job.to_arrow().column("v").to_pylist()
        finally:
            job.close()


def ask(*minutes: float, **more: Any) -> pd.DataFrame:
    return pd.DataFrame({"k": [1] * len(minutes), "event_timestamp": [at(m) for m in minutes], **more})


@pytest.fixture
def minutes(tmp_path: Path) -> Repository:
    """A value each ten minutes: 0, 1, 2, ..."""
    path = write(rows([10.0 * n for n in range(20)], list(range(20))), tmp_path / "rows.parquet")
    return Repository(tmp_path, path)


def test_examples_come_back_in_their_order(minutes, tmp_path):
    times = list(range(190)) * 20
    random.Random(7).shuffle(times)
    entities = ask(*times, label=list(range(len(times))))
    expected = [time // 10 for time in times]
    table = minutes.job(entities).to_arrow()
    assert table.column("label").to_pylist() == list(range(len(times)))
    assert table.column("v").to_pylist() == expected
    assert minutes.job(entities).to_df()["v"].tolist() == expected
    job = minutes.job(entities)
    for ordered in (True, False):
        assert job.to_parquet(tmp_path / "out.parquet", ordered=ordered) == len(times)
        written = pq.read_table(tmp_path / "out.parquet")
        assert written.column_names == ["k", "event_timestamp", "label", "v"]
        by_label = dict(zip(written["label"].to_pylist(), written["v"].to_pylist(), strict=True))
        assert [by_label[label] for label in range(len(times))] == expected
        if ordered:
            assert written["v"].to_pylist() == expected
    job.close()


def test_examples_as_query_as_path_and_as_reader(minutes, tmp_path):
    first = write(
        pa.table({"k": [1, 1], "event_timestamp": pa.array([at(25), at(5)], AWARE)}),
        tmp_path / "e" / "1.parquet",
    )
    write(pa.table({"k": [1], "event_timestamp": pa.array([at(15)], AWARE)}), tmp_path / "e" / "2.parquet")
    both = str(tmp_path / "e" / "*.parquet")
    assert minutes.values(first) == [2, 0]
    assert minutes.values(both) == [2, 0, 1]
    assert minutes.values(f"read_parquet('{both}')") == [2, 0, 1]
    assert minutes.values(f"FROM '{both}' ORDER BY event_timestamp") == [0, 1, 2]
    assert minutes.values(f"WITH e AS (FROM '{both}') SELECT * FROM e WHERE k = 1 LIMIT 2 -- done") == [2, 0]


def test_a_query_that_is_not_the_same_twice_is_asked_once(minutes):
    query = (
        "SELECT 1 AS k, TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_minutes((random() * 190)::BIGINT) AS event_timestamp "
        "FROM range(500)"
    )
    job = minutes.job(query)
    first, second = job.to_arrow(), job.to_arrow()
    assert first.equals(second)
    for time, value in zip(first["event_timestamp"].to_pylist(), first["v"].to_pylist(), strict=True):
        assert value == (time - START) // timedelta(minutes=10)


def test_the_times_of_the_rows_taken_guard_against_leakage(tmp_path):
    table = rows([0, 0], [1, 2], created=pa.array([at(1), at(30)], AWARE))
    path = write(table, tmp_path / "rows.parquet")
    repository = Repository(tmp_path, path, created=True, matched_times=True)
    job = repository.job(ask(0, 5, 40))
    result = job.to_arrow()
    assert job.matched == {"view": "view__event_timestamp"}
    assert result["view__event_timestamp"].to_pylist() == [None, at(0), at(0)]
    assert result["view__created_timestamp"].to_pylist() == [None, at(1), at(30)]
    assert job.to_reader(matched=False).schema.names == ["k", "event_timestamp", "v"]


def on_demand(repository: Repository) -> Any:
    feast = import_feast()
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64, Int64

    request = feast.RequestSource(name="given", schema=[feast.Field(name="extra", dtype=Int64)])

    @on_demand_feature_view(
        sources=[repository.view, request],
        schema=[feast.Field(name="total", dtype=Int64), feast.Field(name="half", dtype=Float64)],
        mode="pandas",
    )
    def sums(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"total": inputs["v"] + inputs["extra"], "half": inputs["v"] / 2})

    repository.store.apply([request, sums])
    return sums


@pytest.mark.parametrize("full", [False, True])
def test_on_demand_views_are_computed_and_streamed(minutes, tmp_path, monkeypatch, full):
    monkeypatch.setattr("airflow_mlops.hooks.feast.asof.job._BATCH", 3)
    on_demand(minutes)
    # The first batches know no value at all, from which pandas makes another type.
    times = [-600, -601, -602, -603, *range(0, 100, 10)]
    entities = ask(*times, extra=[100] * len(times))
    job = minutes.job(entities, ("sums:total", "sums:half"), full_feature_names=full)
    prefix = "sums__" if full else ""
    assert job.to_parquet(tmp_path / "out.parquet") == len(times)
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.schema.field(f"{prefix}total").type == pa.int64()
    assert written[f"{prefix}total"].to_pylist() == [None] * 4 + [100 + n for n in range(10)]
    assert written[f"{prefix}half"].to_pylist() == [None] * 4 + [n / 2 for n in range(10)]
    assert pq.ParquetFile(tmp_path / "out.parquet").metadata.num_row_groups > 1
    table = job.to_arrow()
    assert set(table.column_names) == set(written.column_names)
    assert table[f"{prefix}half"].to_pylist() == written[f"{prefix}half"].to_pylist()


def test_on_demand_views_of_no_example(minutes, tmp_path):
    on_demand(minutes)
    empty = "SELECT 1 AS k, 2 AS extra, now() AS event_timestamp WHERE FALSE"
    assert minutes.job(empty, ("view:v", "sums:total")).to_parquet(tmp_path / "out.parquet") == 0
    assert {"v", "total"} <= set(pq.read_schema(tmp_path / "out.parquet").names)


def test_a_snapshot_says_which_files_count(tmp_path):
    data = tmp_path / "features" / "data"
    write(rows([0], [1]), data / "day=2024-01-01" / "aa.parquet")
    write(rows([5], [2]), data / "day=2024-01-01" / "bb.parquet")
    repository = Repository(tmp_path, str(data))
    assert repository.values(ask(10)) == [2]
    snapshot = data.parent / "snapshot.json"
    snapshot.write_text(json.dumps({"snapshot": "s1", "files": ["day=2024-01-01/aa.parquet"]}))
    assert repository.values(ask(10)) == [1]
    snapshot.write_text(json.dumps({"files": ["day=2024-01-01/gone.parquet"]}))
    with pytest.raises(SourceError, match=r"feature view 'view': .*gone.parquet"):
        repository.job(ask(10))
    snapshot.write_text("{}")
    with pytest.raises(SourceError, match="no snapshot of published features"):
        repository.job(ask(10))


def test_files_whose_rows_cannot_matter_are_not_opened_again(tmp_path):
    for day in range(10):
        write(
            rows([1440.0 * day + 60 * hour for hour in range(24)], [day] * 24),
            tmp_path / "rows" / f"{day}.parquet",
        )
    repository = Repository(tmp_path, str(tmp_path / "rows"))
    job = repository.job(ask(1440 * 4 + 30))
    assert [Path(path).name for path in job.views[0].paths] == ["4.parquet"]
    assert job.to_arrow()["v"].to_pylist() == [4]
    job = repository.job(ask(1440 * 4 + 30, 1440 * 5))
    assert [Path(path).name for path in job.views[0].paths] == ["4.parquet", "5.parquet"]
    assert repository.values(ask(-99)) == [None]


def test_times_with_and_without_zone_in_one_view_are_utc(tmp_path):
    write(rows([0], [1], zone=NAIVE), tmp_path / "rows" / "1.parquet")
    write(rows([10], [2], zone=pa.timestamp("us", "Europe/Berlin")), tmp_path / "rows" / "2.parquet")
    write(rows([20], [3], zone=pa.timestamp("ns")), tmp_path / "rows" / "3.parquet")
    assert Repository(tmp_path, str(tmp_path / "rows")).values(ask(5, 10, 20, 81)) == [1, 2, 3, None]


def test_integers_and_fractions_in_one_view_lose_nothing(tmp_path):
    write(rows([0], [1]), tmp_path / "rows" / "1.parquet")
    write(rows([10], [2.5]), tmp_path / "rows" / "2.parquet")
    write(rows([20], pa.array([None], pa.null())), tmp_path / "rows" / "3.parquet")
    assert Repository(tmp_path, str(tmp_path / "rows")).values(ask(5, 10, 20)) == [1.0, 2.5, None]


def wrong_type(folder: Path) -> str:
    write(rows([10], ["two"]), folder / "2.parquet")
    return r"feature view 'view': v is int64 in .*1.parquet and string in .*2.parquet"


def fractional_key(folder: Path) -> str:
    write(rows([10], [2], k=[1.5]), folder / "2.parquet")
    return r"k is int64 in .*1.parquet and double in .*2.parquet"


def no_time(folder: Path) -> str:
    table = rows([10], [2])
    write(table.set_column(1, "time", pa.array(["yesterday"])), folder / "2.parquet")
    return r"time is string in .*2.parquet, expected a timestamp"


def renamed(folder: Path) -> str:
    write(rows([10], [2]).rename_columns(["k", "time", "value"]), folder / "2.parquet")
    return r"2.parquet lacks the column\(s\) v; it has k, time, value. Was a column renamed"


def truncated(folder: Path) -> str:
    path = Path(write(rows([10], [2]), folder / "2.parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    return r"2.parquet cannot be read as Parquet: .* truncated"


@pytest.mark.parametrize("spoil", [wrong_type, fractional_key, no_time, renamed, truncated])
def test_one_bad_file_of_many_is_named(tmp_path, spoil):
    write(rows([0], [1]), tmp_path / "rows" / "1.parquet")
    repository = Repository(tmp_path, str(tmp_path / "rows"))
    message = spoil(tmp_path / "rows")
    with pytest.raises(SourceError, match=message):
        repository.job(ask(10))


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ("SELEC 1 AS k", "entity rows cannot be read: .*syntax error"),
        ("SELECT 1 AS k; DROP TABLE x", "expected one SELECT statement"),
        ("SELECT * FROM read_parquet('/nowhere/*.parquet')", "entity rows cannot be read: .*nowhere"),
        ("SELECT 1 AS k, 'soon' AS event_timestamp", "entity rows cannot be read: .*soon"),
        ("SELECT 1 AS k, now() AS event_timestamp, 2 AS __asof_row", "column __asof_row, which is taken"),
    ],
)
def test_examples_that_cannot_be_read_are_explained(minutes, entities, message):
    with pytest.raises(FeatureStoreError, match=message):
        minutes.job(entities)


def test_no_source_is_explained(tmp_path):
    with pytest.raises(SourceError, match=r"feature view 'view': no file at .*gone"):
        Repository(tmp_path, str(tmp_path / "gone")).job(ask(0))


def test_spilling_keeps_the_memory_limit_and_leaves_nothing(tmp_path):
    table = rows(
        [n / 1000 for n in range(400_000)], list(range(400_000)), text=[f"{n:050}" for n in range(400_000)]
    )
    path, spill = write(table, tmp_path / "rows.parquet"), tmp_path / "spill"
    query = "SELECT 1 AS k, TIMESTAMP '2024-01-01' + to_milliseconds(n * 60) AS event_timestamp FROM range(400000) t(n)"
    repository = Repository(tmp_path, path, memory_limit="40MB", threads=2, temp_directory=str(spill))
    job = repository.job(query)
    assert job.to_parquet(tmp_path / "out.parquet") == 400_000
    assert duckdb.sql(f"SELECT sum(v) FROM '{tmp_path}/out.parquet'").fetchone() == (sum(range(400_000)),)
    job.close()
    assert list(spill.iterdir()) == []


def test_a_full_disk_while_spilling_says_what_to_do(tmp_path):
    path = write(rows([n / 1000 for n in range(300_000)], list(range(300_000))), tmp_path / "rows.parquet")
    query = "SELECT 1 AS k, TIMESTAMP '2024-01-01' + to_milliseconds(n * 60) AS event_timestamp FROM range(300000) t(n)"
    repository = Repository(
        tmp_path,
        path,
        memory_limit="20MB",
        threads=1,
        temp_directory=str(tmp_path),
        max_temp_directory_size="1MB",
    )
    with pytest.raises(
        FeatureStoreError,
        match=r"cannot spill to .*: .*failed to offload[^\n]* Free space there, .*temp_directory in feature_store.yaml",
    ):
        repository.job(query).to_parquet(tmp_path / "out.parquet")


def test_a_spill_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    path = write(rows([0], [1]), tmp_path / "rows.parquet")
    with pytest.raises(
        FeatureStoreError, match=r"no folder to spill to: no folder .*can be made in .*temp_directory"
    ):
        Repository(tmp_path, path, temp_directory=str(tmp_path / "file" / "x")).job(ask(0))
    with pytest.raises(
        FeatureStoreError, match=r"offline_store in feature_store.yaml: .*Memory must have a number"
    ):
        Repository(tmp_path, path, memory_limit="lots").job(ask(0))


moments = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@settings(max_examples=15, deadline=None)
@given(
    history=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 30), st.integers(0, 2)), max_size=20),
    asked=moments,
)
def test_the_store_equals_a_look_at_every_row(history, asked):
    with tempfile.TemporaryDirectory() as folder:
        created = pa.array([at(late) for _, late, _ in history], AWARE)
        table = rows(
            [time for time, _, _ in history],
            pa.array(range(len(history)), pa.int64()),
            k=pa.array([k for *_, k in history], pa.int64()),
            created=created,
        )
        repository = Repository(
            Path(folder), write(table, Path(folder) / "rows.parquet"), created=True, ttl=timedelta(minutes=9)
        )
        entities = ask(*asked)
        entities["k"] = [n % 3 for n in range(len(asked))]
        expected = []
        for number, moment in enumerate(asked):
            seen = [
                (time, late, n)
                for n, (time, late, k) in enumerate(history)
                if k == number % 3 and moment - 9 <= time <= moment and late <= moment
            ]
            expected.append(max(seen)[2] if seen else None)
        assert repository.values(entities) == expected
