"""What becomes of a job's output: the task's log, up to a limit, and a cursor that outlives whoever printed it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from airflow_mlops.runners.lines import CUT, MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_mlops.runners.protocol import JobState, LogLine, Runner

#: Bytes of a job's output that go to the task's log.
LOG_LIMIT = 64 * 1024**2
#: Seconds between two savings of the cursor while lines come without end, on a worker and in the triggerer.
SAVE_EVERY, SAVE_EVERY_BEHIND = 1.0, 10.0
#: Seconds by which the saved position of a trigger is behind. The triggerer takes what its triggers log 4 KiB at a time;
#: what it has not taken is lost to the task's log when it is killed, and when the trigger ends.
BEHIND = 30.0
#: Lines that a trigger prints at once, and in a second after that; what is more, the worker prints when the job is over.
BURST, LINES_PER_SECOND = 2_000, 200
#: The same for all triggers of a triggerer together: each line costs it half a millisecond in which no trigger goes on,
#: and none is heard of.
ALL_BURST, ALL_LINES_PER_SECOND = 4_000, 500
#: The same for a trigger where the others leave nothing: who says little is always heard.
QUIET_BURST, QUIET_LINES_PER_SECOND = 20, 1
#: Seconds between two looks for a new line after a quiet moment.
LOOK_EVERY = 0.1
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d*)?Z")
#: The logger of :class:`~airflow_mlops.triggers.job.JobTrigger`.
TRIGGER_LOG = "airflow_mlops.triggers.job.JobTrigger"
#: Under this key the cursor is an XCom of a deferred task, and in the state store of one that waits on a worker.
KEY = "log_cursor"


def trigger_log() -> Any:
    """The trigger's logger, for a worker that goes on where the trigger stopped."""
    import structlog

    return structlog.get_logger(TRIGGER_LOG)


class Memory(Protocol):
    """Where the position in an output is kept."""

    async def save(self, position: dict[str, Any]) -> None:
        """Keep it."""
        ...


class Budget:
    """What may be done so many times at once, and so many times in a second after that."""

    def __init__(self, burst: int, per_second: int) -> None:
        self._burst, self._per_second = burst, per_second
        self._left, self._filled = float(burst), time.monotonic()

    def take(self) -> bool:
        """Do it once more, if it may be done."""
        now = time.monotonic()
        self._left = min(float(self._burst), self._left + (now - self._filled) * self._per_second)
        self._filled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


_TOGETHER = Budget(ALL_BURST, ALL_LINES_PER_SECOND)


