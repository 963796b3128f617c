"""SIGTERM: let the model code save a checkpoint, and be gone within four seconds."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_mlops.contract.protocol.failures import StopRequested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

# An engine's stop is SIGTERM, four seconds, SIGKILL: the main thread gets the first part of them,
# then a helper thread does its work, since a long call into C code keeps Python's handlers waiting.
_MAIN_THREAD_SECONDS = 1.5
_ALL_SECONDS = 3.5


@contextmanager
def stop_on_sigterm(finish: Callable[[], None]) -> Iterator[None]:
    """Raise :class:`StopRequested` in the main thread on SIGTERM, and make sure that it ends in time.

    :param finish: writes what is worth keeping. It runs once: in the main thread by way of the
        exception, or in a helper thread when the main thread does not come out of its C code.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, finished = os.getpid(), _Once(finish)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def on_sigterm(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked child is not the job: let it die as any process
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        signal.signal(number, signal.SIG_IGN)
        raise StopRequested

    before = signal.signal(signal.SIGTERM, on_sigterm)
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, finished), daemon=True, name="stop").start()
    try:
        yield
    except StopRequested:
        finished.run()
        raise
    finally:
        signal.set_wakeup_fd(wakeup_before)
        signal.signal(signal.SIGTERM, before)
        os.close(writer)


class _Once:
    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self.done = threading.Event()

    def run(self) -> None:
        """Call it, unless somebody has begun to."""
        if self._lock.acquire(blocking=False):
            try:
                self._call()
            finally:
                self.done.set()


def _watch(reader: int, finished: _Once) -> None:
    """Wait for the byte that the C-level handler writes at once, whatever Python is doing."""
    while received := os.read(reader, 64):
        if signal.SIGTERM in received:
            break
    os.close(reader)
    if not received:  # the command ended by itself
        return
    if not finished.done.wait(_MAIN_THREAD_SECONDS):
        backstop = threading.Timer(_ALL_SECONDS - _MAIN_THREAD_SECONDS, os._exit, (StopRequested.exit_code,))
        backstop.daemon = True
        backstop.start()
        finished.run()
        finished.done.wait(_ALL_SECONDS)
        os._exit(StopRequested.exit_code)
