"""Headers of a tar stream, which a container writes: read by hand, and never more of them than a name needs."""

from __future__ import annotations

import io
import tarfile

import pytest

from airflow_mlops.exceptions import ContractError, RunnerError
from airflow_mlops.runners.files.archive import unpack

LONG = "n" * 120 + "/" + "m" * 120


def archive(kind, names=("output/a.txt", f"output/{LONG}/b.txt", "output/ü.txt")):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        folder = tarfile.TarInfo("output")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = 600 * number
            member.mtime = 1.5
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def header(kind, size, name="output/a"):
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def pax(**records):
    body = b""
    for key, value in records.items():
        length = len(key) + len(value) + 3
        while len(str(length)) + len(key) + len(value) + 3 != length:
            length = len(str(length)) + len(key) + len(value) + 3
        body += f"{length} {key}={value}\n".encode()
    return header(tarfile.XHDTYPE, len(body)) + body + b"\0" * (-len(body) % 512)


def pieces(content, size=700):
    return (content[at : at + size] for at in range(0, len(content), size))


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_every_writer_writes_is_read(tmp_path, kind):
    assert unpack(pieces(archive(kind)), "output", tmp_path, 10_000, "job") == 1800
    found = {file.relative_to(tmp_path).as_posix(): file.read_bytes() for file in tmp_path.rglob("*.txt")}
    assert found == {"output/a.txt": b"", f"output/{LONG}/b.txt": b"x" * 600, "output/ü.txt": b"x" * 1200}


def test_a_size_in_a_pax_header_counts(tmp_path):
    content = pax(size="3") + header(tarfile.REGTYPE, 0, "output") + b"abc".ljust(512, b"\0") + b"\0" * 1024
    assert unpack(pieces(content), "output", tmp_path, 10_000, "job") == 3
    assert (tmp_path / "output").read_bytes() == b"abc"


class Endless:
    """A stream of zeros that says how much of it was taken."""

    def __init__(self, begin):
        self.begin, self.taken = begin, 0

    def __iter__(self):
        yield self.begin
        while True:
            self.taken += 1024**2
            yield b"9" * 1024**2


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"X"]
)
@pytest.mark.parametrize("size", [8 * 1024**3, 10**6])
def test_a_header_of_gigabytes_is_not_read(tmp_path, kind, size):
    stream = Endless(header(kind, size))
    with pytest.raises(ContractError, match="header of more than"):
        unpack(stream, "output", tmp_path, 10_000, "job")
    assert stream.taken < 3 * 1024**2


HOSTILE = {
    "many headers": (header(tarfile.XGLTYPE, 0) * 10_000, ContractError),
    "digits without end": (header(tarfile.XHDTYPE, 60_000) + b"1" * 60_416, RunnerError),
    "a length of nothing": (header(tarfile.XHDTYPE, 10) + b"0 path=xy\n".ljust(512, b"\0"), RunnerError),
    "a length beyond it": (header(tarfile.XHDTYPE, 10) + b"99 path=x\n".ljust(512, b"\0"), RunnerError),
    "a size that is none": (pax(size="-5") + header(tarfile.REGTYPE, 0), RunnerError),
    "a name that leaves": (pax(path="output/../../x") + header(tarfile.REGTYPE, 0), ContractError),
    "a link": (header(tarfile.SYMTYPE, 0), ContractError),
    "a sparse file": (pax(**{"GNU.sparse.size": "1"}) + header(tarfile.REGTYPE, 0), ContractError),
    "an old sparse file": (header(tarfile.GNUTYPE_SPARSE, 0), ContractError),
    "cut in a header": (header(tarfile.XHDTYPE, 100) + b"x", RunnerError),
    "cut in a file": (header(tarfile.REGTYPE, 1000) + b"x" * 10, RunnerError),
    "no header": (b"x" * 512, RunnerError),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(tmp_path, name):
    content, kind = HOSTILE[name]
    with pytest.raises(kind):
        unpack(
            pieces(content + b"\0" * 1024 if "cut" not in name else content),
            "output",
            tmp_path,
            10_000,
            "job",
        )