class JobOutput:
    """
    Receives the lines of a job.

    Each carries the moment at which the engine got it, also in the task's log. Airflow leaves out a line that comes
    twice with one moment, so that what is printed again after a crash is seen once.

    :param log: logger of the task.
    :param job: name of the job, for the line that says that the limit is reached.
    :param limit: bytes that are printed at most; lines of progress are still understood behind it.
    :param position: where an earlier reader was, by :attr:`position`.
    :param hidden: texts that are left out of what is printed. Airflow masks its files itself, and not what an
        executor repeats of them on its own output.
    :param behind: seconds after which a printed line is sure to be in the task's log.
    """

    def __init__(
        self,
        log: Any,
        job: str,
        *,
        limit: int = LOG_LIMIT,
        position: dict[str, Any] | None = None,
        hidden: Sequence[str] = (),
        behind: float = 0.0,
    ) -> None:
        # Here and not above: DAG files import this module.
        from airflow_mlops.contract.protocol import progress

        self._words = progress
        self._log = log
        self._lines = _for_lines(log)
        self._job = job
        self._limit = limit
        self._hidden = hidden
        self.cursor = str((position or {}).get("cursor") or "")
        self._printed = int((position or {}).get("printed") or 0)
        #: The first line that an earlier reader got, where this one begins at the beginning again.
        self._first = str((position or {}).get("first") or "")
        #: Monotonic moment of the last line, or of the beginning.
        self.heard = time.monotonic()
        self.progress: list[Callable[[LogLine], None]] = []
        self.behind = behind
        self._trail: deque[tuple[float, dict[str, Any]]] = deque()
        self._settled = self.position
        self._own = Budget(BURST, LINES_PER_SECOND)
        self._reserve = Budget(QUIET_BURST, QUIET_LINES_PER_SECOND)
        #: Whether lines were left to the worker: the saved position stays in front of the first of them.
        self._left_out = False

    @property
    def position(self) -> dict[str, Any]:
        """What another reader needs to go on here."""
        return {"cursor": self.cursor, "printed": self._printed}

    @property
    def settled(self) -> dict[str, Any]:
        """The position up to which every line is sure to be in the task's log."""
        if not self.behind:
            return self.position
        while self._trail and time.monotonic() - self._trail[0][0] >= self.behind:
            self._settled = self._trail.popleft()[1]
        return self._settled

    def __call__(self, line: LogLine) -> None:
        """Print a line and remember it."""
        if not self.cursor:
            self._begin(line)
        if line.text.startswith(self._words.PREFIX):
            for receive in self.progress:
                receive(line)
            if self._words.is_system(line.text):  # not for people, and no sign that the model code is alive
                self.cursor = line.at
                return
        self.heard = time.monotonic()
        if self._printed < self._limit and self._may_print():
            self._print(line)
        self.cursor = line.at
        if (
            self.behind
            and not self._left_out
            and (not self._trail or self.heard - self._trail[-1][0] >= SAVE_EVERY)
        ):
            self._trail.append((self.heard, self.position))

    def _begin(self, line: LogLine) -> None:
        if self._first and self._first != line.at:
            self.warn("Job %s: %s", self._job, MISSING)
        if not self._settled["cursor"]:
            self._settled = {**self._settled, "first": self._first or line.at}

    def _may_print(self) -> bool:
        if not self.behind:
            return True
        if self._own.take() and (_TOGETHER.take() or self._reserve.take()):
            return True
        if not self._left_out:
            self._left_out = True
            self._trail.append((time.monotonic(), self.position))
            self._log.warning(
                "Job %s prints more than %d lines a second, or many jobs together more than %d: some are shown here when "
                "it is over.",
                self._job,
                LINES_PER_SECOND,
                ALL_LINES_PER_SECOND,
            )
        return False

    def warn(self, message: str, *values: Any) -> None:
        """Say something of our own in the task's log."""
        self._log.warning(message, *values)

    def _print(self, line: LogLine) -> None:
        text = self._masked(line.text)
        # The text is an argument: a per cent sign in it means nothing.
        self._lines.info("%s", printable(text), **_moment(line.at))
        self._printed += _size(line.text) + 1
        if self._printed >= self._limit:
            self._log.warning(
                "Job %s has printed %d bytes, the limit of what goes to this log: the rest is left out here, and the "
                "job goes on. Cure: print less, raise log_limit, or read it where it runs while it is there.",
                self._job,
                self._printed,
            )

    def _masked(self, text: str) -> str:
        if not self._hidden:
            return text
        from airflow_mlops.primitives.texts.secrets import open_end, without

        cut = CUT.search(text)
        if cut is None:
            return without(text, self._hidden)
        # The end of what was kept may be the beginning of a secret.
        kept = text[: cut.start()]
        return without(kept[: open_end(kept, self._hidden)], self._hidden) + cut.group()


def _for_lines(log: Any) -> Any:
    """The task's logger without what a line of output never has, as file and number of a call, a stack, an exception:
    half of what a line costs. Tokens are looked for in its text alone.
    """
    import structlog

    if not hasattr(log, "bind"):  # not one of Airflow's tasks
        return log
    known = structlog.processors
    needless = (
        known.CallsiteParameterAdder,
        known.StackInfoRenderer,
        known.ExceptionRenderer,
        known.UnicodeDecoder,
    )
    processors = [
        _in_text(processor) if getattr(processor, "__name__", "") == "redact_jwt" else processor
        for processor in structlog.get_config()["processors"]
        if not isinstance(processor, needless)
    ]
    bound = log.bind()
    return structlog.wrap_logger(
        None, processors, logger_factory_args=(bound.name,), **structlog.get_context(bound)
    ).bind()


