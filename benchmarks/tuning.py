"""
What a tuning costs: our trials in containers against Optuna in a pool of processes, and against mapped Airflow tasks.

Every way does the same number of trials of the same length, the same number at a time, with Optuna's TPE. The first two
run in this process, without Airflow around them; ``--airflow`` starts an Airflow with its own MLflow and runs the last
two there: our task ``tune``, deferred, with everything that it does (dataset, MLflow runs, plots), and one mapped task
for each trial, which knows nothing of the others, since all are asked for at the beginning. A warm-up of one trial is
paid before the clock starts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "tests/fixtures/tuned_model"
IMAGE = "airflow-mlops-bench-tuned:1"
KEY = "tuned/tuning/study.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--airflow", action="store_true", help="also inside an Airflow, against mapped tasks")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-mlops-tuning-"))
    build_image()
    ways: dict[str, Callable[[Path, argparse.Namespace], float]] = {
        "Optuna, process pool": bare,
        "ours, containers": ours,
    }
    if given.airflow:
        ways |= {"ours, task in Airflow": ours_in_airflow, "mapped Airflow tasks": mapped_tasks}
    least: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="airflow-mlops-tuning-") as work:
        airflow = start_airflow(Path(work), given) if given.airflow else None
        try:
            for number in range(given.rounds):  # taking turns, so that a busy moment hits all of them
                for way, run in ways.items():
                    folder = Path(work, f"{number}-{run.__name__}")
                    folder.mkdir()
                    given.airflow_session = airflow
                    seconds = run(folder, given)
                    least[way] = min(seconds, least.get(way, seconds))
        finally:
            stop_airflow(airflow)
    report(least, given)


def report(least: dict[str, float], given: argparse.Namespace) -> None:
    peer = least["Optuna, process pool"]
    ideal = given.trials * given.seconds / given.parallel
    print(
        f"\n{given.trials} trials of {given.seconds:g} s, {given.parallel} at a time: at least {ideal:.1f} s\n"
    )
    print("| | seconds | of Optuna's pool | a trial |\n|---|---|---|---|")
    for way, seconds in least.items():
        extra = (seconds - ideal) * given.parallel / given.trials
        print(f"| {way} | {seconds:.1f} | {seconds / peer:.2f} | +{extra:.2f} s |")


def build_image() -> None:
    with tempfile.TemporaryDirectory(prefix="airflow-mlops-tuning-") as work:
        context = Path(work)
        shutil.copytree(MODEL, context, dirs_exist_ok=True)
        (context / "airflow_mlops").mkdir()
        shutil.copy(ROOT / "airflow_mlops/__init__.py", context / "airflow_mlops")
        shutil.copytree(ROOT / "airflow_mlops/contract", context / "airflow_mlops/contract")
        subprocess.run(
            [ROOT / "docker/base_image.sh", "airflow-mlops-base:3.11"],
            check=True,
            capture_output=True,
            env={"PYTHON": sys.executable, **os.environ},
        )
        subprocess.run(["docker", "build", "--quiet", "--tag", IMAGE, work], check=True, capture_output=True)


# Optuna alone ----------------------------------------------------------------------------------


def train(seconds: float, x: float, depth: int) -> float:
    time.sleep(seconds)
    return (x - 0.3) ** 2 + abs(depth - 2) / 10


def bare(_: Path, given: argparse.Namespace) -> float:
    import optuna
    from optuna.distributions import FloatDistribution, IntDistribution

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {"x": FloatDistribution(-1.0, 1.0), "depth": IntDistribution(1, 4)}
    with ProcessPoolExecutor(given.parallel, mp_context=get_context("forkserver")) as pool:
        list(pool.map(time.sleep, [0.1] * given.parallel))
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
        begun, running, asked = time.monotonic(), dict[Future[float], Any](), 0
        while asked < given.trials or running:
            while asked < given.trials and len(running) < given.parallel:
                trial, asked = study.ask(space), asked + 1
                running[pool.submit(train, given.seconds, **trial.params)] = trial
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                study.tell(running.pop(done), done.result())
        return time.monotonic() - begun


# Ours ------------------------------------------------------------------------------------------


def ours(folder: Path, given: argparse.Namespace) -> float:
    from airflow_mlops.jobs.tuning.loop import TuningLoop

    name = f"mlops-bench-{os.getpid()}"
    write_tuning(folder / "warm", f"{name}-warm", 1, replace_namespace(given, seconds=0.0))
    asyncio.run(TuningLoop(str(folder / "warm"), KEY).run())
    begun = time.monotonic()
    write_tuning(folder / "store", name, given.trials, given)
    tuning = asyncio.run(TuningLoop(str(folder / "store"), KEY).run())
    seconds = time.monotonic() - begun
    assert [trial.state for trial in tuning.trials] == ["complete"] * given.trials, tuning.reason
    return seconds


def replace_namespace(given: argparse.Namespace, **changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(given), **changes})


def write_tuning(store: Path, name: str, trials: int, given: argparse.Namespace) -> None:
    from airflow_mlops.hooks.store.base import json_bytes
    from airflow_mlops.hooks.store.open import open_store
    from airflow_mlops.primitives.training.search_space import Dimension
    from airflow_mlops.primitives.training.tuning import Plan, Tuning
    from airflow_mlops.runners import get_runner
    from airflow_mlops.runners.protocol import ContainerJob

    store.mkdir()
    (store / "rows.parquet").write_bytes(b"rows")
    job = ContainerJob(
        name=name,
        command="train",
        image=IMAGE,
        config={"contract": 1, "command": "train"},
        inputs={"input/data/train/0.parquet": str(store / "rows.parquet")},
        labels={"application": "bench"},
    )
    get_runner("docker").stage(replace(job, name=f"{name}-data", command="stage"))  # type: ignore[attr-defined]
    content = json.loads(json.dumps(asdict(replace(job, inputs={}, shared=f"{name}-data"))))
    plan = Plan(
        objectives=("validation.loss",),
        directions=("minimize",),
        space={"x": Dimension("float", -1.0, 1.0), "depth": Dimension("int", 1, 4, step=1)},
        fixed={"steps": 1, "pause": given.seconds, "broken": False, "journal": ""},
        trials=trials,
        parallel=given.parallel,
    )
    tuning = Tuning(name, plan, content, {"kind": "docker"}, time.time())
    open_store(str(store)).put_if_absent(KEY, json_bytes(tuning.to_dict()))


# In an Airflow ---------------------------------------------------------------------------------

MAPPED = """
import time
from airflow.sdk import dag, task

