"""
What a container costs as a task: ours against ``docker run`` and the Docker provider's operator, on the same engine.

Containers that sleep show what a task adds to its container, and how long it holds a worker's slot meanwhile; those
that print show what a line of a log costs. First one after another in this process, the ways taking turns, then as
tasks of an Airflow that is started for it. At the end data goes into a container and out of it, by our runner and by
``docker cp``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).parent
sys.path[:0] = [str(ROOT), str(HERE)]

from container_copies import copies, docker  # noqa: E402 - found beside this file

IMAGE_FILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
LABEL ai.airflow-mlops.contract=1
COPY talk.sh /talk.sh
ENTRYPOINT ["sh", "/talk.sh"]
"""
#: By the contract (``train``) the words come as a parameter, else from the command line.
TALK = """\
[ "$1" != train ] || set -- $(sed -n 's/^ *"words": "\\(.*\\)".*$/\\1/p' /opt/ml/input/config/hyperparameters.json)
case "$1" in
  sleep) sleep "$2" ;;
  print) exec python3 -c 'import sys
for n in range(int(sys.argv[1])): print("line", n, "of a training: loss 0.3141, accuracy 0.9265")' "$2" ;;
esac
"""
SAID = re.compile(rb"line (\d+) of a training")
OURS = "ai.airflow-mlops."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--containers", type=int, default=20, help="of each kind (20)")
    parser.add_argument("--seconds", type=float, default=3, help="that a container sleeps (3)")
    parser.add_argument("--lines", type=int, default=50_000, help="that a container prints (50,000)")
    parser.add_argument("--megabytes", type=int, default=1000, help="into a container and out of it (1,000)")
    parser.add_argument("--slots", type=int, default=4, help="of the Airflow's workers (4)")
    parser.add_argument("--rounds", type=int, default=3, help="of the copies (3)")
    parser.add_argument("--no-airflow", action="store_true", help="only in this process")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="airflow-mlops-containers-") as folder:
        work = Path(folder)
        os.environ["AIRFLOW_HOME"] = str(work / "here")
        given.store, given.words = str(work / "store"), words(given)
        build_image(work / "image")
        print(f"Load average at the beginning: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        try:
            log = log_like_a_task(work / "task.log")  # once: loggers keep what they were made with
            for what in given.words:
                in_this_process(what, given, log)
            if not given.no_airflow:
                in_airflow(given, work)
            copies(given, work)
        finally:
            remove_containers(given.store)
        print(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}")


def words(given: argparse.Namespace) -> dict[str, list[str]]:
    return {"sleep": ["sleep", f"{given.seconds:g}"], "print": ["print", str(given.lines)]}


def title(what: str, given: argparse.Namespace) -> str:
    does = f"sleep {given.seconds:g} s" if what == "sleep" else f"print {given.lines:,} lines"
    return f"{given.containers} containers that {does}"


def build_image(context: Path) -> None:
    from container_dags import IMAGE

    context.mkdir()
    (context / "Dockerfile").write_text(IMAGE_FILE)
    (context / "talk.sh").write_text(TALK)
    base, python = "airflow-mlops-base:3.11", {"PYTHON": sys.executable, **os.environ}
    docker_base = [ROOT / "docker/base_image.sh", base]
    subprocess.run(docker_base, check=True, capture_output=True, env=python)
    docker("build", "--quiet", "--tag", IMAGE, "--build-arg", f"BASE_IMAGE={base}", str(context))


def remove_containers(store: str) -> None:
    """What a failure or an interruption left of this benchmark."""
    from container_dags import LABEL

    each = f'{{{{.ID}}}} {{{{.Label "{LABEL}"}}}} {{{{.Label "{OURS}store"}}}}'
    listed = docker("ps", "--all", "--format", each).splitlines()
    left = [line.split()[0] for line in listed if store in line]
    if left:
        docker("rm", "--force", "--volumes", *left)


# In this process -------------------------------------------------------------------------------


def in_this_process(what: str, given: argparse.Namespace, log: Path) -> None:
    from container_dags import DEFERRED, PEER, RUN, WAITING

    named: dict[str, tuple[str, Callable[..., float]]] = {
        RUN: ("docker run", plain),
        PEER: ("DockerOperator", whole),
        WAITING: ("airflow-mlops, on a worker", whole),
        DEFERRED: ("airflow-mlops, deferred", deferred),
    }
    spent: dict[str, list[float]] = defaultdict(list)
    held: dict[str, list[float]] = defaultdict(list)
    for number in range(
        given.containers + 1
    ):  # one more: imports and the like are paid before the clock starts
        for way, (_, run) in named.items():
            os.truncate(log, 0)
            begun = time.monotonic()
            held[way].append(run(way, what, number, given, log))
            spent[way].append(time.monotonic() - begun)
            if what == "print" and (found := lines_in([log])[0]) != given.lines:
                raise SystemExit(f"{way}: {found} of {given.lines} lines came")
    print(f"\n### {title(what, given)}, one after another\n")
    print("| way | a container | over docker run | of it on a worker |\n|---|---|---|---|")
    for way, (name, _) in named.items():
        mine, slot = statistics.median(spent[way][1:]), statistics.median(held[way][1:])
        over = "" if way == RUN else f"{mine - statistics.median(spent[RUN][1:]):+.2f} s"
        print(f"| {name} | {mine:.2f} s | {over} | {slot:.2f} s |", flush=True)


def log_like_a_task(path: Path) -> Path:
    """Whatever a task says goes to a file, in the form in which a worker's task process hands it on."""
    from airflow.sdk.log import configure_logging

    configure_logging(json_output=True, output=path.open("ab", buffering=0), sending_to_supervisor=True)
    return path


def plain(_: str, what: str, __: int, given: argparse.Namespace, log: Path) -> float:
    from container_dags import command_line

    begun = time.monotonic()
    with log.open("ab") as output:
        subprocess.run(command_line(given.words[what], given.store), check=True, stdout=output)
    return time.monotonic() - begun


def operator(way: str, what: str, number: int, given: argparse.Namespace) -> tuple[Any, Any]:
    from container_dags import make

    made = make(way, given.words[what], given.store, given.store, "run")
    ti = SimpleNamespace(
        dag_id=f"bench-{os.getpid()}",
        run_id=f"{what}-{way}-{number}",
        task_id="run",
        map_index=-1,
        try_number=1,
        max_tries=0,
    )
    return made, {"ti": ti}


def whole(way: str, what: str, number: int, given: argparse.Namespace, _: Path) -> float:
    made, context = operator(way, what, number, given)
    begun = time.monotonic()
    made.execute(context)
    return time.monotonic() - begun


def deferred(way: str, what: str, number: int, given: argparse.Namespace, _: Path) -> float:
    from airflow.sdk.exceptions import TaskDeferred

    async def fired(trigger: Any) -> Any:
        return await anext(aiter(trigger.run()))

    made, context = operator(way, what, number, given)
    begun = time.monotonic()
    try:
        made.execute(context)
    except TaskDeferred as waits:
        on_worker = time.monotonic() - begun
        event = asyncio.run(fired(waits.trigger))
        begun = time.monotonic()
        getattr(made, waits.method_name)(context, event.payload, **(waits.kwargs or {}))
        return on_worker + time.monotonic() - begun
    raise SystemExit("the container was over before the task could be deferred: let it sleep longer")


# In an Airflow ---------------------------------------------------------------------------------


def in_airflow(given: argparse.Namespace, work: Path) -> None:
    from container_dags import DEFERRED, NOTHING

    from airflow_mlops.cli.demo.client import AirflowClient
    from airflow_mlops.cli.demo.servers import airflow_server

    dags = work / "dags"
    dags.mkdir()
    named = tasks_in_airflow()
    for way, what in ((way, what) for way in named for what in given.words):
        text = f"from container_dags import build_dag\n\ndag = build_dag({way!r}, {what!r})  # airflow DAG\n"
        (dags / f"{way}__{what}.py").write_text(text)
    settings = {"containers": given.containers, "words": given.words, "store": given.store}
    more = {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE))),
        "AIRFLOW_MLOPS_BENCH": json.dumps(settings),
        "AIRFLOW__CORE__PARALLELISM": str(given.slots),
    }
    server, airflow = airflow_server(work / "airflow", dags, more)
    try:
        server.start()
        server.wait(300)
        client = AirflowClient(airflow)
        until(lambda: len(client.call("GET", "/dags", limit=100)["dags"]) == len(named) * len(given.words))
        with lives(work / "events", given.store) as container_lives:
            # First tasks wait for what Airflow, its triggerer and the disk only do once.
            for way in (NOTHING, DEFERRED):
                run_dag(client, f"{way}__sleep", airflow.home, container_lives)
            for what in given.words:
                print(f"\n### {title(what, given)}, tasks of an Airflow with {given.slots} worker slots\n")
                print(
                    "| way | all of them | a task | on a worker | while its container ran | lines in the log |"
                )
                print("|---|---|---|---|---|---|")
                for way, name in named.items():
                    print(
                        f"| {name} | {run_dag(client, f'{way}__{what}', airflow.home, container_lives)} |",
                        flush=True,
                    )
    finally:
        server.stop()


