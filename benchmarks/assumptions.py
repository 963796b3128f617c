"""
What it costs to hold a dozen rules against 5M rows of 20 columns: ours beside pandera, dataframely, Great Expectations.

Every figure comes from a fresh process with two threads that reads the same Parquet file and checks the same rules; its
imports are paid before the clock starts. Peers run in environments of their own, which uv makes, and are left out with a
line that says so where it cannot.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = {
    "pandera, polars": ("pandera[polars]>=0.24", "pyarrow"),
    "dataframely": ("dataframely>=2", "pyarrow"),
    "Great Expectations": ("great-expectations>=1", "pyarrow"),
}
RULES = [
    {"column": "id", "not_null": True},
    {"unique": ["id"]},
    {"column": "at", "not_null": True},
    {"column": "origin", "one_of": ["EWR", "JFK", "LGA"]},
    {"column": "tail", "matches": "X[0-9]{4}"},
    {"column": "distance", "between": [0, 1000]},
    {"column": "seats", "between": [0, 400]},
    {"column": "x0", "between": [0, 1]},
    {"column": "x1", "between": [0, 1]},
    {"column": "x2", "max_null_share": 0.1},
    {"min_rows": 1000},
    {"sql": "arrival > departure"},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument(
        "--without", nargs="*", default=[], choices=list(PEERS), metavar="PEER", help="to leave out"
    )
    parser.add_argument("--child", nargs=2, metavar=("WHO", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return
    with tempfile.TemporaryDirectory(prefix="airflow-mlops-assumptions-") as home:
        table = Path(home) / "rows.parquet"
        write(table, given.rows)
        print(
            f"{len(RULES)} rules, {given.rows:,} rows, 20 columns, {table.stat().st_size / 1e6:.0f} MB, load {os.getloadavg()[0]:.1f}"
        )
        ours = line("airflow-mlops", [sys.executable, __file__, "--child", "airflow-mlops", str(table)], home)
        for name, packages in PEERS.items():
            if name in given.without:
                continue
            wanted = [word for package in packages for word in ("--with", package)]
            words = [
                "uv",
                "run",
                "-q",
                "--isolated",
                "--no-project",
                "--python",
                f"{sys.version_info[0]}.{sys.version_info[1]}",
            ]
            figures = line(name, [*words, *wanted, "python", __file__, "--child", name, str(table)], home)
            if figures and ours:
                print(f"{'':20}{figures['wall_s'] / ours['wall_s']:>8.1f} x the time, "
                      f"{figures['peak_mb'] / ours['peak_mb']:.1f} x the memory")  # fmt: skip


def write(table: Path, rows: int) -> None:
    import duckdb

    more = ", ".join(f"random() AS x{n}" for n in range(10))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'; SET threads=2; SELECT setseed(0.7)")
        connection.execute(
            f"COPY (SELECT i AS id, TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_seconds(i) AS at, "
            "['EWR', 'JFK', 'LGA'][i % 3 + 1] AS origin, 'X' || lpad((i % 9973)::VARCHAR, 4, '0') AS tail, "
            "(i * 7919 % 100001) / 100.0 AS distance, (i % 391)::INTEGER AS seats, i::DOUBLE AS departure, "
            "(i + 1 + i % 100)::DOUBLE AS arrival, i % 2 = 0 AS flag, (i % 5 = 0)::INTEGER AS late, "
            f"{more} FROM range({rows}) t(i)) TO '{table}' (FORMAT parquet, COMPRESSION zstd)"
        )


def line(name: str, command: list[str], home: str) -> dict | None:
    threads = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "2")
    settings = {**os.environ, **threads, "HOME": home, "UV_CACHE_DIR": uv_cache(), "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    if done.returncode:
        print(f"{name:20}left out: {(done.stderr.strip().splitlines() or ['no reason'])[-1][:120]}")
        return None
    figures = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{name:20}{figures['wall_s']:>8.2f} s{figures['cpu_s']:>8.2f} CPU-s   peak {figures['peak_mb']:>6.0f} MB "
        f"(of them {figures['imports_mb']:.0f} MB imports)   {figures['broken']} broken"
    )
    return figures


def uv_cache() -> str:
    done = subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def child(who: str, table: str) -> None:
    check = {
        "airflow-mlops": airflow_mlops,
        "pandera, polars": pandera,
        "dataframely": dataframely,
        "Great Expectations": great_expectations,
    }[who]()
    imports, cpu, start = peak(), time.process_time(), time.perf_counter()
    broken = check(table)
    figures = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu, "peak_mb": peak()}
    print(json.dumps({**figures, "imports_mb": imports, "broken": broken}))


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def airflow_mlops():
    sys.path.insert(0, str(ROOT))
    import duckdb
    import pyarrow.parquet as pq

    from airflow_mlops.primitives.assumptions import check_table, failed, parse_assumptions
    from airflow_mlops.spec.data.assumptions import Assumption

    Assumption.model_rebuild()

    def check(table: str) -> int:
        types = {field.name: str(field.type) for field in pq.read_schema(table)}
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone='UTC'; SET threads=2; SET memory_limit='2GB'")
            rules = parse_assumptions(RULES)
            return len(failed(check_table(connection, rules, Path(table), types, order="id", shown=["id"])))

    return check


def pandera():
    import pandera.polars as pa
    import polars as pl

    between = pa.Check.between
    schema = pa.DataFrameSchema(
        {
            "id": pa.Column(pl.Int64, nullable=False, unique=True),
            "at": pa.Column(nullable=False),
            "origin": pa.Column(str, pa.Check.isin(["EWR", "JFK", "LGA"])),
            "tail": pa.Column(str, pa.Check.str_matches(r"^X[0-9]{4}$")),
            "distance": pa.Column(float, between(0, 1000)),
            "seats": pa.Column(pl.Int32, between(0, 400)),
            "x0": pa.Column(float, between(0, 1)),
            "x1": pa.Column(float, between(0, 1)),
            "x2": pa.Column(
                float,
                pa.Check(lambda data: data.lazyframe.select(pl.col("x2").null_count() / pl.len() <= 0.1)),
                nullable=True,
            ),
        },
        checks=[
            pa.Check(lambda data: data.lazyframe.select(pl.col("arrival") > pl.col("departure"))),
            pa.Check(lambda data: data.lazyframe.select(pl.len() >= 1000)),
        ],
    )

    def check(table: str) -> int:
        try:
            schema.validate(pl.read_parquet(table), lazy=True)
        except pa.errors.SchemaErrors as errors:
            return len(errors.failure_cases)
        return 0

    return check


def dataframely():
    import dataframely as dy
    import polars as pl

    class Flights(dy.Schema):
        id = dy.Int64(nullable=False)
        at = dy.Datetime(nullable=False, time_zone="UTC", time_unit="us")
        origin = dy.String(nullable=True, check=lambda column: column.is_in(["EWR", "JFK", "LGA"]))
        tail = dy.String(nullable=True, regex=r"^X[0-9]{4}$")
        distance = dy.Float64(nullable=True, min=0, max=1000)
        seats = dy.Int32(nullable=True, min=0, max=400)
        x0 = dy.Float64(nullable=True, min=0, max=1)
        x1 = dy.Float64(nullable=True, min=0, max=1)
        x2 = dy.Float64(nullable=True)
        departure = dy.Float64(nullable=True)
        arrival = dy.Float64(nullable=True)

        @dy.rule()
        def seldom_missing(cls) -> pl.Expr:  # noqa: N805
            return pl.col("x2").is_null() | (pl.col("x2").is_null().mean() <= 0.1)

        @dy.rule()
        def lands_later(cls) -> pl.Expr:  # noqa: N805
            return pl.col("arrival") > pl.col("departure")

        @dy.rule()
        def each_once(cls) -> pl.Expr:  # noqa: N805
            return pl.col("id").is_unique()

    def check(table: str) -> int:
        rows = pl.read_parquet(table)
        _, failure = Flights.filter(rows)
        return len(failure.counts()) + (len(rows) < 1000)

    return check


def great_expectations():
    import great_expectations as gx
    import pandas as pd

    x = gx.expectations
    suite = [
        x.ExpectColumnValuesToNotBeNull(column="id"),
        x.ExpectColumnValuesToBeUnique(column="id"),
        x.ExpectColumnValuesToNotBeNull(column="at"),
        x.ExpectColumnValuesToBeInSet(column="origin", value_set=["EWR", "JFK", "LGA"]),
        x.ExpectColumnValuesToMatchRegex(column="tail", regex=r"^X[0-9]{4}$"),
        x.ExpectColumnValuesToBeBetween(column="distance", min_value=0, max_value=1000),
        x.ExpectColumnValuesToBeBetween(column="seats", min_value=0, max_value=400),
        x.ExpectColumnValuesToBeBetween(column="x0", min_value=0, max_value=1),
        x.ExpectColumnValuesToBeBetween(column="x1", min_value=0, max_value=1),
        x.ExpectColumnValuesToNotBeNull(column="x2", mostly=0.9),
        x.ExpectTableRowCountToBeBetween(min_value=1000),
        x.ExpectColumnPairValuesAToBeGreaterThanB(column_A="arrival", column_B="departure"),
    ]

    def check(table: str) -> int:
        source = gx.get_context(mode="ephemeral").data_sources.add_pandas("rows")
        batch = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
        found = batch.get_batch({"dataframe": pd.read_parquet(table)}).validate(
            gx.ExpectationSuite("flights", suite)
        )
        return sum(not result.success for result in found.results)

    return check


if __name__ == "__main__":
    main()
