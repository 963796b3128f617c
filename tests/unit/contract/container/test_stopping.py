from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fixtures.deadlines import DEADLINE, SOON

ROOT = Path(__file__).parents[4]
TINY = Path(__file__).parents[1] / "tiny.py"

# A call into C that comes back to Python's signal handlers only after minutes, but lets threads run.
# One of them says so once the main thread has worked in there for a while.
STUCK = """
import hashlib, sys, threading, time
sys.path.insert(0, {tests!r})
import tiny
def tell(clock, began):
    while time.clock_gettime(clock) < began + 0.1: time.sleep(0.01)
    print("hanging", flush=True)
class Stuck(tiny.Tiny):
    def train(self, job):
        job.log_metric("loss", 0.5, step=1)
        clock = time.pthread_getcpuclockid(threading.get_ident())
        threading.Thread(target=tell, args=(clock, time.clock_gettime(clock)), daemon=True).start()
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 1_000_000_000)
tiny.main(Stuck)
"""


def start(arguments, root, **environment):
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLOPS_ROOT": str(root), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if "hanging" in line:
            return process
    pytest.fail(f"it ended at once: {process.communicate()[1]}")


def stop(process):
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=DEADLINE)
    return process.returncode, time.monotonic() - began, errors


def test_sigterm_writes_a_checkpoint_and_ends_with_143(prepare):
    paths = prepare({"fail": "hang"})
    code, seconds, errors = stop(start([str(TINY), "train"], paths.root))
    assert code == 143
    assert seconds < SOON
    assert (paths.checkpoints / "state.json").exists()
    assert paths.failure.read_text() == "Stopped by SIGTERM during `train`.\n"
    assert "Traceback" not in errors


def test_code_that_never_returns_to_python_is_stopped_in_time_too(prepare):
    paths = prepare()
    source = STUCK.format(tests=str(TINY.parent))
    code, seconds, _ = stop(start(["-c", source, "train"], paths.root))
    assert code == 143
    assert 1 < seconds < SOON, "the helper thread waits for the main thread first"
    assert (paths.checkpoints / "state.json").exists()
    assert '"loss"' in paths.metrics.read_text()


def test_a_checkpoint_that_hangs_does_not_hold_the_job(prepare):
    paths = prepare({"fail": "hang"})
    source = (
        f"import sys, threading; sys.path.insert(0, {str(TINY.parent)!r}); import tiny\n"
        "tiny.Tiny.checkpoint = lambda *_: threading.Event().wait()\n"
        "tiny.main(tiny.Tiny)"
    )
    code, seconds, _ = stop(start(["-c", source, "train"], paths.root))
    assert code == 143
    assert seconds < SOON
    assert paths.failure.exists()
