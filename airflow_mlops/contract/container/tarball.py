"""A folder as a tar stream whose length is known before its first byte, and that can be read from anywhere."""

from __future__ import annotations

import stat
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 512
CHUNK = 1024**2
_END = b"\0" * (2 * BLOCK)


@dataclass(frozen=True)
class _Segment:
    """Bytes that are there already, or those of a file, filled up with zeros to ``length``."""

    length: int
    content: bytes | None = None
    file: Path | None = None
    size: int = 0


class Tarball:
    """The tar of one folder or file, made while it is read: nothing is kept in memory or on disk.

    What is neither file nor folder is put in as what it is; whoever unpacks the archive refuses it.

    :param path: the folder; its name is the first part of all names in the archive.
    """

    def __init__(self, path: Path) -> None:
        self._segments = [*_segments(path, path.name), _Segment(len(_END), _END)]
        self.size = sum(segment.length for segment in self._segments)

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes from ``start`` to ``end``.

        :raises OSError: a file cannot be read, or has become shorter.
        """
        begin = 0
        for segment in self._segments:
            first, last = max(start - begin, 0), min(end - begin, segment.length)
            if first < last:
                yield from _part(segment, first, last)
            begin += segment.length


def _segments(path: Path, name: str) -> Iterator[_Segment]:
    found = path.lstat()
    member = tarfile.TarInfo(name)
    member.mtime, member.mode = int(found.st_mtime), 0o644
    if stat.S_ISDIR(found.st_mode):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        yield _header(member)
        for child in sorted(path.iterdir()):
            yield from _segments(child, f"{name}/{child.name}")
    elif stat.S_ISREG(found.st_mode):
        member.size = found.st_size
        yield _header(member)
        if member.size:
            yield _Segment(-(-member.size // BLOCK) * BLOCK, file=path, size=member.size)
    else:
        member.type, member.linkname = tarfile.FIFOTYPE, ""
        if stat.S_ISLNK(found.st_mode):
            member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
        yield _header(member)


def _header(member: tarfile.TarInfo) -> _Segment:
    content = member.tobuf(tarfile.PAX_FORMAT)
    return _Segment(len(content), content)


def _part(segment: _Segment, first: int, last: int) -> Iterator[bytes]:
    if segment.file is None:
        yield (segment.content or b"")[first:last]
        return
    with segment.file.open("rb") as source:
        source.seek(first)
        left = min(last, segment.size) - first
        while left > 0:
            chunk = source.read(min(CHUNK, left))
            if not chunk:
                raise OSError(f"{segment.file} became shorter while it was sent")
            left -= len(chunk)
            yield chunk
    yield b"\0" * (last - max(first, segment.size))