@dag(schedule=None)
def mapped():
    @task
    def ask():
        import optuna
        from optuna.distributions import FloatDistribution, IntDistribution
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        space = {{"x": FloatDistribution(-1.0, 1.0), "depth": IntDistribution(1, 4)}}
        return [study.ask(space).params for _ in range({trials})]

    @task(max_active_tis_per_dagrun={parallel})
    def train(parameters):
        time.sleep({seconds})
        return (parameters["x"] - 0.3) ** 2 + abs(parameters["depth"] - 2) / 10

    @task
    def best(losses):
        return min(losses)

    best(train.expand(parameters=ask()))

mapped()
"""
TUNED = """
import json
from pathlib import Path
from airflow.sdk import DAG
from airflow_mlops.operators.training.tune import TuneModelOperator

with DAG("tuned", schedule=None):
    TuneModelOperator(task_id="tune", **json.loads(Path({arguments!r}).read_text()))
"""


def start_airflow(work: Path, given: argparse.Namespace) -> SimpleNamespace:
    from airflow_mlops.cli.demo.client import AirflowClient
    from airflow_mlops.cli.demo.servers import airflow_server, mlflow_server

    dags = work / "dags"
    dags.mkdir()
    mlflow, uri = mlflow_server(work / "mlflow")
    mlflow.start()
    mlflow.wait(180)
    connection = {"AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": uri})}
    (dags / "mapped.py").write_text(
        MAPPED.format(trials=given.trials, seconds=given.seconds, parallel=given.parallel)
    )
    (work / "arguments.json").write_text(json.dumps(tune_arguments(work, given)))
    (dags / "tuned.py").write_text(TUNED.format(arguments=str(work / "arguments.json")))
    more = {"AIRFLOW__CORE__PARALLELISM": str(given.parallel + 4)}
    server, settings = airflow_server(work / "airflow", dags, {**connection, **more})
    server.start()
    server.wait(240)
    client = AirflowClient(settings)
    until(lambda: {"tuned", "mapped"} <= {dag["dag_id"] for dag in client.call("GET", "/dags")["dags"]})
    return SimpleNamespace(client=client, home=settings.home, servers=(server, mlflow))


def tune_arguments(work: Path, given: argparse.Namespace) -> dict[str, Any]:
    from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
    from airflow_mlops.operators.training.train import DescribeModelCodeOperator

    def context(task_id: str) -> Any:
        ti = SimpleNamespace(
            dag_id="bench", run_id="bench", task_id=task_id, map_index=-1, try_number=1, max_tries=0
        )
        return {"ti": ti}

    import duckdb

    (work / "data").mkdir()
    duckdb.sql(
        "COPY (SELECT i AS id, TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_minutes(i) AS asked_at, i % 3 AS answer "
        f"FROM range(1000) t(i)) TO '{work}/data/rows.parquet' (FORMAT parquet)"
    )
    examples = {"keys": ["id"], "timestamp": "asked_at", "targets": ["answer"], "parquet": "*.parquet"}
    dataset = ProvisionDatasetOperator(
        task_id="provision",
        application="tuned",
        store=str(work / "store"),
        examples={**examples, "folder": str(work / "data")},
        split={"by": "time", "train": 0.6, "validation": 0.2, "test": 0.2, "gap": "0s"},
    ).execute(context("provision"))
    arguments = {"application": "tuned", "store": str(work / "store"), "runner": {"kind": "docker"}}
    fixed = {"steps": 1, "pause": given.seconds}
    description = DescribeModelCodeOperator(
        task_id="describe", code={"image": IMAGE}, parameters=fixed, deferrable=False, **arguments
    ).execute(context("describe"))
    tuning = {"objective": ["validation.loss"], "direction": ["minimize"]}
    return {
        **arguments,
        "code": description["code"],
        "dataset": dataset,
        "description": description,
        "tuning": {**tuning, "trials": given.trials, "parallel": given.parallel},
        "parameters": fixed,
        "experiment": "tuned",
    }


def stop_airflow(airflow: SimpleNamespace | None) -> None:
    for server in airflow.servers if airflow else ():
        server.stop()


def ours_in_airflow(_: Path, given: argparse.Namespace) -> float:
    return run_dag(given.airflow_session, "tuned")


def mapped_tasks(_: Path, given: argparse.Namespace) -> float:
    return run_dag(given.airflow_session, "mapped")


def run_dag(airflow: SimpleNamespace, dag_id: str) -> float:
    client, home = airflow.client, airflow.home
    begun = time.monotonic()
    run_id = client.trigger(dag_id, {})
    until(lambda: client.run(dag_id, run_id)["state"] in ("success", "failed"), 1200)
    seconds = time.monotonic() - begun
    if client.run(dag_id, run_id)["state"] != "success":
        logs = sorted(Path(home, "logs", f"dag_id={dag_id}").rglob("*.log*"))
        raise SystemExit("\n".join(path.read_text(errors="replace")[-4000:] for path in logs))
    return seconds


def until(look: Callable[[], bool], seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < limit, "it did not come true in time"
        time.sleep(0.3)


if __name__ == "__main__":
    main()
