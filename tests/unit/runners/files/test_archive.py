"""Tar streams: what goes in whole, what comes out checked."""

from __future__ import annotations

import io
import tarfile
import tracemalloc

import pytest

from airflow_mlops.exceptions import ContractError, RunnerError
from airflow_mlops.runners.files.archive import copy, pack, unpack
from airflow_mlops.runners.files.layout import InputFile

LIMIT = 10_000_000


def archive(*members):
    """Tar of (name, content or attributes), cut into odd pieces."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(info, key, value)
                tar.addfile(info)
    data = buffer.getvalue()
    return [data[start : start + 777] for start in range(0, len(data), 777)]


FOLDER = {"type": tarfile.DIRTYPE, "mode": 0o755}


def test_what_is_packed_is_what_tar_reads(tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 3_000_001)
    long = "input/data/train/" + "n" * 200 + ".parquet"
    files = [InputFile("a.json", b"{}"), InputFile("empty", b""), InputFile(long, tmp_path / "big")]

    data = b"".join(pack(files, ["input", "output"], "opt/ml", 1000))

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar}
        assert tar.extractfile(f"opt/ml/{long}").read() == b"x" * 3_000_001
        assert tar.extractfile("opt/ml/a.json").read() == b"{}"
    assert list(members)[:3] == ["opt/ml", "opt/ml/input", "opt/ml/output"]
    assert {(member.uid, member.gid) for member in members.values()} == {(1000, 1000)}
    assert members["opt/ml/output"].isdir()
    assert members["opt/ml/empty"].size == 0


def test_packing_and_unpacking_hold_little_in_memory(tmp_path):
    with (tmp_path / "big").open("wb") as file:
        file.truncate(200_000_000)
    stream = pack([InputFile("big", tmp_path / "big")], [], "output", 1000)
    (tmp_path / "out").mkdir()

    tracemalloc.start()
    written = unpack(stream, "output", tmp_path / "out", 300_000_000, "job")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert written == 200_000_000
    assert (tmp_path / "out/output/big").stat().st_size == 200_000_000
    assert peak < 20_000_000


def test_a_file_that_shrinks_while_it_is_packed_is_an_error(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"x" * 3_000_000)
    stream = pack([InputFile("data", path)], [], "opt/ml", 1000)
    next(stream), next(stream)  # the folder, the header

    path.write_bytes(b"x")

    with pytest.raises(RunnerError, match="changed while it was copied"):
        list(stream)


def test_a_path_replaces_what_was_collected_before(tmp_path):
    for content in (b"old", b"new"):
        stream = archive(("output", FOLDER), ("output/" + content.decode(), content))
        unpack(stream, "output", tmp_path, LIMIT, "job")

    assert [path.name for path in (tmp_path / "output").iterdir()] == ["new"]


def test_a_single_file_goes_to_its_place(tmp_path):
    unpack(archive(("metrics.json", b"[]")), "output/metrics.json", tmp_path, LIMIT, "job")

    assert (tmp_path / "output/metrics.json").read_bytes() == b"[]"
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("output/link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "is a link"),
        ("output/link", {"type": tarfile.LNKTYPE, "linkname": "output/a"}, "is a link"),
        ("output/device", {"type": tarfile.CHRTYPE}, "is a device"),
        ("output/pipe", {"type": tarfile.FIFOTYPE}, "is a device"),
        ("/etc/passwd", b"x", "leaves its folder"),
        ("output/../../outside", b"x", "leaves its folder"),
        ("output/" + "d/" * 32, FOLDER, "32 folders"),
        ("output/" + "/".join(["d" * 250] * 4), b"x", "1000 bytes"),
        ("output/a", b"twice", "twice"),
        ("output/a/b", b"below a file", "twice"),
    ],
)
def test_what_could_write_elsewhere_is_refused_and_leaves_nothing(tmp_path, name, content, words):
    stream = archive(("output", FOLDER), ("output/a", b"fine"), (name, content))

    with pytest.raises(ContractError, match=f"Job job, output.*{words}"):
        unpack(stream, "output", tmp_path / "out", LIMIT, "job")

    assert list((tmp_path / "out").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_limit_holds_before_the_bytes_are_written(tmp_path):
    def endless():
        header = tarfile.TarInfo("output/big")
        header.size = 10**15
        yield header.tobuf()
        for _ in range(100):
            yield b"x" * 1_000
        pytest.fail("far more was read than the header")

    with pytest.raises(ContractError, match="more than 10000000 bytes"):
        unpack(endless(), "output", tmp_path, LIMIT, "job")


def test_a_broken_archive_is_the_engines_fault(tmp_path):
    with pytest.raises(RunnerError, match="broken"):
        unpack([b"this is no tar" * 100], "output", tmp_path, LIMIT, "job")


def test_a_cut_archive_is_noticed(tmp_path):
    pieces = archive(("output", FOLDER), ("output/a", b"x" * 5_000))

    with pytest.raises(RunnerError, match="broken"):
        unpack(pieces[:4], "output", tmp_path, LIMIT, "job")
    assert not (tmp_path / "output").exists()


def test_a_folder_is_copied_and_a_missing_one_left_out(tmp_path):
    (tmp_path / "ml/output/plots").mkdir(parents=True)
    (tmp_path / "ml/output/plots/a").write_text("a")

    assert copy(tmp_path / "ml", "output", tmp_path / "out", LIMIT, "job") == 1
    assert copy(tmp_path / "ml", "model", tmp_path / "out", LIMIT, "job") == 0
    assert (tmp_path / "out/output/plots/a").read_text() == "a"


def test_a_folder_behind_a_link_is_not_copied(tmp_path):
    (tmp_path / "ml").mkdir()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/key").write_text("secret")
    (tmp_path / "ml/output").symlink_to(tmp_path / "secrets")

    for path in ("output", "output/key"):
        with pytest.raises(ContractError, match="is a link"):
            copy(tmp_path / "ml", path, tmp_path / "out", LIMIT, "job")
    assert not (tmp_path / "out").exists()


def test_folders_without_end_are_not_copied(tmp_path):
    (tmp_path / "ml/output" / ("d/" * 40)).mkdir(parents=True)

    with pytest.raises(ContractError, match="more than 1000 bytes or 32 folders"):
        copy(tmp_path / "ml", "output", tmp_path / "out", LIMIT, "job")
    assert not (tmp_path / "out").exists()


def test_what_the_workers_disk_refuses_can_be_tried_again(tmp_path):
    (tmp_path / "ml/output").mkdir(parents=True)
    (tmp_path / "ml/output/a").write_text("a")
    (tmp_path / "out").write_text("a file where the folder should be")

    with pytest.raises(
        RunnerError, match=r"Job job, output: cannot be taken over: .*worker's disk"
    ) as caught:
        copy(tmp_path / "ml", "output", tmp_path / "out", LIMIT, "job")
    assert caught.value.retriable