def tasks_in_airflow() -> dict[str, str]:
    from container_dags import DEFERRED, NOTHING, PEER, RUN, WAITING

    return {
        NOTHING: "a task that does nothing",
        RUN: "docker run, in a BashOperator",
        PEER: "DockerOperator",
        WAITING: "airflow-mlops, on a worker",
        DEFERRED: "airflow-mlops, deferred",
    }


def run_dag(client: Any, dag_id: str, home: Path, container_lives: Callable[[], dict]) -> str:
    """Start a run, wait for its end, and tell what Airflow wrote down of its tasks."""
    from airflow_mlops.cli.demo.servers import tail
    from airflow_mlops.exceptions import MLOpsError

    run_id = client.trigger(dag_id, {})
    run: dict[str, Any] = {}

    def over() -> bool:
        with contextlib.suppress(
            MLOpsError
        ):  # a busy API server answers late; the figures are not taken from here
            run.update(client.run(dag_id, run_id))
        return run.get("state") in ("success", "failed")

    until(over, 1800)
    if run["state"] != "success":
        logs = sorted((home / "logs" / f"dag_id={dag_id}").rglob("*.log"))
        last = tail(logs[-1]) if logs else tail(home / "standalone.log")
        raise SystemExit(f"{dag_id}: {client.tasks(dag_id, run_id)}\n{last}")
    took = moment(run["end_date"]) - moment(run["queued_at"])
    ran, slots, waited = [], [], []
    lived = container_lives()
    for task_id, events in history(client, dag_id, run_id).items():
        held = [(one[0], two[0]) for one, two in itertools.pairwise(events) if one[1] == "running"]
        ran.append(events[-1][0] - events[0][0])
        slots.append(sum(end - begin for begin, end in held))
        life = lived.get(f"{dag_id}/{task_id}", (0.0, 0.0))
        waited.append(sum(max(0.0, min(end, life[1]) - max(begin, life[0])) for begin, end in held))
    folder = home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}"
    found = [lines_in(list(task.rglob("*.log*"))) for task in folder.iterdir()]
    lines, twice = (sum(each) for each in zip(*found, strict=True))
    mean = statistics.mean
    return (
        f"{took:.1f} s | {mean(ran):.2f} s | {mean(slots):.2f} s | {mean(waited):.2f} s | {lines:,}"
        f"{f' and {twice:,} again' if twice else ''}"
    )


