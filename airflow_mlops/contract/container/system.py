"""How busy the machine is while the model code works: CPU, memory and GPUs, as lines of progress."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.contract.protocol.progress import SYSTEM, report_progress

if TYPE_CHECKING:
    from collections.abc import Iterator

# The first figures come soon, so that a short job has some as well.
_FIRST = 1.0
_GPU_QUERY = ("utilization.gpu", "memory.used", "memory.total", "power.draw")
_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
_MEGABYTE = 1_000_000


class SystemMetrics:
    """Measures this process and those that it started; names are those of MLflow's own system metrics."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._tick = os.sysconf("SC_CLK_TCK")
        self._cores = cores()
        self._limit = memory_limit()
        self._smi = shutil.which("nvidia-smi")
        self._before = (time.monotonic(), self._used()[0])

    def sample(self) -> dict[str, float]:
        """Figures since the last sample: percentages from 0 to 100, memory in megabytes."""
        now, (seconds, memory) = time.monotonic(), self._used()
        (then, before), self._before = self._before, (now, seconds)
        share = max(0.0, seconds - before) / max(1e-9, (now - then) * self._cores)
        found = {
            "cpu_utilization_percentage": min(100.0, 100 * share),
            "system_memory_usage_megabytes": memory / _MEGABYTE,
            "system_memory_usage_percentage": min(100.0, 100 * memory / self._limit),
            **self._gpus(),
        }
        return {f"{SYSTEM}{name}": round(value, 2) for name, value in found.items()}

    def _used(self) -> tuple[float, float]:
        """CPU seconds and bytes of memory of this process and all below it."""
        processes = dict(_processes())
        ticks, pages = 0, 0
        for number, (parent, own_ticks, own_pages) in processes.items():
            while number != self._owner and parent in processes:
                number, parent = parent, processes[parent][0]  # noqa: PLW2901
            if number == self._owner:
                ticks, pages = ticks + own_ticks, pages + own_pages
        return ticks / self._tick, float(pages * self._page)

    def _gpus(self) -> dict[str, float]:
        if not self._smi:
            return {}
        command = [self._smi, f"--query-gpu={','.join(_GPU_QUERY)}", "--format=csv,noheader,nounits"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        except (OSError, subprocess.SubprocessError):
            return {}
        found: dict[str, float] = {}
        for number, line in enumerate(answer.stdout.splitlines()):
            # A figure that a card does not know is "[N/A]".
            values = dict(zip(_GPU_QUERY, map(_number, line.split(",")), strict=False))
            used, total = values.get("memory.used"), values.get("memory.total")
            figures = {
                "utilization_percentage": values.get("utilization.gpu"),
                "memory_usage_megabytes": None if used is None else used * 1024**2 / _MEGABYTE,
                "memory_usage_percentage": 100 * used / total if used is not None and total else None,
                "power_usage_watts": values.get("power.draw"),
            }
            found |= {f"gpu_{number}_{name}": value for name, value in figures.items() if value is not None}
        return found


@contextlib.contextmanager
def system_metrics(every: float) -> Iterator[None]:
    """Print figures every so many seconds while the block runs, and once at its end.

    :param every: seconds; 0 for never.
    """
    if not every or not _PROC.is_dir():
        yield
        return
    metrics, over = SystemMetrics(), threading.Event()

    def watch() -> None:
        step, pause = 0, min(_FIRST, every)
        while not over.wait(pause):
            report_progress(metrics.sample(), step=step)
            step, pause = step + 1, every
        report_progress(metrics.sample(), step=step)

    thread = threading.Thread(target=watch, name="system-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=1)


def cores() -> float:
    """CPU cores that the job may use."""
    available = float(len(os.sched_getaffinity(0)))
    words = _words("cpu.max") or [_first("cpu/cpu.cfs_quota_us"), _first("cpu/cpu.cfs_period_us")]
    quota, period = (_number(word) for word in (*words, "", "")[:2])
    return min(available, quota / period) if quota and period and quota > 0 else available


def memory_limit() -> float:
    """Bytes of memory that the job may use."""
    whole = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = _number(_first("memory.max") or _first("memory/memory.limit_in_bytes"))
    return min(whole, limit) if limit else whole


def _processes() -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Number of each process, and its parent, ticks of CPU (those of ended children too) and pages of memory."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            # A process may end between the two looks.
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                yield int(entry.name), (int(fields[1]), sum(map(int, fields[11:15])), int(fields[21]))


def _first(name: str) -> str:
    return next(iter(_words(name)), "")


def _words(name: str) -> list[str]:
    try:
        return (_CGROUP / name).read_text().split()
    except OSError:
        return []


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
