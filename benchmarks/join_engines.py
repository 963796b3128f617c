"""Ways to join features point in time, Parquet to Parquet, each run in a process of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from join_data import FEATURES, TTLS  # noqa: E402 - found beside this file

OURS = "airflow_mlops.AsofOfflineStore"
MEMORY = "2GB"

Run = Callable[[], int]


def ours(folder: Path, views: int, *, ttl: bool, examples: str, output: Path) -> Run:
    return _asof(folder, views, ttl, examples, output, created=False)


def ours_created(folder: Path, views: int, *, ttl: bool, examples: str, output: Path) -> Run:
    return _asof(folder, views, ttl, examples, output, created=True)


def _asof(folder: Path, views: int, ttl: bool, examples: str, output: Path, *, created: bool) -> Run:
    store, features = _feast(
        OURS, folder, views, ttl, memory_limit=MEMORY, filter_by_created_timestamp=created
    )

    def run() -> int:
        job = store.get_historical_features(entity_df=examples, features=features)
        rows = job.to_parquet(output, ordered=False)
        job.close()
        return rows

    return run


def feast_duckdb(folder: Path, views: int, *, ttl: bool, examples: str, output: Path) -> Run:
    return _peer("duckdb", folder, views, ttl, examples, output)


def feast_dask(folder: Path, views: int, *, ttl: bool, examples: str, output: Path) -> Run:
    return _peer("dask", folder, views, ttl, examples, output)


def _peer(kind: str, folder: Path, views: int, ttl: bool, examples: str, output: Path) -> Run:
    import duckdb
    import pyarrow.parquet as pq

    store, features = _feast(kind, folder, views, ttl)

    def run() -> int:
        frame = duckdb.sql(f"SET TimeZone='UTC'; {examples}").df()  # they take pandas only
        table = store.get_historical_features(entity_df=frame, features=features).to_arrow()
        pq.write_table(table, output, compression="zstd")
        return table.num_rows

    return run


def _feast(kind: str, folder: Path, views: int, ttl: bool, **settings):
    from airflow_mlops.hooks.feast.connection.session import import_feast

    feast = import_feast()
    from feast.repo_config import RepoConfig
    from feast.types import Float64, Int64, String

    registry = folder / f"registry-{kind.rpartition('.')[2]}-{ttl}.db"
    registry.unlink(missing_ok=True)
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(registry),
        offline_store={"type": kind, **settings},
        online_store=None,
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    store = feast.FeatureStore(config=config)
    entities = [
        feast.Entity(name=f"k{n}", join_keys=[f"k{n}"], value_type=feast.ValueType.INT64)
        for n in range(views)
    ]
    made = [
        feast.FeatureView(
            name=f"view{n}",
            entities=[entities[n]],
            ttl=TTLS[n] if ttl else timedelta(0),
            schema=[
                feast.Field(name=f"k{n}", dtype=Int64),
                feast.Field(name=f"f{n}_0", dtype=Float64),
                feast.Field(name=f"f{n}_1", dtype=Int64),
                feast.Field(name=f"f{n}_2", dtype=Float64),
                feast.Field(name=f"f{n}_3", dtype=String),
            ],
            source=feast.FileSource(
                name=f"rows{n}",
                path=str(folder / f"view{n}") + ("" if kind == OURS else "/rows.parquet"),
                timestamp_field="time",
                created_timestamp_column="created",
            ),
            online=False,
        )
        for n in range(views)
    ]
    store.apply([*entities, *made])
    return store, [f"view{n}:f{n}_{f}" for n in range(views) for f in range(FEATURES)]


def hand(folder: Path, views: int, *, ttl: bool, examples: str, output: Path) -> Run:
    """What a person writes who decides ties: the same result as ours."""
    return _hand(folder, views, ttl, examples, output, ties=True)


def hand_loose(folder: Path, views: int, *, ttl: bool, examples: str, output: Path) -> Run:
    """What a person writes who leaves ties to chance."""
    return _hand(folder, views, ttl, examples, output, ties=False)


def _hand(folder: Path, views: int, ttl: bool, examples: str, output: Path, *, ties: bool) -> Run:
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"SET TimeZone='UTC'; SET enable_progress_bar=false; SET memory_limit='{MEMORY}'")
    connection.execute(f"SET preserve_insertion_order=false; SET temp_directory='{folder}/spill-hand'")

    def run() -> int:
        first, last = connection.execute(
            f"SELECT min(event_timestamp), max(event_timestamp) FROM ({examples})"
        ).fetchone()
        tables, joins, columns = [], [], ["e.*"]
        for n in range(views):
            features = ", ".join(f"f{n}_{f}" for f in range(FEATURES))
            where = f"time <= '{last}'" + (
                f" AND time >= TIMESTAMPTZ '{first}' - {_interval(n)}" if ttl else ""
            )
            best = (
                f" QUALIFY row_number() OVER (PARTITION BY k{n}, time ORDER BY created DESC) = 1"
                if ties
                else ""
            )
            tables.append(
                f"v{n} AS (SELECT k{n}, time, {features} FROM '{folder}/view{n}/*.parquet' WHERE {where}{best})"
            )
            joins.append(f"ASOF LEFT JOIN v{n} ON e.k{n} = v{n}.k{n} AND e.event_timestamp >= v{n}.time")
            for f in range(FEATURES):
                value = f"v{n}.f{n}_{f}"
                live = (
                    f"CASE WHEN v{n}.time >= e.event_timestamp - {_interval(n)} THEN {value} END AS f{n}_{f}"
                )
                columns.append(live if ttl else value)
        query = f"WITH {', '.join(tables)} SELECT {', '.join(columns)} FROM ({examples}) e {' '.join(joins)}"
        return connection.execute(
            f"COPY ({query}) TO '{output}' (FORMAT parquet, COMPRESSION zstd)"
        ).fetchone()[0]

    return run


def _interval(view: int) -> str:
    return f"INTERVAL {int(TTLS[view].total_seconds())} SECOND"


def polars(folder: Path, views: int, *, ttl: bool, examples: str, output: Path) -> Run:
    import polars as pl

    source = examples.partition("'")[2].partition("'")[0]

    def run() -> int:
        table = pl.scan_parquet(source).sort("event_timestamp")
        for n in range(views):
            names = [f"f{n}_{f}" for f in range(FEATURES)]
            rows = pl.scan_parquet(f"{folder}/view{n}/*.parquet").sort("time", "created")
            rows = rows.select(f"k{n}", pl.col("time").alias("event_timestamp"), *names)
            table = table.join_asof(
                rows,
                on="event_timestamp",
                by=f"k{n}",
                strategy="backward",
                tolerance=TTLS[n] if ttl else None,
                check_sortedness=False,
            )
        frame = table.collect()
        frame.write_parquet(output, compression="zstd")
        return frame.height

    return run


ENGINES = {
    "airflow-mlops": ours,
    "airflow-mlops, created times filter": ours_created,
    "DuckDB by hand, ties decided": hand,
    "DuckDB by hand, ties left to chance": hand_loose,
    "Polars join_asof": polars,
    "Feast duckdb": feast_duckdb,
    "Feast dask": feast_dask,
}


def main(engine: str, folder: str, views: str, ttl: str, examples: str, output: str) -> None:
    try:
        run = ENGINES[engine](
            Path(folder), int(views), ttl=ttl == "ttl", examples=examples, output=Path(output)
        )
    except ImportError as error:
        print(json.dumps({"missing": error.name}))
        return
    print_figures(run)


def print_figures(run: Run) -> None:
    """Run it, and say what it took."""
    before = time.perf_counter(), time.process_time(), _peak_mb()
    rows = run()
    figures = {
        "rows": rows,
        "wall_s": time.perf_counter() - before[0],
        "cpu_s": time.process_time() - before[1],
        "peak_mb": _peak_mb(),
        "imports_mb": before[2],
    }
    print(json.dumps(figures))


def _peak_mb() -> float:
    # Not getrusage: a child begins with the peak of the process that started it.
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
