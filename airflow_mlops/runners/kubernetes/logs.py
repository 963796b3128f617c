"""The output of a pod as the API server sends it: lines behind timestamps, cut from a stream of bytes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mlops.runners.lines import Delivered, FrameReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_mlops.runners.protocol import LogLine

#: Bytes of a line that are handed on before its end is there.
PIECE = 16 * 1024
#: Bytes within which a line must show its stamp.
STAMP_ROOM = 40
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ")


class PodLog:
    """Makes log lines of one connection's bytes, leaving out what was handed over before.

    :param delivered: what was handed over, across connections.
    """

    def __init__(self, delivered: Delivered) -> None:
        self._reader = FrameReader(delivered)
        self._buffer = bytearray()
        self._stamp = b""
        self._inside = False

    def feed(self, data: bytes) -> list[LogLine]:
        """Lines that are complete with these bytes."""
        self._buffer += data
        return [line for frame in self._frames() for line in self._reader.feed(1, frame)]

    def flush(self) -> list[LogLine]:
        """The last line, when it never got its newline."""
        rest = [self._frame(bytes(self._buffer))] if self._inside and self._buffer else []
        return [line for frame in rest for line in self._reader.feed(1, frame)] + self._reader.flush()

    def _frames(self) -> Iterator[bytes]:
        while self._buffer and (self._inside or self._begin()):
            end = self._buffer.find(b"\n") + 1
            if not end and len(self._buffer) < PIECE:
                return
            piece = bytes(self._buffer[: end or PIECE])
            del self._buffer[: len(piece)]
            self._inside = not end
            if self._stamp:
                yield self._frame(piece)

    def _begin(self) -> bool:
        """Take a line's stamp off; false until it is there. A line without one is the server's own: it keeps the last."""
        found = _STAMP.match(self._buffer)
        if found is None:
            return len(self._buffer) >= STAMP_ROOM or b"\n" in self._buffer
        self._stamp = _in_utc(found)
        del self._buffer[: found.end()]
        self._inside = True
        # An empty line may have nothing more than its newline, which is yet to come.
        return bool(self._buffer)

    def _frame(self, piece: bytes) -> bytes:
        return self._stamp + b" " + piece


def since_time(delivered: Delivered) -> str:
    """Where to begin, as the server takes it: whole seconds, rounded down; empty for the beginning."""
    seconds = delivered.begin.partition(".")[0]
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else ""


def _in_utc(stamp: re.Match[bytes]) -> bytes:
    seconds, fraction, zone = (part or b"" for part in stamp.groups())
    if zone != b"Z":
        at = datetime.fromisoformat((seconds + zone).decode()).astimezone(UTC)
        seconds = at.strftime("%Y-%m-%dT%H:%M:%S").encode()
    return b"%s.%sZ" % (seconds, fraction.ljust(9, b"0"))
