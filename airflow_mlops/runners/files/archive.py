"""Data in and out of jobs: tar streams and folders, never a whole archive in memory; what comes out is not trusted."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import ContractError, RunnerError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.runners.files.names import CollectedNames

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_mlops.runners.files.layout import InputFile

CHUNK = 1024**2
BLOCK = 512
#: Files and folders that one collected path may have at most.
MEMBER_LIMIT = 100_000
#: Bytes of a header that extends the next one, with a long name for example, and how many of these one member may have.
EXTENSION_LIMIT, EXTENSIONS = 64 * 1024, 4
_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


def pack(files: Iterable[InputFile], folders: Iterable[str], root: str, owner: int) -> Iterator[bytes]:
    """Make a tar stream of files below ``root``, all of it owned by one user.

    :param root: path without leading slash, as ``opt/ml``; the folder itself is in the archive too.
    :raises RunnerError: when a local file cannot be read, or changes while it is.
    """
    now = int(time.time())

    def header(path: str, kind: bytes, mode: int, size: int = 0) -> bytes:
        member = tarfile.TarInfo(f"{root}/{path}" if path else root)
        member.type, member.mode, member.size, member.mtime = kind, mode, size, now
        member.uid = member.gid = owner
        return member.tobuf(tarfile.PAX_FORMAT)

    for folder in ("", *folders):
        yield header(folder, tarfile.DIRTYPE, 0o755)
    for file in files:
        try:
            size = file.size
            yield header(file.path, tarfile.REGTYPE, file.mode, size)
            sent = 0
            for chunk in _content(file):
                sent += len(chunk)
                yield chunk
        except OSError as error:
            raise RunnerError(f"Input {file.path} cannot be read: {error}.") from error
        if sent != size:
            raise RunnerError(
                f"Input {file.path} had {size} bytes and then {sent}: it changed while it was copied."
            )
        yield b"\0" * (-size % BLOCK)
    yield b"\0" * (2 * BLOCK)


def _content(file: InputFile) -> Iterator[bytes]:
    if isinstance(file.content, bytes):
        yield file.content
        return
    with file.content.open("rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk


def unpack(stream: Iterable[bytes], path: str, destination: Path, limit: int, job: str) -> int:
    """Unpack one collected path, all of it or nothing.

    :param stream: tar of a single file or folder, as an engine gives it: names begin with its last part.
    :param path: path below ``/opt/ml`` that was asked for; it becomes ``destination/<path>``.
    :param limit: bytes at most.
    :return: bytes written.
    :raises ContractError: for links, devices, absolute names, names with ``..``, and too much.
    """
    target = destination / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(destination) as scratch:
        written = _extract(stream, Path(scratch), limit, f"Job {job}, {path}")
        came = Path(scratch, PurePosixPath(path).name)
        if not came.exists():
            raise RunnerError(f"Job {job}: the engine gave an archive without {path}.")
        if target.is_dir():
            shutil.rmtree(target)
        came.replace(target)
    return written


def unpack_into(stream: Iterable[bytes], folder: Path, limit: int, where: str) -> int:
    """Unpack an archive whose names are below ``folder``, with the same checks as :func:`unpack`.

    :param where: job and path, for messages.
    :return: bytes written.
    """
    return _extract(stream, folder, limit, where)


def _extract(stream: Iterable[bytes], folder: Path, limit: int, where: str) -> int:
    written, names = 0, CollectedNames(where)
    try:
        archive = _Members(stream, where)
        for number, member in enumerate(archive):
            names.check(member.name)
            check_member(member, where)
            written += member.size
            check_amount(number + 1, written, limit, where)
            target = folder / member.name
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                for piece in archive.content(member):
                    file.write(piece)
        names.end()
    except tarfile.TarError as error:
        raise RunnerError(f"{where}: the engine's archive is broken: {error}.") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ContractError(f"{where}: the archive names {error.filename} twice.") from error
    except OSError as error:
        raise _not_taken(where, error) from error
    return written


def copy(tree: Path, path: str, destination: Path, limit: int, job: str) -> int:
    """Copy one collected path out of a job's folder, with the same checks as :func:`unpack`.

    :return: bytes written; 0 when the path is not there.
    """
    where = f"Job {job}, {path}"
    source = tree
    try:
        for part in PurePosixPath(path).parts:
            source /= part
            if not os.path.lexists(source):
                return 0
            _check_file(source, where)
        found, written, names = [], 0, CollectedNames(where)
        for file, size in _walk(source, PurePosixPath(path), names, where):
            found.append(file)
            written += size
            check_amount(len(found), written, limit, where)
        names.end()
        _copy_all(found, source, destination / path)
    except OSError as error:
        raise _not_taken(where, error) from error
    return written


def _copy_all(files: list[Path], source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.is_dir():
            (target / file.relative_to(source)).mkdir()
        else:
            shutil.copyfile(file, target / file.relative_to(source), follow_symlinks=False)


def _walk(path: Path, name: PurePosixPath, names: CollectedNames, where: str) -> Iterator[tuple[Path, int]]:
    names.check(str(name))
    found = _check_file(path, where)
    if not stat.S_ISDIR(found.st_mode):
        yield path, found.st_size
        return
    yield path, 0
    for child in sorted(path.iterdir()):
        yield from _walk(child, name / child.name, names, where)


def _check_file(path: Path, where: str) -> os.stat_result:
    found = path.lstat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise _refused(where, path.name, "link" if stat.S_ISLNK(found.st_mode) else "device or pipe")
    return found


def _refused(where: str, name: str, kind: str) -> ContractError:
    return ContractError(
        f"{where}: {name!r} is a {kind}, which is not taken over. Cure: the model code may write only files and "
        "folders there."
    )


def _not_taken(where: str, error: OSError) -> RunnerError:
    """What the worker's own disk, or the rights on it, keep from being taken over: a retry finds the job again."""
    wrong = RunnerError(
        f"{where}: cannot be taken over: {error}. Cure: look at the worker's disk and its rights."
    )
    wrong.retriable = True
    return wrong


