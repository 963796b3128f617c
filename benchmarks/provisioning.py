"""
What a dataset costs: the point-in-time join against its peers, an increment, and the flights of 2013 as a whole.

First the join alone, Parquet to Parquet, over made-up examples and feature rows, by our offline store, by Feast's
own, by DuckDB as a person would write it, and by Polars. Then one day of examples against all ninety. Then the join of
six feature views over the flights of 2013, and the whole operator (examples, join, assumptions, split, digests,
publication). Every figure comes from a fresh process; the rows that come out are compared, not only counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from join_data import DAYS, FEATURES, START, Size, make  # noqa: E402 - found beside this file

from examples.flight_delay import flights  # noqa: E402 - found beside this folder

YAML = ROOT / "dags" / "applications" / "flight_delay.yaml"
OURS, FEAST = "airflow_mlops.AsofOfflineStore", "duckdb"

SMALL = Size(100_000, (1_000_000,), 10_000)
MEDIUM = Size(1_000_000, (2_000_000, 5_000_000, 3_000_000), 100_000)
LARGE = Size(10_000_000, (20_000_000,), 1_000_000)
#: Sizes → joins, months of the operator, months of the flights' join against Feast's.
SIZES = {
    "small": ([SMALL], 2, 1),
    "medium": ([SMALL, MEDIUM], 12, 1),
    "large": ([SMALL, MEDIUM, LARGE], 12, 12),
}
PARTS = ("join", "increment", "dataset", "flights", "operator")
US = "airflow-mlops"
BY_HAND = "DuckDB by hand, ties decided"
LOOSE = "DuckDB by hand, ties left to chance"
CREATED = "airflow-mlops, created times filter"
#: Way → the most examples that it is given, with and without a time to live.
WAYS = {
    US: (10**9, 10**9),
    CREATED: (10**9, 10**9),
    BY_HAND: (10**9, 10**9),
    LOOSE: (10**9, 10**9),
    "Polars join_asof": (10**9, 10**9),
    "Feast duckdb": (10**7, 10**6),  # without a time to live it builds every pair of an example and a row
    "Feast dask": (10**5, 10**5),  # it loads every view whole, by pandas
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--size", choices=SIZES, default="small", help="how much is joined (small)")
    parser.add_argument("--parts", nargs="+", choices=PARTS)
    parser.add_argument("--limit", type=float, default=600, help="seconds that one run may take (600)")
    parser.add_argument("--memory", type=float, default=16, help="GB that one run may take (16)")
    parser.add_argument("--rounds", type=int, default=3, help="of the whole dataset; the least counts (3)")
    parser.add_argument("--folder", type=Path, help="keep the made-up rows here, for the next time")
    parser.add_argument("--months", type=int, help="of the year, for the operator")
    parser.add_argument("--peer-months", type=int, help="of the year, for the flights' join")
    given = parser.parse_args()
    sizes, months, peer_months = SIZES[given.size]
    parts = given.parts or PARTS
    with tempfile.TemporaryDirectory(prefix="airflow-mlops-provisioning-") as work:
        home = given.folder or Path(work)
        bounds = given.limit, given.memory
        if "join" in parts:
            for size in sizes:
                _joins(size, home / "join" / size.name.replace(" ", ""), bounds)
        if "increment" in parts:
            size = SMALL if given.size == "small" else MEDIUM
            _increment(size, home / "daily" / size.name.replace(" ", ""), bounds)
        if "dataset" in parts:
            size = SMALL if given.size == "small" else MEDIUM
            _dataset(size, home / "join" / size.name.replace(" ", ""), given.rounds)
        if "flights" in parts or "operator" in parts:
            _flights(Path(work) / "flights", parts, given.months or months, given.peer_months or peer_months)


def _joins(size: Size, folder: Path, bounds: tuple[float, float]) -> None:
    make(size, folder)
    for ttl in (True, False):
        print(f"\n### {size.name}, {'time to live of hours and days' if ttl else 'no time to live'}\n")
        print("| way | time | to ours | CPU | peak memory | of it imports | rows | result |")
        print("|---|---|---|---|---|---|---|---|")
        mine: dict = {}
        for way, caps in WAYS.items():
            if size.examples > caps[0 if ttl else 1]:
                print(f"| {way} | not run above {caps[0 if ttl else 1]:,} examples | | | | | | |")
                continue
            output = folder / f"{list(WAYS).index(way)}.parquet"
            figures = _engine(
                way, folder, size, ttl, f"SELECT * FROM '{folder}/examples.parquet'", output, bounds
            )
            if "failed" in figures:
                print(f"| {way} | {figures['failed']} | | | | | | |", flush=True)
                continue
            if way == US:
                mine = {**figures, "output": output}
            result = _compare(mine["output"], output, size) if way not in (US, CREATED) else ""
            print(f"| {way} | {_figures(figures, mine)} | {figures['rows']:,} | {result} |", flush=True)
        for output in folder.glob("*.parquet"):
            if output.name != "examples.parquet":
                output.unlink()


def _figures(figures: dict, mine: dict) -> str:
    return (
        f"{figures['wall_s']:.2f} s | {figures['wall_s'] / mine['wall_s']:.2f}x | {figures['cpu_s']:.1f} s | "
        f"{figures['peak_mb']:,.0f} MB | {figures['imports_mb']:,.0f} MB"
    )


def _compare(ours: Path, theirs: Path, size: Size) -> str:
    """How many examples have other features, or none at all."""
    import duckdb

    names = [f"f{view}_{n}" for view in range(len(size.views)) for n in range(FEATURES)]
    same = " AND ".join(f"a.{name}::VARCHAR IS NOT DISTINCT FROM b.{name}::VARCHAR" for name in names)
    casts = ", ".join(f"{name}::DOUBLE AS {name}" if not name.endswith("_3") else name for name in names)
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit='4GB'; SET preserve_insertion_order=false")
        connection.execute(f"SET temp_directory='{theirs.parent}/spill-compare'")
        digest = f"SELECT count(*), sum(hash(n::BIGINT, {', '.join(names)})::HUGEINT) FROM (SELECT n, {casts} FROM "
        found = [connection.execute(f"{digest}'{path}')").fetchone() for path in (ours, theirs)]
        if found[0] == found[1]:
            return "the same"
        lost, differ = connection.execute(
            f"SELECT count(*) FILTER (b.n IS NULL), count(*) FILTER (b.n IS NOT NULL AND NOT ({same})) "
            f"FROM (SELECT n, {casts} FROM '{ours}') a LEFT JOIN (SELECT n::BIGINT AS n, {casts} FROM '{theirs}') b USING (n)"
        ).fetchone()
    return f"{lost:,} examples lost, {differ:,} differ"


def _increment(size: Size, folder: Path, bounds: tuple[float, float]) -> None:
    make(size, folder, daily=True)
    day = START + (DAYS - 1) * 86_400_000_000
    everything = f"SELECT * FROM '{folder}/examples.parquet'"
    last = f"{everything} WHERE event_timestamp >= make_timestamptz({day})"
    print(f"\n### One day of {DAYS}, published by the day: {size.name}, time to live of hours and days\n")
    print("| examples | time | CPU | rows |\n|---|---|---|---|")
    figures = {
        name: _engine(US, folder, size, True, query, folder / "out.parquet", bounds)
        for name, query in (("all days", everything), ("the last day", last))
    }
    for name, found in figures.items():
        if "failed" in found:
            print(f"| {name} | {found['failed']} | | |")
            return
        print(f"| {name} | {found['wall_s']:.2f} s | {found['cpu_s']:.2f} s | {found['rows']:,} |")
    whole, one = figures.values()
    print(f"\nThe day costs {one['wall_s'] / whole['wall_s']:.3f}x of the whole.")


def _dataset(size: Size, folder: Path, rounds: int) -> None:
    """The whole task over made-up rows, and what of it is not the join."""
    make(size, folder)
    _made_up("prepare", size, folder)
    print(f"\n### The whole dataset: {size.name}, time to live of hours and days\n")
    joins, wholes = [], []
    for _ in range(rounds):
        joins.append(_made_up("join", size, folder))
        shutil.rmtree(folder / "store", ignore_errors=True)
        wholes.append(_made_up("provision", size, folder))
    join, whole = (min(found, key=lambda one: one["wall_s"]) for found in (joins, wholes))
    _line("the join", join)
    _line("the whole task", whole)
    print(f"\nAll but the join adds {whole['wall_s'] / join['wall_s'] - 1:.0%} to the join.")


def _made_up(what: str, size: Size, folder: Path) -> dict:
    connection = {"conn_type": "feast", "extra": {"repo_path": str(folder)}}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("made_up_dataset.py"), what, folder, str(len(size.views))],
        env={**_quiet(folder), "AIRFLOW_CONN_FEAST_DEFAULT": json.dumps(connection)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {} if what == "prepare" else json.loads(done.stdout.splitlines()[-1])


def _engine(
    way: str, folder: Path, size: Size, ttl: bool, examples: str, output: Path, bounds: tuple[float, float]
) -> dict:
    """Run one way in a process of its own, within time and memory."""
    command = [sys.executable, str(Path(__file__).with_name("join_engines.py")), way, str(folder)]
    command += [str(len(size.views)), "ttl" if ttl else "none", examples, str(output)]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as wrong:
        process = subprocess.Popen(command, stdout=said, stderr=wrong, env=_quiet(folder))
        begin = time.monotonic()
        while process.poll() is None:
            time.sleep(0.1)
            reason = _out_of_bounds(process.pid, time.monotonic() - begin, bounds)
            if reason:
                process.kill()
                process.wait()
                return {"failed": reason}
        if process.returncode:
            wrong.seek(0)
            lines = wrong.read().strip().splitlines() or [f"exit {process.returncode}"]
            full = next((line for line in lines if "OutOfMemory" in line), None)
            return {"failed": "out of its memory limit" if full else lines[-1][:150]}
        said.seek(0)
        figures = json.loads(said.read().splitlines()[-1])
    return {"failed": f"{figures['missing']} is not installed: left out"} if "missing" in figures else figures


def _out_of_bounds(pid: int, seconds: float, bounds: tuple[float, float]) -> str:
    if seconds > bounds[0]:
        return f"stopped after {bounds[0]:.0f} s"
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""
    used = next(
        (int(line.split()[1]) / 1024**2 for line in status.splitlines() if line.startswith("VmRSS")), 0
    )
    return f"stopped at {bounds[1]:.0f} GB of memory" if used > bounds[1] else ""


def _quiet(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
    }


def _flights(home: Path, parts: tuple[str, ...], months: int, peer_months: int) -> None:
    home.mkdir(parents=True)
    for month in flights.MONTHS[: max(months, peer_months)]:
        flights.land_schedule(home / "data", month)
        flights.land_labels(home / "data", month)
    _apply(flights.install_features(home))
    if "flights" in parts:
        _flights_join(home, peer_months)
        if peer_months != months:
            print(f"\n### Flights of 2013, {months} month(s), six feature views: the join\n")
            _line("airflow-mlops", _child("join", home, str(months)))
    if "operator" in parts:
        print(f"\n### Flights of 2013, {months} month(s), six feature views: the whole operator\n")
        whole = _child("provision", home)
        _line("first time", whole)
        _line("the same again", _child("provision", home))
        join = _child("join", home, str(months))
        print(
            f"\nAll but the join adds {whole['wall_s'] / join['wall_s'] - 1:.0%} to the join ({join['wall_s']:.2f} s)."
        )


def _flights_join(home: Path, months: int) -> None:
    peer = home / "peer"
    peer.mkdir()
    (peer / "data").symlink_to(home / "data")
    repository = flights.install_features(peer)
    settings = repository / "feature_store.yaml"
    settings.write_text(settings.read_text().replace(OURS, FEAST))
    _apply(repository)
    print(f"\n### Flights of 2013, {months} month(s), six feature views: the join\n")
    joins = {
        name: _child("join", at, str(months))
        for name, at in (("airflow-mlops", home), ("Feast duckdb", peer))
    }
    for name, figures in joins.items():
        _line(name, figures)
    ours, theirs = joins.values()
    print(f"\nOurs takes {ours['wall_s'] / theirs['wall_s']:.3f}x of Feast's time.")


def _line(name: str, figures: dict) -> None:
    print(
        f"- {name}: {figures['rows']:,} rows, {figures['wall_s']:.2f} s, {figures['cpu_s']:.2f} CPU-s, "
        f"peak {figures['peak_mb']:,.0f} MB (of them {figures['imports_mb']:,.0f} MB imports)",
        flush=True,
    )


def _apply(repository: Path) -> None:
    feast = Path(sys.executable).with_name("feast")
    done = subprocess.run([feast, "-c", repository, "apply"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def _child(what: str, home: Path, *words: str) -> dict:
    connection = {"conn_type": "feast", "extra": {"repo_path": str(home / "features")}}
    done = subprocess.run(
        [sys.executable, __file__, "--child", what, str(home), *words],
        env={**_quiet(home), "AIRFLOW_CONN_FEAST_DEFAULT": json.dumps(connection)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _run_child(what: str, home: Path, months: str = "0") -> dict:
    from airflow_mlops.hooks.feast.hook import FeastHook

    FeastHook().service("flight_delay_v1")  # Feast's imports are the same for both and not what is measured
    run = _provision(home) if what == "provision" else _join(home, int(months))
    before, imports = (time.perf_counter(), time.process_time()), _peak_mb()
    rows = run()
    return {
        "rows": rows,
        "wall_s": time.perf_counter() - before[0],
        "cpu_s": time.process_time() - before[1],
        "peak_mb": _peak_mb(),
        "imports_mb": imports,
    }


def _provision(home: Path):
    """The provisioning task of the shipped YAML, with a store and a folder of our own."""
    from airflow_mlops.factories import build_dags
    from airflow_mlops.spec import load_application

    applications = home / "applications"
    applications.mkdir(exist_ok=True)
    (applications / YAML.name).write_text(YAML.read_text())
    (applications / "defaults.yaml").write_text(
        f"store: {home / 'store'}\nprovisioning: {{examples: {{folder: {home / 'data'}}}}}\n"
    )
    dag = build_dags(load_application(applications / YAML.name))["flight_delay__provisioning"]
    task = dag.get_task("provision")
    for name in task.template_fields:  # what the form that starts the DAG would fill in, as it stands
        if "params." in str(getattr(task, name)):
            setattr(task, name, task.render_template(getattr(task, name), {"params": dag.params.dump()}))
    return lambda: task.execute({})["rows"]


def _join(home: Path, months: int):
    from airflow_mlops.hooks.feast.hook import FeastHook

    files = [str(home / "data" / "examples" / f"{month}.parquet") for month in flights.MONTHS[:months]]
    sql = f"SELECT flight_id, event_timestamp, origin, dest, carrier, tailnum FROM read_parquet({files})"
    return lambda: FeastHook().training_set("flight_delay_v1", sql, home / "joined.parquet").rows


def _peak_mb() -> float:
    # Not getrusage: a child begins with the peak of the process that started it.
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        figures = _run_child(sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
        print(json.dumps(figures))
    else:
        main()
