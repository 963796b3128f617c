"""A dataset version's id follows from its content, today and in every later release."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_mlops.exceptions import DataError
from airflow_mlops.primitives.datasets.manifest import Chunk, Column, Manifest

TINY = Manifest(
    application="flight_delay",
    purpose="training",
    columns=(
        Column("flight_id", "int64", "key"),
        Column("at", "timestamp[us, tz=UTC]", "timestamp"),
        Column("origin", "string", "input"),
        Column("temp", "double", "feature", "weather:temp"),
        Column("late", "int32", "target"),
    ),
    chunks=(
        Chunk("ab" * 32, "train", 7, "2013-01-01T00:00:00+00:00", "2013-01-31T00:00:00+00:00"),
        Chunk("cd" * 32, "train", 2, "2013-02-01T00:00:00+00:00", "2013-02-02T00:00:00+00:00"),
        Chunk("ef" * 32, "test", 3, "2013-02-03T00:00:00+00:00", "2013-02-28T00:00:00+00:00"),
    ),
    window=("2012-12-31T00:00:00+00:00", "2013-02-28T00:00:00+00:00"),
    as_of="2013-03-01T00:00:00+00:00",
    split={"by": "time", "shares": {"train": 0.75, "test": 0.25}},
    features={"service": "flight_delay_v1", "semantics": "asof-1", "views": [{"name": "Wetter ü"}]},
    examples={"sql": "SELECT 1", "keys": ["flight_id"]},
    sources=({"of": "examples", "file": "a.parquet", "bytes": 1, "sha256": "00"},),
    assumptions=({"rule": "min_rows", "passed": True},),
)


def test_the_id_of_old_versions_never_changes():
    assert TINY.id == "773ce4239443a4f48d78c769c9c1eb32a10f0448b1d0d462645aa8cea651d5b2"


def test_a_version_reads_back_as_it_was():
    again = Manifest.from_json(TINY.to_json())
    assert again == TINY
    assert again.id == TINY.id


@pytest.mark.parametrize(
    "change",
    [
        {"application": "other"},
        {"window": ("2012-12-30T00:00:00+00:00", "2013-02-28T00:00:00+00:00")},
        {"chunks": TINY.chunks[:2]},
        {"columns": TINY.columns[:4]},
        {"features": None},
        {"sources": ()},
    ],
)
def test_another_content_is_another_version(change):
    assert replace(TINY, **change).id != TINY.id


def test_what_a_model_may_learn_from():
    assert TINY.model_inputs == ("origin", "temp")
    assert TINY.names("target") == ("late",)
    assert TINY.splits == {"train": 9, "test": 3}
    assert TINY.rows == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 2}', "written by another release"),
        ("[]", "not a dataset manifest"),
        ("{", "not a dataset manifest"),
        ('{"format": 1}', "not a dataset manifest"),
        (TINY.to_json().replace('"role":"key"', '"role":"lock"'), "unknown column role.*lock"),
    ],
)
def test_what_is_no_manifest_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        Manifest.from_json(text)


def folded(by, *folds):
    chunks = tuple(replace(TINY.chunks[0], digest=f"{n:064}", fold=fold) for n, fold in enumerate(folds))
    return replace(TINY, split={"by": by, "folds": 2}, chunks=(*chunks, TINY.chunks[2]))


def numbers(manifest):
    return [
        {name: [chunk.fold for chunk in chunks] for name, chunks in fold.items()} for fold in manifest.folds
    ]


def test_each_fold_is_judged_by_its_own_rows():
    assert TINY.folds == []
    assert numbers(folded("hash", 1, 1, 2)) == [
        {"train": [2], "validation": [1, 1]},
        {"train": [1, 1], "validation": [2]},
    ]


def test_folds_in_time_learn_from_the_past_alone():
    assert numbers(folded("time", 0, None, 1, 2)) == [
        {"train": [0], "validation": [1]},
        {"train": [0, 1], "validation": [2]},
    ]


def test_a_version_with_folds_reads_back_as_it_was():
    version = folded("time", 0, 1, 2)
    assert Manifest.from_json(version.to_json()) == version
    assert '"fold"' not in TINY.to_json()
