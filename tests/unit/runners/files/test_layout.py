"""The tree below /opt/ml, the same for every runner."""

from __future__ import annotations

import json

import pytest

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.runners.files.layout import checked_name, checked_path, folders_of, input_tree
from airflow_mlops.runners.protocol import ContainerJob


def tree(**job):
    return {file.path: file.content for file in input_tree(ContainerJob(name="job", command="train", **job))}


def test_the_configuration_is_written_typed_and_as_strings():
    config = {
        "contract": 1,
        "parameters": {"rate": 0.1, "deep": True, "name": "a b", "layers": [1, 2], "none": None},
    }

    files = tree(config=config)

    assert json.loads(files["input/config/mlops.json"]) == config
    assert json.loads(files["input/config/hyperparameters.json"]) == {
        "rate": "0.1",
        "deep": "true",
        "name": "a b",
        "layers": "[1, 2]",
        "none": "null",
    }


def test_folders_are_walked_and_files_renamed(tmp_path):
    (tmp_path / "data/deep").mkdir(parents=True)
    for name in ("data/b.parquet", "data/a.parquet", "data/deep/c.parquet", "m.json"):
        (tmp_path / name).write_text(name)

    inputs = {
        "input/data/train": str(tmp_path / "data"),
        "input/data/manifest.json": str(tmp_path / "m.json"),
    }
    files = tree(inputs=inputs)

    assert [path for path in files if "data/" in path] == [
        "input/data/train/a.parquet",
        "input/data/train/b.parquet",
        "input/data/train/deep/c.parquet",
        "input/data/manifest.json",
    ]
    assert files["input/data/manifest.json"].read_text() == "m.json"


def test_parents_come_before_children_and_results_have_a_place():
    folders = folders_of(input_tree(ContainerJob(name="job", command="train")))

    assert folders == ["checkpoints", "input", "input/config", "input/data", "model", "output"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../b", "", "a\0b"])
def test_paths_that_leave_are_refused(path):
    with pytest.raises(RunnerError, match=r"relative, without '\.\.'"):
        checked_path(path)


def test_two_inputs_of_one_path_are_refused(tmp_path):
    (tmp_path / "mlops.json").write_text("{}")

    with pytest.raises(RunnerError, match=r"two inputs want to be input/config/mlops\.json"):
        tree(inputs={"input/config": str(tmp_path)})


def test_a_missing_source_is_named():
    with pytest.raises(RunnerError, match=r"input/data/train should come from /no/such"):
        tree(inputs={"input/data/train": "/no/such"})


@pytest.mark.parametrize("name", ["", "a", "../a", "-rm", "a/b", "a b", "a" * 202, "a\n"])
def test_a_name_that_is_no_container_and_no_folder_is_refused(name):
    with pytest.raises(RunnerError, match="must be letters"):
        checked_name(name)
    assert checked_name("mlops-a.b_c-1") == "mlops-a.b_c-1"
