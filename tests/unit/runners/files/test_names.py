"""Names of collected files: what MLflow, object stores and file systems cannot say is refused, by one function."""

from __future__ import annotations

import io
import tarfile
from unittest import mock

import pytest

from airflow_mlops.exceptions import ContractError
from airflow_mlops.runners.aws import channels
from airflow_mlops.runners.files.archive import copy, unpack
from airflow_mlops.runners.files.names import CollectedNames, name_problem

LIMIT = 10_000_000
BAD = {
    "shard#1.bin": "'#'",
    "a?v=1": r"'\?'",
    "p%41": "'%'",
    "a\\b": r"'\\\\'",
    "a\nb": "control character",
    "a\tb": "control character",
    "a\x7fb": "control character",
    "a\x85b": "control character",
    "a\u2028b": "control character",
    "a\udcffb": "no UTF-8",
    " lead": "begins or ends with a space",
    "trail ": "begins or ends with a space",
    "file:x": "like an address or a drive",
    "C:": "like an address or a drive",
    "n" * 256: "more than 255 bytes",
    "é" * 128: "more than 255 bytes",
    "/".join(["d" * 250] * 4): "1000 bytes",
    "d/" * 33: "32 folders",
}
GOOD = [
    "MLmodel",
    "a b",
    "é",
    "模型",
    "😀",
    "a;b",
    "a&b",
    "a+b",
    "a=b",
    "epoch=1-step=2.ckpt",
    "..a",
    "a..b",
    ".a",
    "~",
]


def tar(*names):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"model/{name}"), io.BytesIO())
    return [buffer.getvalue()]


@pytest.mark.parametrize(("name", "words"), BAD.items(), ids=map(ascii, BAD))
def test_a_name_that_a_later_system_cannot_say_is_refused_with_its_file_and_the_cure(tmp_path, name, words):
    with pytest.raises(ContractError, match=f"(?s)Job job, model: .*{words}.*Cure: ") as caught:
        unpack(tar("MLmodel", name), "model", tmp_path / "out", LIMIT, "job")

    assert not caught.value.retriable
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", GOOD)
def test_a_name_that_all_can_say_is_taken(tmp_path, name):
    assert name_problem(f"model/{name}") == ""

    unpack(tar("conda.yaml", name), "model", tmp_path, LIMIT, "job")

    assert (tmp_path / "model" / name).is_file()


@pytest.mark.parametrize(
    "names", [("A.bin", "a.bin"), ("é", "e\u0301"), ("D/one", "d/two"), ("STRASSE", "straße")]
)
def test_two_names_that_some_systems_take_for_one_are_refused(tmp_path, names):
    with pytest.raises(ContractError, match="differs only by capitals or by its Unicode form"):
        unpack(tar("MLmodel", *names), "model", tmp_path, LIMIT, "job")


def test_a_file_alone_in_a_folder_of_its_name_is_refused(tmp_path):
    with pytest.raises(ContractError, match="'model/x/x' is a file alone in a folder of its own name"):
        unpack(tar("MLmodel", "x/x"), "model", tmp_path, LIMIT, "job")

    unpack(tar("MLmodel", "x/x", "x/y"), "model", tmp_path, LIMIT, "job")


@pytest.mark.parametrize("name", ["shard#1.bin", "a\nb", b"\xff\xfe"])
def test_the_folder_of_a_process_is_judged_by_the_same(tmp_path, name):
    folder = tmp_path / "ml/model"
    folder.mkdir(parents=True)
    with open(bytes(folder) + b"/" + (name if isinstance(name, bytes) else name.encode()), "wb"):  # noqa: PTH123
        pass

    with pytest.raises(ContractError, match=r"Job job, model: .*Cure: "):
        copy(tmp_path / "ml", "model", tmp_path / "out", LIMIT, "job")
    assert not (tmp_path / "out").exists()


def test_twins_in_the_folder_of_a_process_are_found_too(tmp_path):
    (tmp_path / "ml/model").mkdir(parents=True)
    for name in ("A", "a"):
        (tmp_path / "ml/model" / name).write_text(name)

    with pytest.raises(ContractError, match="differs only by capitals"):
        copy(tmp_path / "ml", "model", tmp_path / "out", LIMIT, "job")


def test_checkpoints_of_sagemaker_are_judged_by_the_same(tmp_path):
    staging = mock.Mock(limit_bytes=LIMIT)
    staging.store.sizes.return_value = {"jobs/job/checkpoints/a?b": 0}

    with pytest.raises(ContractError, match=r"Job job, checkpoints: .*'\?'"):
        channels.collect_archives(staging, "job", "a", ("checkpoints",), tmp_path)


def test_many_names_take_little_time():
    names = CollectedNames("Job job, model")
    for number in range(100_000):
        names.check(f"model/part/{number:06}.bin")
    names.end()