def check_member(member: tarfile.TarInfo, where: str) -> None:
    """Refuse what is no data, or could lead elsewhere."""
    if not (member.isfile() or member.isdir()) or member.issparse():
        kind = "link" if member.issym() or member.islnk() else "device, pipe or sparse file"
        raise _refused(where, member.name, kind)


def check_amount(members: int, written: int, limit: int, where: str) -> None:
    """Refuse more than the limits."""
    if written > limit:
        raise ContractError(
            f"{where}: more than {limit} bytes, the limit of what is taken over. Cure: write less, or raise the "
            "runner's limit_bytes."
        )
    if members > MEMBER_LIMIT:
        raise ContractError(f"{where}: more than {MEMBER_LIMIT} files and folders. Cure: write fewer.")


class _Members:
    """Members of a tar stream, whose headers are read by hand.

    ``tarfile`` reads names of any length into memory, and looks for digits in them for hours (CVE-2024-6232).
    """

    def __init__(self, stream: Iterable[bytes], where: str) -> None:
        self._reader = _Reader(stream)
        self._where = where
        self._left = 0

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        extensions: list[tuple[bytes, bytes]] = []
        while (block := self._reader.read(BLOCK)).strip(b"\0"):
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if member.size < 0 or member.type == tarfile.GNUTYPE_SPARSE:
                raise _refused(self._where, member.name[:60], "sparse file, or one of a negative size")
            if member.type in _EXTENSIONS:
                if member.size > EXTENSION_LIMIT or len(extensions) >= EXTENSIONS:
                    raise _refused(
                        self._where,
                        member.name[:60],
                        f"header of more than {EXTENSION_LIMIT} bytes, or one of many",
                    )
                extensions.append((member.type, self._read(-(-member.size // BLOCK) * BLOCK)[: member.size]))
                continue
            self._extend(member, extensions)
            extensions.clear()
            holds = member.size if member.isreg() else 0
            self._left = -(-holds // BLOCK) * BLOCK
            yield member
            while self._left:
                self._read_content(min(self._left, CHUNK))

    def content(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """What the member holds, which has to be taken before the next one."""
        size = member.size
        while size:
            piece = self._read_content(min(size, CHUNK))
            size -= len(piece)
            yield piece

    def _read_content(self, size: int) -> bytes:
        piece = self._read(size)
        self._left -= len(piece)
        return piece

    def _read(self, size: int) -> bytes:
        found = self._reader.read(size)
        if len(found) < size:
            raise tarfile.ReadError("unexpected end of data")
        return found

    def _extend(self, member: tarfile.TarInfo, extensions: Iterable[tuple[bytes, bytes]]) -> None:
        for kind, content in extensions:
            if kind == tarfile.GNUTYPE_LONGNAME:
                member.name = _text(content)
            elif kind in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                for key, value in _records(content):
                    if key == b"path":
                        member.name = _text(value)
                    elif key == b"size":
                        member.size = _number(value)
                    elif key.startswith(b"GNU.sparse"):
                        raise _refused(self._where, member.name, "sparse file")
        if member.isdir():
            member.name = member.name.rstrip("/")


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a PAX header: ``length key=value`` and an end of line."""
    while content.strip(b"\0"):
        digits, _, _ = content[:12].partition(b" ")
        length = _number(digits)
        key, equals, value = content[len(digits) + 1 : length].partition(b"=")
        if not equals or length > len(content) or not value.endswith(b"\n"):
            raise tarfile.ReadError("a PAX header is broken")
        yield key, value[:-1]
        content = content[length:]


def _number(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 18:
        raise tarfile.ReadError("a number of a PAX header is broken")
    return int(digits)


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode("utf-8", "surrogateescape")


class _Reader(io.RawIOBase):
    """File over an iterable of chunks, as tarfile's stream mode wants it."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        pieces: list[memoryview | bytes] = []
        missing = size
        while missing:
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._rest = memoryview(chunk)
                continue
            piece = self._rest[:missing] if missing > 0 else self._rest
            self._rest = self._rest[len(piece) :]
            pieces.append(piece)
            if missing > 0:
                missing -= len(piece)
        return b"".join(pieces)
