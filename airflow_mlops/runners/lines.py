"""Lines of a job's output: cut to size, and neither lost nor doubled when a connection breaks."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_mlops.runners.protocol import LogLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from airflow_mlops.runners.protocol import OnLog

#: Bytes of one line that are kept.
LINE_LIMIT = 8 * 1024
#: Bytes that are read of a file at once.
CHUNK = 1024**2
#: What a line ends with that was longer.
CUT = re.compile(r" … \[\d+ more bytes\]$")
#: Stands where an engine has thrown away what nobody had read yet.
MISSING = "[Output is missing here: the engine keeps only the newest part of what a job prints.]"
#: Lines that ``Runner.logs`` gives at most.
LOGS_LIMIT = 10_000
#: Lines that are remembered to recognise them after a reconnect.
REMEMBERED = 1_000


class LineCutter:
    r"""Cuts bytes into lines at newlines, and at ``\r`` so that a progress bar is not one giant line."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._lost = 0
        self._returned = False

    @property
    def pending(self) -> bool:
        """Whether the beginning of a line is held back until its end comes."""
        return bool(self._kept or self._lost)

    def feed(self, data: bytes) -> list[str]:
        r"""Lines that are complete with this data; an empty one behind ``\r`` is none."""
        size = len(data)
        # One whole line, the usual case: several times as fast.
        if 1 < size <= LINE_LIMIT and data.find(b"\n") == size - 1 and b"\r" not in data and not self.pending:
            self._returned = False
            return [data[:-1].decode(errors="replace")]
        lines = []
        for piece in re.split(rb"([\r\n])", data):
            if piece in (b"\r", b"\n"):
                if self.pending or (piece == b"\n" and not self._returned):
                    lines.append(self._take())
                self._returned = piece == b"\r"
            elif piece:
                room = LINE_LIMIT - len(self._kept)
                self._kept += piece[:room]
                self._lost += max(0, len(piece) - room)
        return lines

    def flush(self) -> list[str]:
        """The last line, when it never got its newline."""
        return [self._take()] if self.pending else []

    def _take(self) -> str:
        text = self._kept.decode(errors="replace")
        if self._lost:
            text += f" … [{self._lost} more bytes]"
        self._kept.clear()
        self._lost = 0
        return text


class Delivered:
    r"""Which lines of a container have been handed over, across connections.

    The engine stamps lines with nanoseconds, but several may share a stamp (pieces cut at ``\r`` always do),
    and stdout's stamps may be a little older than those of stderr before them. So the newest lines are
    remembered by stamp and number, and a new connection begins at the oldest of these.

    :param since: cursor of the last line handed over: a stamp, and behind ``#`` how many lines of that stamp
        came before.
    """

    def __init__(self, since: str = "") -> None:
        stamp, _, number = since.partition("#")
        self._counts: dict[str, int] = {stamp: int(number or 0) + 1} if stamp else {}
        self._floor = stamp

    @property
    def begin(self) -> str:
        """Where the next connection begins, as the engine's ``since`` (inclusive); empty for the beginning."""
        return unix_time(self._floor) if self._floor else ""

    def reaches(self, stamp: str) -> bool:
        """Whether an output that begins with this stamp goes on where the lines handed over end."""
        return not self._counts or stamp <= max(self._counts)

    def reached_by(self, newest: list[tuple[int, bytes]], asked: int) -> list[tuple[int, bytes]]:
        """Frames among the newest ones that begin with a line that was handed over, or with the first there is.

        :param newest: stream and frame, the last ones of an output.
        :param asked: how many they are where there are more.
        :return: none where they do not reach back so far.
        """
        if len(newest) < asked:
            return newest
        stamps = [frame.partition(b" ")[0].decode(errors="replace") for _, frame in newest]
        # Of the first stamp's lines, some may be missing.
        second = next((place for place, stamp in enumerate(stamps) if stamp != stamps[0]), None)
        return newest[second:] if second is not None and stamps[second] in self._counts else []

    def is_new(self, stamp: str, number: int) -> bool:
        """Whether the ``number``-th line of this stamp, from 0, has not been handed over yet."""
        return stamp >= self._floor and number >= self._counts.get(stamp, 0)

    def add(self, line: LogLine) -> None:
        """Remember that a line was handed over."""
        stamp, _, number = line.at.partition("#")
        self._counts[stamp] = int(number or 0) + 1
        if len(self._counts) > 2 * REMEMBERED:
            self._counts = dict(sorted(self._counts.items())[-REMEMBERED:])
            self._floor = min(self._counts)