def lines_in(logs: list[Path]) -> tuple[int, int]:
    """How many of a container's lines are there, and how many of them more than once (Airflow shows those once)."""
    found = [line for log in logs for line in SAID.findall(log.read_bytes())]
    return len(set(found)), len(found) - len(set(found))


def history(client: Any, dag_id: str, run_id: str) -> dict[str, list[tuple[float, str]]]:
    """Task → when it came into which state, from Airflow's audit log."""
    events: list[dict[str, Any]] = []
    total = 1
    while len(events) < total:
        page = client.call("GET", "/eventLogs", dag_id=dag_id, run_id=run_id, limit=100, offset=len(events))
        events, total = events + page["event_logs"], page["total_entries"]
    tasks = defaultdict(list)
    for event in events:
        if event["task_id"] and event["event"] in ("running", "deferred", "success"):
            tasks[event["task_id"]].append((moment(event["when"]), event["event"]))
    return {task_id: sorted(each) for task_id, each in tasks.items()}


def moment(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


@contextlib.contextmanager
def lives(path: Path, store: str) -> Iterator[Callable[[], dict[str, tuple[float, float]]]]:
    """Listen to the engine, for when which task's container began and ended."""
    from container_dags import LABEL

    def found() -> dict[str, tuple[float, float]]:
        moments: dict[str, dict[str, float]] = defaultdict(dict)
        for line in path.read_text().splitlines():
            event = json.loads(line)
            labels = event["Actor"]["Attributes"]
            if labels.get(LABEL, "").startswith(f"{store}/"):
                moments[labels[LABEL].removeprefix(f"{store}/")][event["Action"]] = event["timeNano"] / 1e9
            elif labels.get(f"{OURS}store") == store:
                name = f"{labels[f'{OURS}dag_id']}/{labels[f'{OURS}task_id']}"
                moments[name][event["Action"]] = event["timeNano"] / 1e9
        return {name: (each["start"], each["die"]) for name, each in moments.items() if len(each) == 2}

    filters = ["--filter", "event=start", "--filter", "event=die"]
    with path.open("wb") as file:
        listener = subprocess.Popen(["docker", "events", "--format", "{{json .}}", *filters], stdout=file)
    try:
        yield found
    finally:
        listener.terminate()
        listener.wait()


def until(look: Callable[[], bool], seconds: float = 180) -> None:
    limit = time.monotonic() + seconds
    while not look():
        if time.monotonic() > limit:
            raise SystemExit("it did not come true in time")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
