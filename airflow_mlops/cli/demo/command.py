"""The demo's command line: start, tell, stop."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from airflow_mlops.cli.demo.client import AirflowClient
from airflow_mlops.cli.demo.home import IMAGE, DemoHome, build_image, engine_answers, remove_jobs
from airflow_mlops.cli.demo.servers import AirflowSettings, airflow_server, mlflow_server
from airflow_mlops.cli.demo.story import MONTHS, Month, Story
from airflow_mlops.exceptions import MLOpsError

_STARTED = time.monotonic()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument(
        "--home", type=Path, default=Path(".demo"), help="folder of the demo (default: .demo)"
    )
    parser.add_argument("--fresh", action="store_true", help="start over: delete what an earlier demo left")
    parser.add_argument("--keep", action="store_true", help="leave the pages up at the end, until Ctrl-C")
    parser.add_argument(
        "--run-on", choices=("docker", "process"), help="default: docker when an engine answers"
    )
    parser.add_argument(
        "--through", choices=MONTHS[2:], default=MONTHS[-1], help="last month that may arrive"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=300,
        metavar="SECONDS",
        help="give up when nothing has moved for so long (default: 300)",
    )
    parser.add_argument(
        "--project", type=Path, default=Path(), help="checkout with dags/, examples/, docker/"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 when the loop has closed, 1 with one line of explanation otherwise."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    home = DemoHome(arguments.home.resolve(), arguments.project.resolve())
    if not (home.project / "dags").is_dir():
        print(
            f"{home.project} has no dags/. Cure: run this in a checkout of airflow-mlops, or say --project."
        )
        return 2
    try:
        if arguments.fresh:
            home.clear()
        months = _play(home, arguments)
    except MLOpsError as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nStopped. Run the demo again to go on where it was, or with --fresh (make demo FRESH=1) to start over."
        )
        return 130
    return 0 if any(month.decision for month in months) else 1


def _play(home: DemoHome, arguments: argparse.Namespace) -> list[Month]:
    run_on = arguments.run_on or ("docker" if engine_answers() else "process")
    why = "as asked" if arguments.run_on else f"{'a' if run_on == 'docker' else 'no'} Docker Engine answers"
    where = "in containers" if run_on == "docker" else "as processes of this machine, without isolation"
    _say(f"{why}: the model code runs {where}")
    resumed = (home.path / "airflow").exists()
    _say(f"{'resuming' if resumed else 'starting'} in {home.path}")
    home.claim()
    with _servers(home, run_on, arguments) as (airflow, mlflow_url):
        _say_where(airflow, mlflow_url)
        months = Story(AirflowClient(airflow), home, _say, arguments.patience).run(arguments.through)
        print()
        print(format_table(months))
        print()
        if arguments.keep:
            _say_where(airflow, mlflow_url)
            _say("the pages stay up until Ctrl-C")
            _wait_for_interrupt()
        _say("stopping")
    _say(
        f"stopped; everything is below {home.path}; make demo goes on, make demo FRESH=1 starts over, KEEP=1 stays up"
    )
    return months


@contextmanager
def _servers(
    home: DemoHome, run_on: str, arguments: argparse.Namespace
) -> Iterator[tuple[AirflowSettings, str]]:
    mlflow, mlflow_url = mlflow_server(home.path / "mlflow")
    airflow, settings = airflow_server(
        home.path / "airflow",
        home.path / "dags",
        {
            "AIRFLOW_CONN_MLFLOW_DEFAULT": f'{{"conn_type": "mlflow", "host": "{mlflow_url}"}}',
            "AIRFLOW_CONN_FEAST_DEFAULT": f'{{"conn_type": "feast", "extra": {{"repo_path": "{home.path}/features"}}}}',
            "FLIGHTS_HOME": str(home.path),
        },
    )
    try:
        mlflow.start()
        with _ticking(
            "preparing data, Feast repository" + (f" and image {IMAGE}" if run_on == "docker" else "")
        ):
            home.prepare(run_on)
            airflow.start()
            if run_on == "docker":
                build_image(home.project, home.path / "logs/docker_build.log")
        with _ticking("starting MLflow and Airflow (scheduler, triggerer, DAG processor, API server)"):
            mlflow.wait(arguments.patience)
            airflow.wait(arguments.patience)
        yield settings, mlflow_url
    finally:
        with ExitStack() as ending:  # each of them, whatever happens to the others
            ending.callback(remove_jobs, home)
            ending.callback(mlflow.stop, 5)
            ending.callback(airflow.stop)


@contextmanager
def _ticking(what: str) -> Iterator[None]:
    """Say what is going on, with a dot a second on a terminal."""
    print(f"[{_clock()}] {what} ", end="", flush=True)
    over = threading.Event()

    def tick() -> None:
        while not over.wait(1):
            print(".", end="", flush=True)

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        over.set()
        ticker.join()
        print(flush=True)


def _say(line: str) -> None:
    print(f"[{_clock()}] {line}", flush=True)


def _say_where(airflow: AirflowSettings, mlflow_url: str) -> None:
    _say(f"Airflow: {airflow.url}  (user {airflow.user}, password {airflow.password})")
    _say(f"MLflow:  {mlflow_url}")


def _clock() -> str:
    seconds = int(time.monotonic() - _STARTED)
    return f"{seconds // 60:02}:{seconds % 60:02}"


def _wait_for_interrupt() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print()


def format_table(months: Sequence[Month]) -> str:
    """The months as a table for people."""
    head = ("month", "rows", "drift", "test AUC", "actual AUC", "decision", "reason", "dataset", "model")
    rows = [
        (
            month.month,
            f"{month.rows:,}",
            f"{month.drifted} of {month.columns}" if month.drifted is not None else "-",
            _figure(month.test_auc),
            _figure(month.actual_auc),
            month.decision or "-",
            month.reason or "-",
            month.dataset_version[:12],
            f"v{month.model_version}",
        )
        for month in months
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        " │ ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in [head, *rows]
    ]
    return "\n".join([lines[0], "─┼─".join("─" * width for width in widths), *lines[1:]])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