class FrameReader:
    """Makes log lines of the output frames of one connection, leaving out what was handed over before.

    A line longer than 16 KiB comes in several frames, each with the stamp in front and only the last with a
    newline.

    :param delivered: what was handed over before.
    :param whole: a line says so where the output does not go on where it ended: the engine sends what was handed over
        last once more, as long as it has it.
    """

    def __init__(self, delivered: Delivered, *, whole: bool = False) -> None:
        self._delivered = delivered
        self._whole = whole
        self._cutters: defaultdict[int, LineCutter] = defaultdict(LineCutter)
        self._stamps: dict[int, str] = {}
        self._counts: dict[str, int] = {}

    def read(self, frames: Iterable[tuple[int, bytes]]) -> Iterator[LogLine]:
        """Lines that are complete with these frames, each a stream and what came on it."""
        for stream, frame in frames:
            yield from self.feed(stream, frame)

    def feed(self, stream: int, frame: bytes) -> list[LogLine]:
        """Lines that are complete with this frame.

        :param stream: 1 for stdout, 2 for stderr.
        """
        moment, _, payload = frame.partition(b" ")
        cutter = self._cutters[stream]
        if not cutter.pending:
            self._stamps[stream] = moment.decode(errors="replace")
        stamp = self._stamps[stream]
        lines = self._new(stamp, cutter.feed(payload))
        return [*self._gap(stamp), *lines] if self._whole else lines

    def _gap(self, stamp: str) -> list[LogLine]:
        """At the beginning, a line in front of the first one of its stamp."""
        self._whole = False
        return [] if self._delivered.reaches(stamp) else [LogLine(f"{stamp}#-1", MISSING)]

    def flush(self) -> list[LogLine]:
        """Lines that the job never ended, at its end."""
        return [
            line
            for stream, cutter in self._cutters.items()
            for line in self._new(self._stamps[stream], cutter.flush())
        ]

    def _new(self, stamp: str, texts: list[str]) -> list[LogLine]:
        lines = []
        for text in texts:
            number = self._counts.pop(stamp, 0)
            self._counts[stamp] = number + 1  # moves the stamp to the end
            if self._delivered.is_new(stamp, number):
                lines.append(LogLine(f"{stamp}#{number}" if number else stamp, text))
        if len(self._counts) > 2 * REMEMBERED:
            self._counts = dict(list(self._counts.items())[-REMEMBERED:])
        return lines


class FileReader:
    """Reads the lines of a growing file; the cursor is the offset behind a line."""

    def __init__(self, path: Path, since: str = "") -> None:
        self._path = path
        self._offset = int(since or 0)
        self._cutter = LineCutter()

    def read(self) -> Iterator[LogLine]:
        """Lines that have been completed since the last call."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            while data := file.read(CHUNK):
                for piece in re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", data):
                    self._offset += len(piece)
                    for text in self._cutter.feed(piece):
                        yield LogLine(str(self._offset), text)

    def flush(self) -> Iterator[LogLine]:
        """The last line, when it never got its newline."""
        for text in self._cutter.flush():
            yield LogLine(str(self._offset), text)


def unix_time(stamp: str) -> str:
    """Unix time with nine decimals of an RFC 3339 stamp in UTC, without a float's loss."""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    whole = int(datetime.fromisoformat(seconds + "+00:00").timestamp())
    return f"{whole}.{fraction[:9]:0<9}"


async def hand_over(line: LogLine, on_log: OnLog) -> None:
    """Call a receiver of lines, whether it is asynchronous or not."""
    answer = on_log(line)
    if answer is not None and inspect.isawaitable(answer):
        await answer


async def hand_over_new(lines: Iterable[LogLine], on_log: OnLog, delivered: Delivered) -> None:
    """Hand lines over one by one, and remember each."""
    for line in lines:
        await hand_over(line, on_log)
        delivered.add(line)
