"""Data into a container and out of it: our runner against ``docker cp``."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path


def copies(given: argparse.Namespace, work: Path) -> None:
    """The whole of our submit and collect against the bare copies."""
    source = work / "data"
    source.mkdir()
    for number in range(4):
        with (source / f"{number}.parquet").open("wb") as file:
            for _ in range(given.megabytes // 4):
                file.write(os.urandom(1_000_000))
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number in range(given.rounds):
        for way, copy in {"docker cp": by_hand, "airflow-mlops": by_runner}.items():
            with tempfile.TemporaryDirectory(dir=work) as target:
                os.sync()
                times[way].append(copy(source, Path(target), number, given))
                check_copy(source, Path(target))
    size = given.megabytes // 4 * 4
    print(f"\n### {size:,} MB into a container and out of it\n")
    print("| way | in | of docker cp's speed | out | of docker cp's speed |\n|---|---|---|---|---|")
    peer = [statistics.median(each) for each in zip(*times["docker cp"], strict=True)]
    for way, found in times.items():
        cells = []
        for mine, other in zip(map(statistics.median, zip(*found, strict=True)), peer, strict=True):
            cells += [f"{mine:.2f} s, {size / mine:,.0f} MB/s", f"{other / mine:.2f}x"]
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


def check_copy(source: Path, target: Path) -> None:
    for file in source.iterdir():
        came = next(target.rglob(file.name))
        if came.stat().st_size != file.stat().st_size:
            raise SystemExit(f"{came} is not {file}")


def by_hand(source: Path, target: Path, _: int, given: argparse.Namespace) -> tuple[float, float]:
    from container_dags import IMAGE, LABEL

    name = docker("create", "--network", "none", "--label", f"{LABEL}={given.store}", IMAGE, "sleep", "0")
    begun = time.monotonic()
    docker("cp", str(source), f"{name}:/opt/train")
    between = time.monotonic()
    docker("cp", f"{name}:/opt/train", str(target))
    end = time.monotonic()
    docker("rm", "--force", "--volumes", name)
    return between - begun, end - between


def by_runner(source: Path, target: Path, number: int, given: argparse.Namespace) -> tuple[float, float]:
    from container_dags import IMAGE

    from airflow_mlops.runners import get_runner
    from airflow_mlops.runners.protocol import ContainerJob

    runner, name = get_runner("docker"), f"mlops-bench-{os.getpid()}-{number}"
    job = ContainerJob(
        name=name,
        command="train",
        image=IMAGE,
        config={"contract": 1, "command": "train", "parameters": {"words": "sleep 0"}},
        inputs={"input/data/train": str(source)},
        labels={"application": "bench", "store": given.store},
    )
    begun = time.monotonic()
    runner.submit(job)
    between = time.monotonic()
    runner.collect(name, ("input/data/train",), target)
    end = time.monotonic()
    runner.cleanup(name)
    return between - begun, end - between


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"docker {' '.join(words)}: {done.stderr}")
    return done.stdout.strip()