def _in_text(redact: Callable[..., Any]) -> Callable[..., Any]:
    """A processor that goes through all texts of an event, for its message only."""

    def processor(logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
        event["event"] = redact(logger, method, {"event": event["event"]})["event"]
        return event

    return processor


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _moment(cursor: str) -> dict[str, str]:
    # Microseconds: what Airflow's log knows. A cursor that is no moment leaves it to the logger.
    if cursor[19:20] == "." and cursor[29:] == "Z":  # the engine's own stamps, several times as fast
        return {"timestamp": f"{cursor[:26]}Z"}
    found = _STAMP.match(cursor)
    return {"timestamp": f"{found[1]}.{found[2] or '':0<6}Z"} if found else {}


def printable(text: str) -> str:
    """A line without what a terminal, a database or a browser would take for a command: control characters."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in text
    )


async def watch(
    runner: Runner,
    name: str,
    output: JobOutput,
    *,
    deadline: float | None = None,
    stall_timeout: float | None = None,
    memory: Memory | None = None,
    progress: dict[str, Any] | None = None,
) -> tuple[str, JobState]:
    """Wait for a job's end, printing what it says.

    The position is saved at once after a quiet moment, and every second while lines come: what a killed process had
    printed since is printed again by the next one, and never lost.

    :param deadline: Unix time at which waiting ends.
    :param stall_timeout: seconds without a line after which waiting ends.
    :return: ``exited``, ``gone``, ``timeout`` or ``stalled``, and the last known state. Nothing is stopped.
    """
    from airflow_mlops.hooks.mlflow.progress import MetricSink

    saver = _Saver(output, memory)
    saving = asyncio.create_task(saver.keep_saving())
    try:
        async with MetricSink.of(progress) as sink:
            output.progress[:] = [lambda line: sink.take(line.text, line.at)]
            found = await _wait(runner, name, output, deadline, stall_timeout)
    finally:
        saving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saving
    # Not when cancelled: a triggerer that ends answers nobody.
    await saver.save()
    return found


async def _wait(
    runner: Runner, name: str, output: JobOutput, deadline: float | None, stall_timeout: float | None
) -> tuple[str, JobState]:
    while True:
        state = await runner.wait_async(name, output, output.cursor, _limit(output, deadline, stall_timeout))
        if state.status in ("exited", "gone"):
            return state.status, state
        if deadline is not None and time.time() >= deadline:
            return "timeout", state
        if stall_timeout is not None and time.monotonic() - output.heard >= stall_timeout:
            return "stalled", state


class _Saver:
    def __init__(self, output: JobOutput, memory: Memory | None) -> None:
        self._output = output
        self._memory = memory
        self._saved = output.cursor
        self._every = SAVE_EVERY_BEHIND if output.behind else SAVE_EVERY
        self._warned = False

    async def keep_saving(self) -> None:
        while True:
            await self.save()
            pause = self._every
            while pause > 0 or self._output.settled["cursor"] == self._saved:
                await asyncio.sleep(LOOK_EVERY)
                pause -= LOOK_EVERY

    async def save(self) -> None:
        position = self._output.settled
        if self._memory is None or position["cursor"] == self._saved:
            return
        self._saved = position["cursor"]
        try:
            await self._memory.save(position)
        except Exception as error:  # noqa: BLE001  a line printed twice is better than a job that nobody waits for
            if not self._warned:
                self._output.warn(
                    "Where the log is cannot be saved, so a restart may repeat lines: %s", error
                )
            self._warned = True


def _limit(output: JobOutput, deadline: float | None, stall_timeout: float | None) -> float | None:
    limits = [] if deadline is None else [deadline]
    if stall_timeout is not None:
        limits.append(time.time() + max(0.0, output.heard + stall_timeout - time.monotonic()))
    return min(limits, default=None)
