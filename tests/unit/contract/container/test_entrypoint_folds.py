"""Folds of a job, as the model code sees them."""

from __future__ import annotations

import json

import pytest

from airflow_mlops.contract import DataError, Job, Paths


def job(tmp_path, text=None):
    paths = Paths(tmp_path)
    paths.data.mkdir(parents=True)
    if text is not None:
        paths.folds.write_text(text)
    return Job(command="train", paths=paths, parameters={})


def test_without_folds_there_are_none(tmp_path):
    assert job(tmp_path).folds() == []


def test_a_fold_names_its_files(tmp_path):
    given = [{"train": ["train/00001.parquet"], "validation": ["train/00000.parquet"]}]
    found = job(tmp_path, json.dumps(given))
    data = found.paths.data
    assert [(fold.train, fold.validation) for fold in found.folds()] == [
        ((data / "train/00001.parquet",), (data / "train/00000.parquet",))
    ]


@pytest.mark.parametrize("text", ["{", "[1]", '[{"train": []}]', "null"])
def test_what_is_no_list_of_folds_is_refused(tmp_path, text):
    with pytest.raises(DataError, match=r"folds.json is no list of folds"):
        job(tmp_path, text).folds()
