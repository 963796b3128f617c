"""
What a dataset costs: the flights of 2013 through the provisioning of the shipped YAML, and the join against Feast's.

First the whole operator (examples, join of six feature views, assumptions, split, digests, publication) over the year.
Then the join alone over a shorter time, once by our offline store and once by Feast's own DuckDB store, because that
one needs minutes for the year. Every figure comes from a fresh process with two threads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from examples.flight_delay import flights  # noqa: E402 - found beside this folder

YAML = ROOT / "dags" / "applications" / "flight_delay.yaml"
OURS, FEAST = "airflow_mlops.hooks.feast_asof.AsofOfflineStore", "duckdb"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--months", type=int, default=12, help="of the year, for the whole operator")
    parser.add_argument(
        "--peer-months", type=int, default=1, help="of the year, for the join against Feast's"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="airflow-mlops-provisioning-") as work:
        home = Path(work)
        for month in flights.MONTHS[: given.months]:
            flights.land_schedule(home / "data", month)
            flights.land_labels(home / "data", month)
        peer = home / "peer"
        _apply(flights.install_features(home))
        peer.mkdir()
        (peer / "data").symlink_to(home / "data")
        repository = flights.install_features(peer)
        settings = repository / "feature_store.yaml"
        settings.write_text(settings.read_text().replace(OURS, FEAST))
        _apply(repository)

        print(f"the provisioning of {given.months} month(s), six feature views")
        _line("first time", _child("provision", home))
        _line("the same again", _child("provision", home))
        print(f"\nthe join of {given.peer_months} month(s) of examples")
        joins = {
            name: _child("join", at, str(given.peer_months))
            for name, at in (("airflow-mlops", home), ("Feast duckdb", peer))
        }
        for name, figures in joins.items():
            _line(name, figures)
        ours, theirs = joins.values()
        print(
            f"ratio, Feast to ours: time {theirs['wall_s'] / ours['wall_s']:.1f}, "
            f"CPU {theirs['cpu_s'] / ours['cpu_s']:.1f}, peak {theirs['peak_mb'] / ours['peak_mb']:.1f}; "
            f"rows {theirs['rows']} to {ours['rows']}"
        )


def _line(name: str, figures: dict) -> None:
    print(
        f"  {name:16}{figures['rows']:>9} rows{figures['wall_s']:>8.2f} s{figures['cpu_s']:>8.2f} CPU-s"
        f"   peak {figures['peak_mb']:>6.0f} MB (of them {figures['imports_mb']:.0f} MB imports)"
    )


def _apply(repository: Path) -> None:
    feast = Path(sys.executable).with_name("feast")
    done = subprocess.run([feast, "-c", repository, "apply"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def _child(what: str, home: Path, *words: str) -> dict:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "AIRFLOW_CONN_FEAST_DEFAULT": json.dumps(
            {"conn_type": "feast", "extra": {"repo_path": str(home / "features")}}
        ),
    }
    done = subprocess.run(
        [sys.executable, __file__, "--child", what, str(home), *words],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _run_child(what: str, home: Path, months: str = "0") -> dict:
    from airflow_mlops.hooks.feast import FeastHook

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
    return lambda: task.execute({})["rows"]


def _join(home: Path, months: int):
    from airflow_mlops.hooks.feast import FeastHook

    files = [str(home / "data" / "examples" / f"{month}.parquet") for month in flights.MONTHS[:months]]
    sql = f"SELECT flight_id, event_timestamp, origin, dest, carrier, tailnum FROM read_parquet({files})"
    return lambda: FeastHook().training_set("flight_delay_v1", sql, home / "joined.parquet").rows


def _peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        figures = _run_child(sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
        print(json.dumps(figures))
    else:
        main()
